"""What a server tells of itself: over its monitoring port, or as replies to a system identity."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from bridge.clock import now_ms
from bridge.doctor.session import Session
from bridge.errors import ConfigurationError, TransportError
from bridge.provision.difference import parse_time


class Monitor(Protocol):
    """Who can be asked for a page."""

    async def page(self, name: str) -> Mapping[str, Any]:
        """One page, such as ``varz``.

        Raises:
            TransportError: No answer, or none that can be read.
        """


@dataclass(frozen=True, slots=True)
class HttpMonitor:
    """A monitoring port.

    Args:
        url: ``http://host:port``.
        timeout: Seconds for a page.
    """

    url: str
    timeout: float

    async def page(self, name: str) -> Mapping[str, Any]:
        """See `Monitor.page`."""
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ConfigurationError(f"{self.url}: not http://host:port")
        try:
            async with asyncio.timeout(self.timeout):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
                try:
                    # HTTP/1.0, so that the server ends the body by closing.
                    writer.write(f"GET /{name} HTTP/1.0\r\nHost: {parts.hostname}\r\n\r\n".encode())
                    answer = await reader.read(-1)
                finally:
                    writer.transport.abort()
            return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
        except (OSError, ValueError, TypeError) as error:
            raise TransportError(f"{self.url} does not answer ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True)
class SystemMonitor:
    """The server that a system identity is connected to, and the others of its cluster: the first answer counts."""

    session: Session

    async def page(self, name: str) -> Mapping[str, Any]:
        """See `Monitor.page`."""
        answer = json.loads(await self.session.request(f"$SYS.REQ.SERVER.PING.{name.upper()}", b""))
        return dict(answer.get("data") or {})


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the pages of one server said.

    Args:
        varz: The server.
        leafz: Its links.
        offset_ms: How far its clock is ahead of ours.
    """

    varz: Mapping[str, Any]
    leafz: Mapping[str, Any]
    offset_ms: float

    @property
    def links(self) -> int:
        """How many links stand."""
        return int(self.leafz.get("leafnodes", 0))


async def read_vitals(monitor: Monitor) -> Vitals:
    """Ask for what the checks need.

    Raises:
        TransportError: No answer.
    """
    before = now_ms()
    varz = await monitor.page("varz")
    return Vitals(varz, await monitor.page("leafz"), offset_ms(str(varz["now"]), before))


def offset_ms(server_time: str, asked_ms: int) -> float:
    """How far a server's clock is ahead, from the time it told and when it was asked."""
    theirs = parse_time(server_time).astimezone(dt.UTC).timestamp() * 1000
    return theirs - (asked_ms + now_ms()) / 2
