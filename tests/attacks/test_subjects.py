"""Subjects that no client library writes: what others than their reader may put there must end nobody's connection."""

from __future__ import annotations

from pathlib import Path

from producers import Producer
from tests.attacks.test_headers import adder
from tests.integration.plain import Plain, plain
from tests.integration.test_jobs import held, serving, until_empty
from tests.support import running_bridge

TOKENS = [b"\xff\xfe", b"\xc3", "ü".encode(), b"a\x0bb", b"a\x0c9", b"\0", b"\x1c\x85\xa0"]
"""Not UTF-8, or white space to some: a server takes and stores them."""


async def put(client: Plain, subject: bytes) -> None:
    """Publish to a subject as it is."""
    await client.client._send_command(b"PUB " + subject + b" 4\r\njunk\r\n")
    await client.settled()


async def test_no_subject_of_a_job_ends_the_connection_of_a_worker(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        async with plain(bridge, "beta") as beta:
            for token in TOKENS:
                await put(beta, b"jobs.thumbs.normal.beta." + token + b".1")
        assert await held(bridge, "ops-aws", "JOBS_thumbs") == len(TOKENS)
        async with serving(bridge, "bunny", adder()), Producer.open(bridge.identity("alpha")) as alpha:
            job = await alpha.submit("thumbs", "resize", 1)
            assert await job.result(int, timeout=20) == 2
            await until_empty(bridge, "ops-aws", "JOBS_thumbs")
        assert await held(bridge, "ops-azure", "REFUSED_thumbs") == len(TOKENS)


async def test_no_subject_of_a_result_or_an_event_ends_the_connection_of_its_producer(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, Producer.open(bridge.identity("alpha")) as alpha:
        waiting = await alpha.submit("thumbs", "resize", 1)
        session = waiting.id.partition(".")[0].encode()
        async with plain(bridge, "bunny") as bunny:
            for token in TOKENS:
                for subject in (b"results.thumbs.alpha.%s.%s.0", b"events.thumbs.alpha.%s.%s"):
                    await put(bunny, subject % (session, token))
        async with serving(bridge, "bunny", adder()):
            assert await waiting.result(int, timeout=20) == 2
        assert await held(bridge, "ops-azure", "RESULTS_thumbs") == len(TOKENS) + 1
