"""Segments made by hand, to stand where a worker's would."""

from __future__ import annotations

from typing import Any

from bridge.clock import now_ms
from bridge.core import Core
from bridge.envelope import Draft, Sealed
from bridge.job import Content
from bridge.segments import Chain, pack, subject
from producers import Handle
from tests.fleet import Fleet


def forged(
    rig: Fleet,
    job: Handle[Any],
    chain: Chain,
    bodies: list[bytes],
    *,
    signer: str = "bunny",
    sender: str = "bunny",
    to: str = "relay",
    **fields: Any,  # noqa: ANN401  of the core
) -> Sealed:
    """The segment of a job that follows a chain, as whoever has a principal's key can make it."""
    now, token = now_ms(), job.token
    about: dict[str, Any] = {
        "type": "segment",
        "queue": token.queue,
        "kind": "resize",
        "job": job.id,
        "generation": token.generation,
        "sender": sender,
        "sender_kid": b"",
        "recipient": to,
        "issued": now,
        "expires": now + 60_000,
        "job_digest": bytes.fromhex(token.digest),
        "attempt": 1,
        "worker": "forger",
    }
    core = chain.core(Core(**about | fields), list(map(len, bodies)))
    key = rig.opener(sender).trust.peer(to).kem_key(now)
    return rig.sealer(signer).seal(Draft(core, (key,), Content("application/json", pack(bodies))), now)


async def place(rig: Fleet, job: Handle[Any], run: int, number: int, data: bytes) -> None:
    """Put something where a segment stands, or would: as the broker of the workers' cloud can."""
    async with rig.transport("bunny") as broker:
        await broker.publish("PARTS_thumbs", subject(job.key, run, number), data)
