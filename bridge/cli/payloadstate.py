"""Which payloads' parts each cloud holds, asked by an inspector of it: names, sizes and times. Nothing is opened."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from bridge import subjects
from bridge.cli.out import moment
from bridge.cli.queuestate import TIMEOUT_S, Clouds, Info, has_parts
from bridge.clock import now_ms
from bridge.deadletters import stored_ms
from bridge.envelope import Opener
from bridge.errors import BundleExpired, Refusal, TransportError
from bridge.identity import Connection, QueueSettings
from bridge.jetstream import JetStreamTransport
from bridge.payload import SEALED_PART, Manifest
from bridge.segments import SEGMENTS
from bridge.subjects import JobKey

PAGES: Final = 32
"""Of 100,000 names each, the server's page: so many are asked for of one stream. A name is 8 bytes of memory here."""
PAGE_TIMEOUT_S: Final = 30.0
"""A page may have 12 MB."""
RANGES: Final = 20
"""Ranges of missing numbers that are told."""
NAMING: Final = 8
"""Messages of one stream that are asked which parts they name: generations of a job."""


class Place(NamedTuple):
    """Whose parts these are, by the tokens of their subjects, which whoever stored them chose."""

    queue: str
    producer: str
    session: str
    n: str
    transfer: str

    @property
    def pattern(self) -> str:
        """All of its parts."""
        return ".".join(("parts", *self, "*"))


@dataclass(slots=True)
class Transfer:
    """What stands of a payload, or of the records that a job streamed."""

    place: Place
    cloud: str
    of: str
    """``job``, ``result`` or ``records``."""
    parts: int = 0
    """How many stand, pieces of the index among them."""
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    since: int = 0
    """When the first that stands was stored, in milliseconds UTC, by the server's clock."""
    at_most: int | None = None
    """Bytes; None for records. All but the first and the last part are taken for full ones."""
    named_by: str | None = None
    """The stream with the signed message that names it."""
    manifest: Manifest | None = None
    """What that says of it."""

    def missing(self) -> list[str]:
        """Ranges of numbers that do not stand, up to the last there must be, or is where nothing names it."""
        here = sorted(set(self.numbers))
        end = self.manifest.messages if self.manifest else here[-1] + 1 if here else 0
        gaps = [(a + 1, b - 1) for a, b in pairwise([-1, *(each for each in here if each < end), end]) if b - a > 1]
        told = [f"{first}-{last}" if first < last else str(first) for first, last in gaps[:RANGES]]
        return [*told, *(["…"] if gaps[RANGES:] else [])]

    def as_json(self) -> dict[str, Any]:
        """All of it for machines; null is unknown."""
        return {
            **self.place._asdict(),
            "cloud": self.cloud,
            "of": self.of,
            "parts": self.parts,
            "bytes_at_most": self.at_most,
            "since": moment(self.since).isoformat(timespec="milliseconds"),
            "first": min(self.numbers, default=None),
            "last": max(self.numbers, default=None),
            "missing": self.missing(),
            "named_by": self.named_by,
            "must_be": self.manifest.messages if self.manifest else None,
            "length": self.manifest.length if self.manifest else None,
        }


@dataclass(slots=True)
class Payloads:
    """What was learnt; `look` is a visit for `bridge.cli.queuestate.ask`.

    Args:
        queue: The only queue that is looked at.
        job: The only job.
        transfer: The only transfer.
        limit: How many transfers are looked at; those of the most parts.
    """

    queue: str | None = None
    job: JobKey | None = None
    transfer: str = "*"
    limit: int = 100
    _found: list[Transfer] = field(default_factory=list)
    rooms: list[dict[str, Any]] = field(default_factory=list)
    withdrawn: int = 0
    """Transfers whose author has them pass: an empty message has taken the place of a part."""
    more: int = 0
    """Transfers beyond ``limit``."""
    cut: list[str] = field(default_factory=list)
    """Streams of more names than were asked for."""

    @property
    def transfers(self) -> list[Transfer]:
        """What was looked at, that of the most parts first."""
        return sorted(self._found, key=_order)

    async def look(self, clouds: Clouds, transport: JetStreamTransport, connection: Connection) -> None:
        """Find the transfers of a cloud, and ask for the first and the last part of each."""
        here: list[Transfer] = []
        for name, settings in sorted(connection.queues.items()):
            mine = connection.cloud in (settings.home, settings.work) and self.queue in (None, name)
            if mine and has_parts(settings):
                here += await self._named(transport, name, connection.cloud, settings)
        here.sort(key=_order)
        self.more += len(here[self.limit :])
        for each in here[: self.limit]:
            if await _measure(transport, each):
                self._found.append(each)
            else:
                self.withdrawn += 1

    async def _named(
        self, transport: JetStreamTransport, queue: str, cloud: str, settings: QueueSettings
    ) -> Iterable[Transfer]:
        """Transfers by the names of their parts, page by page."""
        stream, job = subjects.parts_stream(queue), self.job
        whose = (job.producer, job.session, str(job.n)) if job else ("*", "*", "*")
        pattern = Place(queue, *whose, self.transfer).pattern
        found: dict[Place, Transfer] = {}
        read = 0
        for page in range(PAGES):
            info = await _info(transport, stream, pattern, read)
            if not page:
                used, limit = info["state"]["bytes"], info["config"]["max_bytes"]
                self.rooms.append({"cloud": cloud, "queue": queue, "bytes": used, "max_bytes": limit})
            names = info["state"].get("subjects") or {}
            for name in names:
                place = Place(*name.split(".")[1:6])
                if (transfer := found.get(place)) is None:
                    of = "records" if place.transfer == SEGMENTS else "job" if cloud == settings.home else "result"
                    transfer = found[place] = Transfer(place, cloud, of)
                transfer.parts += 1
                if (number := subjects.parse_decimal(name.rpartition(".")[2])) is not None:
                    transfer.numbers.append(number)
            read += len(names)
            if not names or read >= info.get("total", 0):
                break
        else:
            self.cut.append(f"{stream} in {cloud}")
        return found.values()


