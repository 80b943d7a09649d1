"""Calls of a server's JetStream API: one, every page of a list, and many at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol, TypeVar

from bridge.errors import ConfigurationError, TransportError
from bridge.subjects import api_call

TIMEOUT_S: Final = 10.0
"""The longest that one call to the server may take; creating a stream writes to its disk."""

AT_ONCE: Final = 16
"""Calls under way at once. A server takes as many in turns, and each of a cluster waits for its peers."""

_NOT_FOUND: Final = frozenset({10059, 10014})
"""*Stream not found* and *consumer not found*."""

_NO_ROOM: Final = frozenset({10047, 10023})

_A = TypeVar("_A")
_T = TypeVar("_T")


class Requester(Protocol):
    """What is needed of a connection: a request to the local server, and its answer; several may be under way."""

    async def request(self, subject: str, payload: bytes, timeout: float = TIMEOUT_S) -> bytes:
        """Send a request and wait for the reply."""


async def call(
    server: Requester, asset: str, subject: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """The answer to one API call; None if the asset does not exist.

    Raises:
        TransportError: The server does not answer or refuses the call.
        ConfigurationError: The server has no room for the asset.
    """
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        answer = json.loads(await server.request(subject, payload, timeout=TIMEOUT_S))
    except ValueError:
        raise TransportError(f"{asset}: the server's answer to {subject} is not JSON") from None
    error = answer.get("error")
    if error is None:
        return dict(answer)
    code, words = error.get("err_code", 0), error.get("description", "")
    if code in _NOT_FOUND:
        return None
    if code in _NO_ROOM:
        raise ConfigurationError(
            f"{asset}: the server has no room for it ({words}, {code}); raise its max_file or lower max_bytes"
        )
    raise TransportError(f"{asset}: the server refuses {subject} ({words}, {code})")


async def listed(server: Requester, what: str, *tokens: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Every entry of a list that the server gives in pages, and the names that a cluster got no answer about in time.

    Args:
        server: Who is asked.
        what: ``streams``, or ``consumers`` of the stream that ``tokens`` name.
        tokens: The last tokens of the call.

    Raises:
        TransportError: The server does not answer or refuses the call.
    """
    subject = api_call(f"{what.removesuffix('s').upper()}.LIST", *tokens)
    found: list[dict[str, Any]] = []
    missing: list[str] = []
    offset, total = 0, 1
    while offset < total:
        page = await call(server, what, subject, {"offset": offset})
        if page is None:
            break
        found += page.get(what) or []
        missing += page.get("missing") or []
        offset, total = offset + max(int(page["limit"]), 1), int(page["total"])
    return found, missing


async def at_once(make: Callable[[_A], Awaitable[_T]], given: Iterable[_A]) -> list[_T]:
    """What each of the given comes to, in their order; at most `AT_ONCE` are under way.

    Raises:
        TransportError, ConfigurationError: Of the first that failed; those under way are given up.
    """
    free = asyncio.Semaphore(AT_ONCE)

    async def one(each: _A) -> _T:
        async with free:
            return await make(each)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each)) for each in given]
    except* (TransportError, ConfigurationError) as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
