"""``bunny open``: what one message says, to whoever holds the key, and what it may tell to everybody else."""

from __future__ import annotations

import base64
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge import crypto
from bridge import frame as frames
from bridge.cli.frame import AsJson, BridgeFolder, NotAsAsked, example
from bridge.cli.out import Out, printable
from bridge.cli.results import parsed
from bridge.cli.where import find_bridge
from bridge.cli.who import IdentityFolder, choose
from bridge.clock import now_ms
from bridge.core import Core, spell_time
from bridge.envelope import Opener
from bridge.errors import BridgeError, Refusal, TrustError, UsageError, WrongRecipient
from bridge.frame import MAX_ENVELOPE_LEN
from bridge.identity import ENVIRONMENT, IDENTITY_FILE, Identity
from bridge.job import Content, Status
from bridge.trust import Trust

_NOBODY: Final = Identity("nobody", "", (), (), b"")
"""Whoever has a trust bundle and no keys: enough to know who wrote what, and to open nothing."""


@dataclass(slots=True)
class _Seen:
    """What is known of a message, and how."""

    state: str
    """``opened``, ``sealed``, ``signed`` (a start, which has no content) or ``refused``."""
    why: BridgeError | None = None
    core: Core | None = None
    digest: bytes = b""
    content: Content | None = None
    status: Status | None = None


def register(app: typer.Typer) -> None:
    """Add the command."""
    translate = "nats --context acme-ops-aws stream view JOBS_thumbnails --translate 'bunny open'"
    app.command(
        "open", epilog=example("bunny open message.bin", "bunny open --identity /etc/bunny --body < job", translate)
    )(unseal)


def unseal(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The message.", show_default="standard input")
    ] = None,
    body: Annotated[bool, typer.Option("--body", help="Only the content, as the bytes it is.")] = False,
    identity: IdentityFolder = None,
    folder: BridgeFolder = None,
    as_json: AsJson = False,
) -> None:
    """Say who wrote a stored message, about what, and what is in it.

    The author is verified with the trust bundle beside the identity. The content is shown where that identity holds
    the key; to all others the message is sealed, which is no error unless --body was asked for. What a worker would
    refuse is refused, with what it claims. Of a bridge that runs here, the recipient's keys are taken.
    """
    data = _read(file)
    seen = _look(data, _place(identity, folder, data))
    out = Out(as_json)
    if body:
        _body(seen)
        return
    _show(out, seen)
    out.result(_values(seen))
    if seen.state == "refused" and seen.why is not None:
        raise NotAsAsked(seen.why)


def _read(file: Path | None) -> bytes:
    if file is None:
        return sys.stdin.buffer.read(MAX_ENVELOPE_LEN + 1)
    with file.open("rb") as source:
        return source.read(MAX_ENVELOPE_LEN + 1)


def _place(given: Path | None, bridge: Path | None, data: bytes) -> Path:
    if given is not None or (bridge is None and os.environ.get(ENVIRONMENT)):
        return choose(given, bridge, lambda _: True, "open messages")
    running = find_bridge(bridge)
    core, _ = _claims(data)
    fallback = next(iter(running.identities.values()))
    return running.identities.get(core.recipient, fallback) if core else fallback


def _claims(data: bytes) -> tuple[Core | None, bytes]:
    """The core and digest that the bytes have, verified or not."""
    try:
        frame = frames.parse(data)
    except Refusal:
        return None, b""
    return frame.core, crypto.sha256(frame.head)


def _look(data: bytes, place: Path) -> _Seen:
    identity = Identity.load(place) if (place / IDENTITY_FILE).exists() else _NOBODY
    core, digest = _claims(data)
    now = now_ms()
    try:
        opener = Opener(identity, Trust.load(place, now))
        message = opener.authenticate(data, now)
        if message.core.type == "start":
            return _Seen("signed", None, message.core, message.digest)
        opened = opener.open(message)
    except WrongRecipient as error:
        return _Seen("sealed", error, core, digest)
    except (Refusal, TrustError) as error:
        return _Seen("refused", error, core, digest)
    return _Seen("opened", None, opened.core, opened.digest, opened.content, opened.status)


def _body(seen: _Seen) -> None:
    if seen.content is not None:
        sys.stdout.flush()
        sys.stdout.buffer.write(seen.content.body)
        sys.stdout.buffer.flush()
    else:
        raise seen.why or UsageError("a start has no content: leave out --body")


def _show(out: Out, seen: _Seen) -> None:
    style = {"refused": "bold red", "sealed": "bold yellow"}.get(seen.state, "bold green")
    why = f"{type(seen.why).__name__}: {seen.why}" if seen.state == "refused" else str(seen.why or "")
    out.say(f"{seen.state.upper():9}{why}".rstrip(), style)
    if seen.core is None:
        return
    if seen.state == "refused":
        out.say("What it claims, NOT believed:", "red")
    for name, value in _facts(seen.core, seen.digest).items():
        out.say(f"{name:9}{value}")
    if seen.content is not None:
        if seen.status is not None:
            out.say(f"{'status':9}{seen.status}")
        out.say(f"{'content':9}{seen.content.content_type}, {len(seen.content.body)} bytes")
        out.say(_text(seen.content))


def _facts(core: Core, digest: bytes) -> dict[str, str]:
    """What everybody may know, in the order in which people ask."""
    facts = {
        core.type: core.job if not core.generation else f"{core.job}, generation {core.generation}",
        "queue": core.queue,
        "kind": core.kind,
        "from": f"{core.sender} (key {core.sender_kid.hex()[:16]})",
        "to": core.recipient,
        "issued": spell_time(core.issued),
        "expires": spell_time(core.expires) + (" (passed)" if core.expires <= now_ms() else ""),
        "digest": digest.hex(),
    }
    if core.job_digest:
        facts |= {"answers": core.job_digest.hex(), "attempt": f"{core.attempt} by {core.worker}"}
    return facts


def _text(content: Content) -> str:
    """Content as a terminal may show it."""
    is_json, value = parsed(content)
    return printable(json.dumps(value, indent=2, ensure_ascii=False)) if is_json else "(see it with --body)"


def _values(seen: _Seen) -> dict[str, Any]:
    values: dict[str, Any] = {"state": seen.state, "authentic": seen.state != "refused"}
    if seen.why is not None:
        values |= {"error": type(seen.why).__name__, "message": str(seen.why)}
    if seen.core is not None:
        values |= {"core": json.loads(seen.core.encode()), "digest": seen.digest.hex()}
    if seen.content is not None:
        values["status"] = seen.status and str(seen.status)
        values["content_type"] = seen.content.content_type
        is_json, value = parsed(seen.content)
        if is_json:
            values["content"] = value
        else:
            values["base64"] = base64.b64encode(seen.content.body).decode()
    return values
