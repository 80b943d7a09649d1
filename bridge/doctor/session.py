"""A connection to a NATS server that sees what a client hides: INFO, every ``-ERR``, and who did not answer."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge import subjects
from bridge.crypto import nkey_sign
from bridge.doctor.dial import Tls
from bridge.errors import Denied, TransportError
from bridge.identity import Identity
from bridge.strict_json import b64

_VIOLATION: Final = re.compile(r"Permissions Violation for (?:Publish|Subscription) to \"([^\"]*)\"")
_RESERVED: Final = "_R_."
_PAST_PERMISSIONS: Final = f'Permissions Violation for Publish with Reply of "{_RESERVED}'


class NotAccepted(TransportError):
    """The server refuses the identity."""


@dataclass(frozen=True, slots=True)
class Question:
    """A message to send; with ``answered``, a reply is waited for."""

    subject: str
    data: bytes = b""
    headers: Mapping[str, str] | None = None
    answered: bool = True


@dataclass(slots=True)
class Reply:
    """What came of a question: a refusal, a reply with the status of its header, or nothing."""

    denied: bool = False
    status: str = ""
    data: bytes | None = None

    @property
    def nobody(self) -> bool:
        """Whether nothing serves the subject, or nothing answered."""
        return not self.denied and (self.data is None or self.status == "503")


class Session:
    """One identity at its server. It asks and reads in turns, so it leaves no task behind.

    Args:
        tls: The connection, after its ``INFO`` was read.
        info: That ``INFO``.
        identity: Who connects.
        timeout: Seconds for each exchange.
        label: What the connection is for: servers list it under that name.
    """

    def __init__(
        self, tls: Tls, info: Mapping[str, Any], identity: Identity, timeout: float, label: str = "doctor"
    ) -> None:
        self.info, self.name, self.timeout, self.label = info, identity.name, timeout, label
        self._tls, self._identity = tls, identity
        self._inbox = f"{subjects.inbox_prefix(identity.name)}.{secrets.token_hex(8)}"
        self._asked, self._turn = 0, asyncio.Lock()
        self.round_trip = 0.0

    async def log_in(self) -> None:
        """Prove who it is.

        Raises:
            NotAccepted: The server refuses it.
            TransportError: No answer in time.
        """
        signature = nkey_sign(self._identity.nkey_seed, str(self.info.get("nonce", "")).encode())
        hello = {
            "verbose": False,
            "protocol": 1,
            "headers": True,
            "no_responders": True,
            "lang": "bunny",
            "version": "1",
            "name": f"{self.name}-{self.label}",
            "nkey": self._identity.nkey,
            "sig": b64(signature),
        }
        errors = await self._exchange(f"CONNECT {json.dumps(hello)}\r\n".encode())
        if errors:
            raise NotAccepted(errors[0])
        start = asyncio.get_running_loop().time()
        await self._exchange(b"")
        self.round_trip = asyncio.get_running_loop().time() - start
        denied = await self.refused_subscriptions([f"{self._inbox}.*"], keep=True)
        if denied:
            raise NotAccepted(f"its own inbox {subjects.inbox_prefix(self.name)}.> is refused")

    async def refused_subscriptions(self, wanted: Sequence[str], *, keep: bool = False) -> list[str]:
        """Which of these subjects may not be subscribed to."""
        lines, base = b"", self._asked
        for number, subject in enumerate(wanted, base + 1):
            lines += f"SUB {subject} {number}\r\n".encode()
            lines += b"" if keep else f"UNSUB {number}\r\n".encode()
        self._asked += len(wanted)
        refused = {m[1] for error in await self._exchange(lines) if (m := _VIOLATION.search(error))}
        return [subject for subject in wanted if subject in refused]

    async def permitted(self, questions: Sequence[Question]) -> list[bool]:
        """Which of these the permissions let it publish. **Nothing is delivered**, whatever they let through.

        Each names as its reply a subject that servers keep to themselves. A server refuses that to every client: after
        it has looked at the permissions, and before it looks for whoever listens (``processInboundClientMsg`` of
        nats-server). So there are two refusals, in words of their own, and one of them comes for every question.

        Raises:
            TransportError: The connection broke, or the server answers in another way.
        """
        lines = b"".join(_published(question, f"{_RESERVED}{number}") for number, question in enumerate(questions))
        errors = await self._exchange(lines)
        passed = [error.startswith(_PAST_PERMISSIONS) for error in errors]
        told = all(each or _VIOLATION.search(error) for each, error in zip(passed, errors, strict=True))
        if not told or len(passed) != len(questions):
            raise TransportError(f"{len(errors)} refusals for {len(questions)} messages: not those of a known server")
        return passed

    async def ask(self, questions: Sequence[Question], patience: float) -> list[Reply]:
        """Send all, collect every refusal, and then replies for at most ``patience`` seconds.

        Raises:
            TransportError: The connection broke.
        """
        base, replies = self._asked, [Reply() for _ in questions]
        self._asked += len(questions)
        lines = b"".join(_published(q, f"{self._inbox}.{base + i}") for i, q in enumerate(questions))
        by_subject: dict[str, list[Reply]] = {}
        for question, reply in zip(questions, replies, strict=True):
            by_subject.setdefault(question.subject, []).append(reply)

        def arrived(subject: str, status: str, data: bytes) -> None:
            number = subject.rpartition(".")[2]
            if number.isdigit() and base <= int(number) < base + len(replies):
                replies[int(number) - base].status, replies[int(number) - base].data = status, data

        for error in await self._exchange(lines, arrived):
            for reply in by_subject.get(m[1], []) if (m := _VIOLATION.search(error)) else []:
                reply.denied = True
        open_ = [reply for q, reply in zip(questions, replies, strict=True) if q.answered and not reply.denied]
        try:
            async with asyncio.timeout(patience):
                while any(reply.data is None for reply in open_):
                    await self._take(arrived)
        except TimeoutError:
            pass
        except OSError as error:
            raise TransportError(f"the connection broke: {error}") from None
        return replies

    async def request(self, subject: str, payload: bytes, timeout: float = 5.0) -> bytes:
        """One question of the JetStream API, after those that were asked before.

        Raises:
            Denied: The permissions refuse it.
            TransportError: Nobody answers.
        """
        async with self._turn:
            (reply,) = await self.ask([Question(subject, payload)], min(timeout, self.timeout))
        if reply.denied:
            raise Denied(f"the server's permissions refuse {subject}")
        if reply.data is None or reply.status == "503":
            raise TransportError(f"{subject}: nobody answers")
        return reply.data

    async def _exchange(self, lines: bytes, arrived: Any = None) -> list[str]:  # noqa: ANN401 - a callback or None
        """Send, then PING, and read up to the PONG: by then every refusal has come."""
        errors: list[str] = []
        try:
            async with asyncio.timeout(self.timeout):
                await self._tls.write(lines + b"PING\r\n")
                while (word := await self._take(arrived)) != "PONG":
                    if word.startswith("-ERR"):
                        errors.append(word[4:].strip(" '"))
        except (TimeoutError, OSError) as error:
            if errors:  # after a fatal one the server hangs up
                return errors
            raise TransportError(f"no answer: {str(error) or 'timeout'}") from None
        return errors

    async def _take(self, arrived: Any) -> str:  # noqa: ANN401 - as above
        """Read one operation of the server; its line."""
        line = (await self._tls.read_line()).decode(errors="replace")
        word, *rest = line.split(" ")
        if word == "PING":
            await self._tls.write(b"PONG\r\n")
        elif word in ("MSG", "HMSG"):
            total = int(rest[-1])
            body = (await self._tls.read(total + 2))[:-2]
            head = int(rest[-2]) if word == "HMSG" else 0
            status = body[:head].partition(b"\r\n")[0].decode(errors="replace").split(" ")[1:2] if head else []
            if arrived is not None:
                arrived(rest[0], status[0] if status else "", body[head:])
        return line


def _published(question: Question, reply: str) -> bytes:
    address = f"{question.subject} {reply}" if question.answered else question.subject
    if question.headers is None:
        return f"PUB {address} {len(question.data)}\r\n".encode() + question.data + b"\r\n"
    head = "NATS/1.0\r\n" + "".join(f"{k}: {v}\r\n" for k, v in question.headers.items()) + "\r\n"
    sizes = f"{len(head)} {len(head) + len(question.data)}"
    return f"HPUB {address} {sizes}\r\n{head}".encode() + question.data + b"\r\n"
