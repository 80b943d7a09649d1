"""Headers that no client library writes: what a malicious producer may put there must end nobody's connection."""

from __future__ import annotations

from pathlib import Path

from consumers import Worker
from producers import Producer
from tests.integration.plain import Plain, plain
from tests.integration.test_jobs import held, serving, until_empty
from tests.support import running_bridge

SESSION = "feedfacefeedfacefeedface"

HEADERS = [
    # Between accounts a server appends a header of its own, wherever it finds no end of those that are there.
    b"XXXX/1.0 " + b"\xff" * 20,
    b"XXXX/1.0 \xff\xff\xff desc\r\nA: b\r\n\r\n",
    b"\x00\x01\x02\r\n\r\n",
    b"\xff" * 40,
    b"X",
    b"\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
]


async def put(client: Plain, subject: str, headers: bytes, body: bytes) -> None:
    """Publish header bytes as they are."""
    line = f"HPUB {subject} {len(headers)} {len(headers) + len(body)}\r\n"
    await client.client._send_command(line.encode() + headers + body + b"\r\n")
    await client.settled()


async def test_no_header_of_a_job_ends_the_connection_of_a_worker(tmp_path: Path) -> None:
    worker = adder()
    async with running_bridge(tmp_path) as bridge:
        async with plain(bridge, "beta") as beta:
            for n, headers in enumerate(HEADERS, 1):
                await put(beta, f"jobs.thumbs.normal.beta.{SESSION}.{n}", headers, b"junk")
        assert await held(bridge, "ops-aws", "JOBS_thumbs") == len(HEADERS)
        async with serving(bridge, "bunny", worker), Producer.open(bridge.identity("alpha")) as alpha:
            job = await alpha.submit("thumbs", "resize", 1)
            assert await job.result(int, timeout=20) == 2
            await until_empty(bridge, "ops-aws", "JOBS_thumbs")
        assert await held(bridge, "ops-azure", "REFUSED_thumbs") == len(HEADERS)


async def test_no_header_of_a_result_ends_the_connection_of_its_producer(tmp_path: Path) -> None:
    worker = adder()
    async with running_bridge(tmp_path) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        jobs = [await alpha.submit("thumbs", "resize", n) for n in range(len(HEADERS))]
        async with plain(bridge, "bunny") as bunny:
            for job, headers in zip(jobs, HEADERS, strict=True):
                await put(bunny, f"results.thumbs.alpha.{job.id}.0", headers, b"junk")
        async with serving(bridge, "bunny", worker):
            job = await alpha.submit("thumbs", "resize", 1)
            assert await job.result(int, timeout=20) == 2


def adder() -> Worker:
    worker = Worker(drain_timeout=0.1)

    @worker.handler("thumbs", "resize")
    async def resize(width: int) -> int:
        return width + 1

    return worker
