"""What a server's monitoring port says, asked on loopback alone: it has no authentication."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from bridge.errors import TransportError

REQUEST_TIMEOUT_S: Final = 2.0
COPIES: Final = "/jsz?accounts=1&streams=1&config=1"
COPIES_TIMEOUT_S: Final = 10.0
"""A busy server of many queues takes seconds to say all of their streams."""
_FIRST_PAUSE_S: Final = 0.005
_LONGEST_PAUSE_S: Final = 0.25
_TOLD: Final = 3
"""Names of what is missing that an error tells."""


class Unanswered(TransportError):
    """The monitor does not answer: the server is not up yet, or no longer."""


async def get(port: int, path: str, timeout: float = REQUEST_TIMEOUT_S) -> tuple[int, Any]:
    """The status and JSON body of a monitoring page.

    Raises:
        Unanswered: Nothing answers there within ``timeout`` seconds, or not in JSON.
    """
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                # HTTP/1.0, so that the server ends the body by closing.
                writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n".encode())
                answer = await reader.read(-1)
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), json.loads(body)
    except (OSError, ValueError, IndexError):
        raise Unanswered(f"http://127.0.0.1:{port}{path}: no answer from the server's monitor") from None


async def healthy(port: int) -> bool:
    """Whether the server listens and its JetStream has recovered its streams."""
    status, _ = await get(port, "/healthz?js-server-only=true")
    return status == 200


async def led(port: int) -> bool:
    """Whether the server's cluster has a leader: before, nobody answers what is asked of its JetStream."""
    _, body = await get(port, "/jsz")
    return bool(body.get("meta_cluster", {}).get("leader"))


async def links(port: int) -> int:
    """How many leaf links are up."""
    _, body = await get(port, "/leafz")
    return int(body["leafnodes"])


async def connected(port: int) -> dict[str, list[str]]:
    """The names of the connections of each NKey that is connected to the server."""
    _, body = await get(port, "/connz?auth=1&limit=100000")
    found: dict[str, list[str]] = {}
    for each in body.get("connections") or ():
        found.setdefault(str(each.get("nkey") or each.get("authorized_user") or ""), []).append(
            str(each.get("name", ""))
        )
    return found


async def link_peers(port: int) -> list[tuple[str, str]]:
    """The NKey of each leaf link, empty where it was dialled from here, and the SHA-256 of what the peer showed."""
    _, body = await get(port, "/connz?auth=1&limit=100000")
    links = [each for each in body.get("connections") or () if each.get("kind") == "Leafnode"]
    return [
        (str(each.get("authorized_user", "")), str((each.get("tls_peer_certs") or [{}])[0].get("cert_sha256", "")))
        for each in links
    ]


async def link_ids(port: int, nkey: str) -> list[int]:
    """The connection ids of the links that were dialled with an NKey."""
    _, body = await get(port, "/connz?auth=1&limit=100000")
    links = [each for each in body.get("connections") or () if each.get("kind") == "Leafnode"]
    return [int(each["cid"]) for each in links if each.get("authorized_user") == nkey]


async def copies(port: int) -> dict[str, bool]:
    """Streams that copy from another cloud, and whether they hear from it now; of a cluster, one server does."""
    _, body = await get(port, COPIES, COPIES_TIMEOUT_S)
    return read_copies(body)


def read_copies(body: dict[str, Any]) -> dict[str, bool]:
    """`copies`, from what the page `COPIES` says."""
    return {
        stream["name"]: all(_active(source) for source in stream.get("sources", ()) or [{}])
        for account in body.get("account_details", ())
        for stream in account.get("stream_detail", ())
        if stream["config"].get("sources")
    }


def _active(source: dict[str, Any]) -> bool:
    # Nanoseconds since the last message or heartbeat; -1 before the first. Heartbeats come every second.
    active: int = source.get("active", -1)
    return 0 <= active < 5_000_000_000


async def until(probe: Callable[[], Awaitable[bool]], timeout: float, what: str) -> None:
    """Ask ``probe`` until it says yes, pausing a little longer each time.

    Raises:
        TransportError: It did not within ``timeout`` seconds; ``what`` says what was waited for.
    """
    pause = _FIRST_PAUSE_S
    try:
        async with asyncio.timeout(timeout):
            while True:
                try:
                    if await probe():
                        return
                except Unanswered:
                    pass
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_PAUSE_S)
    except TimeoutError:
        raise TransportError(f"{what}: not within {timeout:g} s") from None


async def until_none_is_missing(probe: Callable[[], Awaitable[Sequence[str]]], patience: float, what: str) -> None:
    """Ask ``probe`` for the names of what is missing until nothing is, however long that takes while some come.

    Raises:
        TransportError: For ``patience`` seconds there were no fewer; ``what`` says what was waited for.
    """
    clock = asyncio.get_running_loop().time
    least: Sequence[str] | None = None
    pause, came = _FIRST_PAUSE_S, clock()
    while True:
        with contextlib.suppress(Unanswered):
            missing = await probe()
            if not missing:
                return
            if least is None or len(missing) < len(least):
                least, came = missing, clock()
        if clock() - came >= patience:
            raise TransportError(f"{what}: none within {patience:g} s of the last{_missing(least or ())}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _missing(names: Sequence[str]) -> str:
    told = ", ".join(names[:_TOLD]) + (f" and {len(names) - _TOLD} more" if len(names) > _TOLD else "")
    return f"; missing: {told}" if names else ""
