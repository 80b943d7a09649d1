"""A web server for a few pages that are read and never written: bounded in every way, and without authentication.

It listens on loopback unless told otherwise. What it shows (names, counts, times) is no secret, and is meant for the
cluster's own monitoring.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog

from bridge.errors import ConfigurationError

MAX_CONNECTIONS: Final = 32
"""At once; more are closed unread. A scraper uses one."""
REQUEST_TIMEOUT_S: Final = 5.0
"""For a whole question and its answer, however slowly it is asked or read."""
MAX_HEAD: Final = 8 * 1024
"""Bytes of a request; it has no body."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: int = 200


Pages = Callable[[str], Page | None]
"""From a path to its page; None where there is none."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ConfigurationError: It does not read so.
    """
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise ConfigurationError(f"{address[:80]!r} is no address to listen on; write host:port, as 127.0.0.1:9464")
    return host, int(port)


@contextlib.asynccontextmanager
async def listening(address: str, pages: Pages) -> AsyncIterator[int]:
    """Answer GET and HEAD until the block ends.

    Args:
        address: ``host:port``; port 0 is any free one.
        pages: What is shown.

    Yields:
        The port.

    Raises:
        ConfigurationError: Nothing can listen there.
    """
    host, port = split_address(address)
    open_: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(open_) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(_serve(reader, writer, pages), name="page")
        open_.add(task)
        task.add_done_callback(open_.discard)

    try:
        server = await asyncio.start_server(accept, host, port, limit=MAX_HEAD)
    except OSError as error:
        # Of a port that is taken asyncio names the address again; a name that is not found has no such number.
        number = error.errno or 0
        why = os.strerror(number) if number in errno.errorcode else error.strerror or "no such address"
        raise ConfigurationError(f"cannot listen on {address}: {why}; name another HOST:PORT") from None
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in open_:
            task.cancel()
        if open_:
            await asyncio.wait(open_)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pages: Pages) -> None:
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_answer(head, pages))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # whoever asked has gone, is too slow, or asks too much
    finally:
        writer.transport.abort()


def _answer(head: bytes, pages: Pages) -> bytes:
    method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    page: Page | None
    if method not in ("GET", "HEAD"):
        page = Page(b"only GET and HEAD\n", status=HTTPStatus.METHOD_NOT_ALLOWED)
    else:
        try:
            page = pages(path)
        except Exception as error:  # one page must not end the program that it is about
            _log.error("page_failed", exc_info=error)
            page = Page(b"failed; see the log\n", status=HTTPStatus.INTERNAL_SERVER_ERROR)
    page = page or Page(b"no such page\n", status=HTTPStatus.NOT_FOUND)
    lines = (
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "Connection: close",
        *(["Allow: GET, HEAD"] if page.status == HTTPStatus.METHOD_NOT_ALLOWED else []),
    )
    answer = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return answer if method == "HEAD" else answer + page.body
