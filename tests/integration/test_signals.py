"""A real run seen from outside: one trace through both clouds, metrics of every process, and logs without a payload."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from bridge import observe
from bridge.devserver import Bridge
from consumers import Job, Worker
from producers import JobFailed, Producer
from tests.support import POLICY, running_bridge

ROOT = Path(__file__).resolve().parents[2]
CANARY = "canary-7f3a payload äöü"
QUICK = POLICY.replace(
    "    kinds: [resize, probe]\n",
    "    kinds: [resize, probe]\n    backoff: {initial: 10ms, factor: 1, max: 10ms, jitter: 0}\n",
)


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def provider(cloud: str, exporter: InMemorySpanExporter) -> TracerProvider:
    """An SDK as a service of that cloud would configure it."""
    made = TracerProvider(resource=Resource({"service.name": cloud}))
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


@contextlib.asynccontextmanager
async def serving(bridge: Bridge, worker: Worker) -> AsyncIterator[None]:
    worker.folder = bridge.identity("bunny")
    started = asyncio.Event()
    worker.on_startup(started.set)
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(started.wait(), 20)
    try:
        yield
    finally:
        worker.stop()
        await running


async def test_one_trace_holds_a_jobs_way_through_both_clouds(tmp_path: Path) -> None:
    exporter = InMemorySpanExporter()
    aws, azure = provider("relay in aws", exporter), provider("bunny in azure", exporter)
    worker, seen = Worker(traces=azure), []

    @worker.handler("thumbs", "resize")
    def resize(args: str, job: Job) -> str:
        seen.append(job.traceparent)
        with azure.get_tracer("the handler's own").start_as_current_span("draw"):
            if job.attempt == 1:
                raise ValueError(CANARY)
        return args

    async with (
        running_bridge(tmp_path, QUICK) as bridge,
        serving(bridge, worker),
        Producer.open(bridge.identity("alpha"), traces=aws) as relay,
    ):
        with aws.get_tracer("the program's own").start_as_current_span("order"):
            handle = await relay.submit("thumbs", "resize", CANARY)
        assert await handle.result(timeout=30) == CANARY
    spans = exporter.get_finished_spans()
    _show(spans)
    assert len({span.context.trace_id for span in spans}) == 1
    by_id = {span.context.span_id: span for span in spans}

    def path(span: ReadableSpan) -> str:
        parent = by_id[span.parent.span_id] if span.parent else None
        return (path(parent) + " > " if parent else "") + span.name

    assert sorted(map(path, spans)) == sorted(
        [
            "order",
            "order > send jobs.thumbs",
            "order > send jobs.thumbs > receive jobs.thumbs",
            "order > send jobs.thumbs > process jobs.thumbs",
            "order > send jobs.thumbs > process jobs.thumbs > draw",
            "order > send jobs.thumbs > process jobs.thumbs > settle jobs.thumbs",
            "order > send jobs.thumbs > process jobs.thumbs",
            "order > send jobs.thumbs > process jobs.thumbs > draw",
            "order > send jobs.thumbs > process jobs.thumbs > settle jobs.thumbs",
            "order > send jobs.thumbs > process jobs.thumbs > settle jobs.thumbs > send results.thumbs",
            "order > send jobs.thumbs > process jobs.thumbs > settle jobs.thumbs > send results.thumbs"
            " > process results.thumbs",
        ]
    )
    kinds = {span.name: span.kind for span in spans}
    assert kinds["send jobs.thumbs"] is kinds["send results.thumbs"] is SpanKind.PRODUCER
    assert kinds["process jobs.thumbs"] is kinds["process results.thumbs"] is SpanKind.CONSUMER
    assert kinds["receive jobs.thumbs"] is kinds["settle jobs.thumbs"] is SpanKind.CLIENT
    where = {span.name: span.resource.attributes["service.name"] for span in spans}
    assert where["process jobs.thumbs"] == where["send results.thumbs"] == "bunny in azure"
    assert where["send jobs.thumbs"] == where["process results.thumbs"] == "relay in aws"
    ours = [span for span in spans if " " in span.name]
    for span in ours:
        told = span.attributes or {}
        assert told["messaging.system"] == "nats"
        assert told["messaging.operation.name"] == told["messaging.operation.type"] == span.name.split()[0]
        assert told["messaging.destination.template"] == span.name.split()[1]
        assert told["messaging.message.id"] == handle.id
    attempts = sorted(
        ((span.attributes or {})["bunny.attempt"], span.status.status_code)
        for span in ours
        if span.name.startswith("process jobs")
    )
    assert attempts == [(1, StatusCode.ERROR), (2, StatusCode.UNSET)]
    assert [traceparent.split("-")[1] for traceparent in seen if traceparent] == [
        f"{spans[0].context.trace_id:032x}"
    ] * 2
    assert CANARY not in "".join(span.to_json(indent=None) for span in ours)
    assert "canary-7f3a" not in "".join(span.to_json(indent=None) for span in ours)


def _show(spans: tuple[ReadableSpan, ...]) -> None:
    """The trace as a tree with times, on standard output: see it with ``pytest -s``."""
    start = min(span.start_time or 0 for span in spans)
    for span in sorted(spans, key=lambda span: span.start_time or 0):
        begun, took = ((span.start_time or 0) - start) / 1e6, ((span.end_time or 0) - (span.start_time or 0)) / 1e6
        where = str(span.resource.attributes["service.name"])
        line = f"{begun:9.2f} ms {took:8.2f} ms  {span.kind.name:8} {where}: {span.name}"
        sys.stdout.write(line + "\n")


async def test_a_worker_that_does_not_trace_hands_the_trace_on(tmp_path: Path) -> None:
    exporter, worker = InMemorySpanExporter(), Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    async with (
        running_bridge(tmp_path) as bridge,
        serving(bridge, worker),
        Producer.open(bridge.identity("alpha"), traces=provider("aws", exporter)) as relay,
    ):
        assert await (await relay.submit("thumbs", "resize", 1)).result(timeout=30) == 1
    sent, processed = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    assert (sent.name, processed.name) == ("send jobs.thumbs", "process results.thumbs")
    assert processed.parent is not None
    assert processed.parent.span_id == sent.context.span_id


WORKER = """
import structlog
from consumers import Job, Reject, Worker