@dataclass(frozen=True, slots=True)
class Naming:
    """Looks for the messages that name some transfers, in any cloud, and believes those that verify."""

    found: list[Transfer]
    opener: Opener

    async def look(self, clouds: Clouds, transport: JetStreamTransport, connection: Connection) -> None:
        """Ask for the jobs, dead letters and results of a cloud to which the transfers belong."""
        for each in self.found:
            settings = connection.queues.get(each.place.queue)
            if settings is None or each.of == "records":
                continue
            for where, stream, pattern in _namers(each, settings):
                if where == connection.cloud and each.manifest is None:
                    for message in await transport.read(stream, pattern, first=1, most=NAMING):
                        self._take(each, stream, message.data)

    def _take(self, transfer: Transfer, stream: str, data: bytes) -> None:
        try:
            core = self.opener.authenticate(data, now_ms()).core
        except (Refusal, BundleExpired):
            return
        manifest, place = Manifest.of(core), transfer.place
        same = tuple(map(str, core.key[:4])) == place[:4]
        if manifest and same and manifest.transfer.hex() == place.transfer:
            transfer.manifest, transfer.named_by = manifest, stream


def _order(transfer: Transfer) -> tuple[int, Place]:
    return -transfer.parts, transfer.place


def _namers(transfer: Transfer, settings: QueueSettings) -> list[tuple[str, str, str]]:
    """Cloud and stream of what may name a transfer, and its subjects."""
    queue, job = transfer.place.queue, ".".join(transfer.place[1:4])
    if transfer.of == "result":
        return [(settings.work, subjects.results_stream(queue), f"results.{queue}.{job}.*")]
    return [
        (settings.home, subjects.jobs_stream(queue), f"jobs.{queue}.*.{job}"),
        (settings.home, subjects.delayed_stream(queue), f"delayed.{queue}.{job}"),
        (settings.work, subjects.dead_stream(queue), f"dead.{queue}.{job}.*"),
    ]


async def _measure(transport: JetStreamTransport, transfer: Transfer) -> bool:
    """Ask for its first part and its last; False where it is being withdrawn, or has gone meanwhile.

    What takes the place of a part is newer than all parts, and nothing else is empty.
    """
    stream, pattern = subjects.parts_stream(transfer.place.queue), transfer.place.pattern
    asked = json.dumps({"last_by_subj": pattern}).encode()
    newest = await transport.request(subjects.api_call("DIRECT.GET", stream), asked, timeout=TIMEOUT_S)
    oldest = await transport.read(stream, pattern, first=1, most=1)
    if not (newest and oldest and oldest[0].data):
        return False
    transfer.since = stored_ms(oldest[0].headers)
    if transfer.of != "records":
        ends = len(oldest[0].data) + (len(newest) if transfer.parts > 1 else 0)
        transfer.at_most = ends + max(transfer.parts - 2, 0) * SEALED_PART
    return True


async def _info(transport: JetStreamTransport, stream: str, pattern: str, offset: int) -> Info:
    asked = json.dumps({"subjects_filter": pattern, "offset": offset}).encode()
    call = subjects.api_call("STREAM.INFO", stream)
    answer: Info = json.loads(await transport.request(call, asked, timeout=PAGE_TIMEOUT_S))
    if "error" in answer:
        raise TransportError(f"{stream}: {answer['error'].get('description')}; run `bunny provision`")
    return answer
