"""What processes tell of themselves: as documented, over real jobs, and nothing unless asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bridge.envelope import Opener
from bridge.errors import ConfigurationError, QueueFull
from bridge.signals import Signals, signalling
from bridge.signals.bind import METRICS_ENVIRONMENT, TRACES_ENVIRONMENT, new_meter
from bridge.signals.listener import MAX_CONNECTIONS, MAX_HEAD, Page, listening, split_address
from bridge.signals.meter import NO_METER
from bridge.signals.metrics import METRICS, SUBMITTED, Metric
from bridge.signals.probes import Probes
from bridge.signals.traces import NO_TRACER
from consumers import Job, Reject, Retry, Worker
from producers import Producer
from tests.fleet import Fleet, policy, until

COUNTED = ("records", "segments", "segment_bytes", "records_restarted")
ROOT = Path(__file__).resolve().parents[2]


def parse(text: str) -> dict[str, float]:
    """Samples of Prometheus' text, by name and labels as written."""
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


# --- the table ---------------------------------------------------------------------------------------


def test_the_document_lists_every_metric_and_no_other() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    rows = re.findall(r"(?m)^\| `(bunny_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", text)
    told = [(name, kind, tuple(re.findall(r"`(\w+)`", labels)), about) for name, kind, labels, about in rows]
    assert sorted(told) == sorted((m.name, m.kind, m.labels, m.about) for m in METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_labels_keep_the_conventions(metric: Metric) -> None:
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert metric.kind != "histogram" or metric.name.endswith("_seconds")
    assert not {"job", "session", "digest_full", "worker", "subject"} & set(metric.labels)
    assert not re.search(r"_(ms|milliseconds|kib|mb)\b", metric.name)


def test_every_metric_is_used() -> None:
    source = "".join(
        path.read_text()
        for folder in ("bridge", "producers", "consumers")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "metrics.py"
    )
    from bridge.signals import metrics

    names = {name for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert {name for name in names if not re.search(rf"\b{name}\b", source)} == set()


# --- producers and workers ---------------------------------------------------------------------------


@asynccontextmanager
async def working(fleet: Fleet, worker: Worker, signals: Signals) -> AsyncIterator[None]:
    """Run a worker by the one seam at which it shares a meter without an address."""
    bunny, connection, transport = fleet.identities["bunny"], fleet.connection("bunny"), fleet.transport("bunny")
    opener = Opener(bunny, fleet.trust)
    task = asyncio.create_task(worker._serve(bunny, opener, connection, transport, signals, Probes(), None))
    await until(lambda: worker.serving)
    yield
    worker.stop()
    await task


async def test_jobs_are_measured_on_both_sides() -> None:
    fleet, meter = Fleet.make(policy(max_attempts=2)), new_meter()
    worker, signals = Worker(), Signals(meter)

    @worker.handler("thumbs", "resize")
    async def resize(args: str, job: Job) -> str:
        if args == "again" and job.attempt == 1:
            raise Retry(0)
        if args == "never":
            raise Reject("no")
        return args

    transport = fleet.transport("relay")
    relay = Producer(fleet.identities["relay"], fleet.trust, fleet.connection("relay"), transport, signals)
    async with relay, working(fleet, worker, signals):
        handles = await relay.submit_many("thumbs", "resize", ["once", "again", "never", object()])
        results = [
            await asyncio.wait([asyncio.create_task(h.result())]) for h in handles if not isinstance(h, Exception)
        ]
        assert [done.pop().exception() is None for done, _ in results] == [True, True, False]
        await until(lambda: not worker.busy)  # a result is there before its job is acked and counted
        now = parse(meter.text().decode())
    job = '{kind="resize",queue="thumbs"}'
    assert now[f"bunny_producer_jobs_submitted_total{job}"] == 3
    assert now['bunny_producer_jobs_refused_total{error="InvalidArguments",kind="resize",queue="thumbs"}'] == 1
    assert now['bunny_producer_results_total{kind="resize",queue="thumbs",status="succeeded"}'] == 2
    assert now['bunny_producer_results_total{kind="resize",queue="thumbs",status="failed"}'] == 1
    assert now[f"bunny_producer_round_trip_seconds_count{job}"] == 3
    assert now[f"bunny_producer_sealed_bytes_total{job}"] > 3 * 1168
    assert now["bunny_worker_slots"] == worker.concurrency
    assert now[f"bunny_worker_run_seconds_count{job}"] == now[f"bunny_worker_queue_seconds_count{job}"] == 4
    assert now[f"bunny_worker_retries_total{job}"] == now[f"bunny_worker_dead_letters_total{job}"] == 1
    assert now['bunny_worker_deliveries_total{queue="thumbs"}'] == 4
    assert now['bunny_worker_redeliveries_total{queue="thumbs"}'] == 1
    assert now['bunny_worker_pulls_answered_total{queue="thumbs"}'] >= 4
    for outcome, count in {"succeeded": 2, "failed": 1, "retried": 1}.items():
        assert now[f'bunny_worker_outcomes_total{{kind="resize",outcome="{outcome}",queue="thumbs"}}'] == count
    assert "bunny_worker_slots" not in parse(meter.text().decode()), "what has ended is not shown"


async def test_records_are_counted_as_they_are_stored() -> None:
    fleet, meter, worker = Fleet.make(policy(max_payload=1 << 20, payload_bytes=1 << 26)), new_meter(), Worker()

    @worker.handler("thumbs", "resize")
    async def count(args: int, job: Job) -> AsyncIterator[int]:
        for n in range(args):
            if n == 4 and job.attempt == 1:
                raise Retry(0)
            yield n

    async with fleet.producer() as relay, working(fleet, worker, Signals(meter)):
        job = await relay.submit("thumbs", "resize", 10)
        await until(job.done)
        now = parse(meter.text().decode())
    stored = [len(message.data) for message in fleet.held("azure", "PARTS_thumbs")]
    found = {name: now[f'bunny_worker_{name}_total{{kind="resize",queue="thumbs"}}'] for name in COUNTED}
    assert found == dict(zip(COUNTED, (14, len(stored), sum(stored), 1), strict=True))


async def test_a_process_serves_what_it_measures_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening("127.0.0.1:0", lambda path: None) as port:
        pass
    monkeypatch.setenv(METRICS_ENVIRONMENT, f"127.0.0.1:{port}")
    async with signalling(None, None) as one, signalling(None, None) as other:
        assert one.meter is other.meter, "a producer and a worker of one program share an address"
        one.meter.count(SUBMITTED, "thumbs", "resize", by=2)
        status, body = await ask(port, "GET /metrics HTTP/1.1\r\n\r\n")
        assert (status, parse(body)['bunny_producer_jobs_submitted_total{kind="resize",queue="thumbs"}']) == (200, 2)
        assert (await ask(port, "GET / HTTP/1.1\r\n\r\n"))[0] == 404
    with pytest.raises(OSError, match=r"refused|Connect"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_nothing_is_measured_traced_or_imported_unless_asked() -> None:
    async with signalling(None, None) as signals:
        assert (signals.meter, signals.tracer) == (NO_METER, NO_TRACER)
    program = (
        "import sys, producers, consumers, bridge.signals\n"
        "print(sorted(m for m in ('prometheus_client', 'opentelemetry') if m in sys.modules))"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, cwd=ROOT, stdout=PIPE)
    told, _ = await asyncio.wait_for(child.communicate(), 60)
    assert (child.returncode, told.decode().strip()) == (0, "[]")


@pytest.mark.parametrize(
    ("variable", "value", "module", "extra"),
    [
        (METRICS_ENVIRONMENT, "127.0.0.1:0", "prometheus_client", "metrics"),
        (TRACES_ENVIRONMENT, "1", "opentelemetry.trace", "tracing"),
    ],
)
async def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, module: str, extra: str
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigurationError, match=re.escape(f"install bunny-bridge[{extra}]")):
        async with signalling(None, None):
            pass


# --- pages -------------------------------------------------------------------------------------------


async def ask(port: int, request: str) -> tuple[int, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode())
        answer = (await asyncio.wait_for(reader.read(), 10)).decode()
        head, _, body = answer.partition("\r\n\r\n")
        return (int(head.split(" ")[1]), body) if answer else (0, "")
    finally:
        writer.close()


def show(path: str) -> Page | None:
    if path == "/broken":
        raise QueueFull("a bug of ours")
    return Page(b"{}", "application/json") if path == "/page" else None


async def test_pages_are_read_and_never_written() -> None:
    async with listening("127.0.0.1:0", show) as port:
        assert await ask(port, "GET /page?x=1 HTTP/1.1\r\n\r\n") == (200, "{}")
        assert await ask(port, "HEAD /page HTTP/1.1\r\n\r\n") == (200, "")
        assert (await ask(port, "GET /other HTTP/1.1\r\n\r\n"))[0] == 404
        assert (await ask(port, "POST /page HTTP/1.1\r\n\r\n"))[0] == 405
        assert (await ask(port, "GET /broken HTTP/1.1\r\n\r\n"))[0] == 500
        assert await ask(port, "GET /page HTTP/1.1\r\nX: " + "x" * 3 * MAX_HEAD) == (0, "")


async def test_connections_are_bounded() -> None:
    async with listening("127.0.0.1:0", show) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionError):  # reset, or closed
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        for _, each in silent:
            each.close()


@pytest.mark.parametrize("address", ["", "9464", "host:", ":1", "host:port", "host:65536", "host:-1", "host:1e3"])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match="host:port"):
        split_address(address)


async def test_an_address_that_is_taken_is_named() -> None:
    async with listening("127.0.0.1:0", show) as port:
        with pytest.raises(ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}: ") as caught:
            async with listening(f"127.0.0.1:{port}", show):
                pass
    assert str(caught.value).count(str(port)) == 1
    assert str(caught.value).endswith("; name another HOST:PORT")


def test_ipv6_stands_in_brackets() -> None:
    assert split_address("[::1]:9464") == ("::1", 9464)
    assert json.dumps(split_address("0.0.0.0:1")) == '["0.0.0.0", 1]'