worker = Worker()
log = structlog.get_logger()

@worker.on_startup
def ready() -> None:
    print("ready", flush=True)

@worker.handler("thumbs", "resize")
async def resize(args: dict[str, str], job: Job) -> dict[str, str]:
    log.info("drawing", args=args, picture=args["secret"])
    log.info(f"drawing {args}")
    if job.attempt == 1:
        raise ValueError(args["secret"])
    return args

@worker.handler("thumbs", "probe")
def probe(args: str) -> None:
    raise Reject(args, type=args)
"""


def private(folder: Path) -> list[str]:
    """Every private value of an identity folder, as it stands in the file."""
    value = json.loads((folder / "identity.json").read_text())
    keys = [key["seed"] for key in (*value["sign"], *value["kem"])]
    assert keys
    return [value["nkey_seed"], value["dedup_secret"], *keys]


async def test_h42_the_logs_of_a_run_have_the_jobs_context_and_no_payload(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    observe.configure(json=True, level="debug")
    (tmp_path / "drawing.py").write_text(WORKER)
    async with running_bridge(tmp_path, QUICK) as bridge:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge.cli", "work", "drawing:worker", "--json"),
            env={**os.environ, "BUNNY_IDENTITY": str(bridge.identity("bunny")), "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            assert child.stdout is not None
            assert await asyncio.wait_for(child.stdout.readline(), 30) == b"ready\n"
            async with Producer.open(bridge.identity("alpha")) as relay:
                done = await relay.submit("thumbs", "resize", {"secret": CANARY})
                assert await done.result(timeout=30) == {"secret": CANARY}
                rejected = await relay.submit("thumbs", "probe", CANARY)
                with pytest.raises(JobFailed):
                    await rejected.result(timeout=30)
            child.terminate()
            _, told = await asyncio.wait_for(child.communicate(), 30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        assert child.returncode == 0
        secrets = [CANARY, "canary-7f3a", CANARY.encode("unicode_escape").decode(), *private(bridge.identity("bunny"))]
        servers = "".join(path.read_text() for path in (tmp_path / ".bunny/logs").iterdir())
    lines = [json.loads(line) for line in told.decode().splitlines()]
    mine = capfd.readouterr()
    for text in (told.decode(), mine.out, mine.err, servers):
        assert not any(secret in text for secret in secrets), text
    of_job = [line for line in lines if line.get("job") == done.id]
    assert {line["event"] for line in of_job} >= {"drawing", "unnamed_event", "attempt_failed", "job_retried"}
    for line in of_job:
        assert (line["queue"], line["kind"], line["producer"]) == ("thumbs", "resize", "alpha"), line
        assert line["attempt"] in (1, 2)
        assert line["level"]
        assert line["timestamp"]
    failed = next(line for line in of_job if line["event"] == "attempt_failed")
    assert failed["error"] == "ValueError"
    assert any("drawing.py" in frame for frame in failed["frames"])
