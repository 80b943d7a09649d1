"""The evidence, gathered live: what crossed the link, what lies in the stores, what the servers refuse."""

from __future__ import annotations

import asyncio
import random
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge import subjects
from bridge.cli.demo.forbidden import CONNECT_TIMEOUT_S, Attempt
from bridge.cli.demo.leaks import SAMPLE, Search
from bridge.cli.demo.stage import PRODUCER, QUEUE, WORKER
from bridge.devserver import Bridge, Handshake, read_handshake
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import JetStreamTransport, connect
from bridge.subjects import JobKey

WANTED_VERSION: Final = "TLS 1.3"
WANTED_GROUP: Final = "X25519MLKEM768"


@dataclass(frozen=True, slots=True)
class Store:
    """What the search of one cloud's store showed."""

    cloud: str
    size: int
    """Bytes read."""
    files: int
    samples: int
    """How many samples of the input were looked for."""
    found: int
    """How often any of them occurs."""
    planted: int
    """How often the sample that was planted in clear occurs."""

    @property
    def holds(self) -> bool:
        """Whether nothing of the input is there, by a search that finds what is."""
        return self.samples > 0 and self.found == 0 and self.planted > 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """What must hold besides right answers."""

    links: tuple[Handshake, ...]
    """Of every connection that crossed the relay; there is no link without one."""
    stores: tuple[Store, ...]
    stored_jobs: int
    """Jobs that lay in the hub's store while it was searched."""
    attempts: tuple[Attempt, ...]

    @property
    def link_holds(self) -> bool:
        """Whether every connection was TLS 1.3 with the hybrid key exchange, and nothing came before it."""
        return bool(self.links) and all(
            link.version == WANTED_VERSION and link.group == WANTED_GROUP and not link.in_clear for link in self.links
        )

    @property
    def holds(self) -> bool:
        """Whether all of it does."""
        return (
            self.link_holds
            and all(store.holds for store in self.stores)
            and self.stored_jobs > 0
            and all(attempt.refused and attempt.words for attempt in self.attempts)
        )


def link_handshakes(bridge: Bridge) -> tuple[Handshake, ...]:
    """What the hub answered on each connection that crossed the relay; one that cannot be read says nothing."""
    recordings = bridge.relay.recordings if bridge.relay is not None else ()
    unread = Handshake("unread", "", "")
    return tuple(read_handshake(bytes(r.from_hub)) or unread for r in recordings if r.from_hub)


async def copy_stores(bridge: Bridge) -> Path:
    """Keep what the stores hold before the first job: the servers' own files, and nothing of the input."""
    kept = bridge.folder.path / "before"
    for cloud in bridge.servers:
        await asyncio.to_thread(shutil.copytree, bridge.folder.store(cloud), kept / cloud, dirs_exist_ok=True)
    return kept


async def drop_known(samples: set[bytes], before: Path) -> set[bytes]:
    """The samples that were not in the stores before the first job.

    The package's own sources may name a stream as the servers' files about streams do.
    """
    found = await asyncio.to_thread(Search(samples).look, before)
    return samples - found.samples.keys()


async def plant(bridge: Bridge) -> bytes:
    """Store a random sample in clear in both clouds, by a publish, as a service that does not seal would.

    Run it while no worker does: it would put the job aside.
    """
    sample = secrets.token_bytes(SAMPLE)
    data = _somewhere_in(sample)
    job = JobKey(QUEUE, PRODUCER, secrets.token_hex(12), 1)
    async with await _connect(bridge, PRODUCER) as producer:
        await producer.publish(subjects.jobs_stream(QUEUE), subjects.job(job, subjects.PRIORITIES[0]), data)
    async with await _connect(bridge, WORKER) as worker:
        await worker.publish(subjects.refused_stream(QUEUE), subjects.refused(QUEUE, secrets.token_hex(12)), data)
    return sample


async def search_stores(bridge: Bridge, samples: set[bytes], planted: bytes) -> tuple[Store, ...]:
    """Search both stores, one after the other, each in a thread."""
    search = Search(samples | {planted})
    stores = []
    for cloud in bridge.servers:
        found = await asyncio.to_thread(search.look, bridge.folder.store(cloud))
        clear = found.samples[planted]
        stores.append(Store(cloud, found.bytes_read, found.files, len(samples), found.occurrences - clear, clear))
    return tuple(stores)


async def _connect(bridge: Bridge, name: str) -> JetStreamTransport:
    folder = bridge.identity(name)
    return await connect(
        Connection.load(folder),
        Identity.load(folder).nkey_seed,
        folder / CA_FILE,
        name=f"{name}-plants",
        timeout=CONNECT_TIMEOUT_S,
    )


def _somewhere_in(sample: bytes) -> bytes:
    lengths: Sequence[int] = (random.randrange(256), random.randrange(256))  # noqa: S311  # where it lies; no secret
    return secrets.token_bytes(lengths[0]) + sample + secrets.token_bytes(lengths[1])
