"""Alert rules and dashboard: every metric in them exists, and a real Prometheus shows a real run in every panel."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import yaml

from bridge.agent import watching
from bridge.devserver import Bridge, monitor
from bridge.devserver.ports import free_port
from bridge.signals.metrics import METRICS
from consumers import Job, Reject, Retry, Worker
from producers import Producer
from tests.integration.test_agent import AGENTS
from tests.support import running_bridge

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
ALERTS: Final = DEPLOY / "prometheus/alerts.yaml"
DASHBOARD: Final = DEPLOY / "grafana/dashboard.json"
LABELS: Final = {metric.name: {*metric.labels} for metric in METRICS if metric.kind != "histogram"} | {
    f"{metric.name}_{part}": {*metric.labels, *(["le"] if part == "bucket" else [])}
    for metric in METRICS
    if metric.kind == "histogram"
    for part in ("bucket", "count", "sum")
}


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    panel: str
    expr: str

    def filled(self, queue: str = ".*") -> str:
        """As Grafana would send it."""
        return self.expr.replace("$queue", queue).replace("$__rate_interval", "1m")


def queries() -> Iterator[Query]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield Query(panel["title"], target["expr"])


def rules() -> Iterator[tuple[str, str]]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


EXPRESSIONS = [*((f"panel {query.panel}", query.filled()) for query in queries()), *rules()]


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_metrics_and_labels_that_are_asked_for_exist(where: str, expr: str) -> None:
    named = re.findall(r"(bunny_\w+)(?:\{([^}]*)\})?", expr)
    assert named
    for name, matchers in named:
        assert name in LABELS
        assert set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) <= LABELS[name]
    known = {"instance"}.union(*(LABELS[name] for name, _ in named))  # Prometheus names what it has scraped
    for grouped in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", expr):
        assert set(re.findall(r"\w+", grouped)) <= known


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        here = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not here & cells, f"{panel['title']} lies on another"
        cells |= here
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "queue"}


# --- with Prometheus' own programs ---------------------------------------------------------------------


def program(name: str) -> str:
    """A program of Prometheus."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: apt install prometheus)")
    return found


async def run(*command: str | Path, cwd: Path) -> str:
    child = await asyncio.create_subprocess_exec(*command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=STDOUT)
    told, _ = await asyncio.wait_for(child.communicate(), 60)
    assert child.returncode == 0, told.decode()
    return told.decode()


async def test_every_alert_fires_when_it_should_and_not_before() -> None:
    promtool = program("promtool")
    await run(promtool, "check", "rules", ALERTS.name, cwd=ALERTS.parent)
    await run(promtool, "test", "rules", "alerts_test.yaml", cwd=ALERTS.parent)
    tested = (ALERTS.parent / "alerts_test.yaml").read_text()
    assert {name for name, _ in rules()} == set(re.findall(r'alertname="(\w+)"', tested))


async def test_a_real_prometheus_shows_a_run_in_every_panel(tmp_path: Path) -> None:
    binary, taken = program("prometheus"), set[int]()
    ports = [free_port(taken) for _ in range(3)]
    worker = Worker(metrics=f"127.0.0.1:{ports[0]}")

    @worker.handler("thumbs", "resize")
    async def resize(args: int, job: Job) -> int:
        if args % 5 == 1 and job.attempt == 1:
            raise Retry(0)
        if args % 5 == 2:
            raise Reject("no")
        return args

    async with running_bridge(tmp_path, AGENTS) as bridge, contextlib.AsyncExitStack() as stack:
        agents = [
            await stack.enter_async_context(watching(bridge.identity(f"agent-{cloud}"), "127.0.0.1:0"))
            for cloud in ("aws", "azure")
        ]
        targets = [*ports[:2], *(port for _, port in agents)]
        await stack.enter_async_context(prometheus(binary, tmp_path, ports[2], targets))
        relay = await stack.enter_async_context(
            Producer.open(bridge.identity("alpha"), metrics=f"127.0.0.1:{ports[1]}")
        )
        async with busy(bridge, worker, relay):
            missing: list[Query] = []

            async def shown() -> bool:
                missing[:] = [query for query in queries() if not await ask(ports[2], query.filled())]
                return not missing

            async def up() -> bool:  # a busy machine may be late with one answer, which then counts as none
                return [sample["value"][1] for sample in await ask(ports[2], "up")] == ["1"] * 4

            with contextlib.suppress(Exception):
                await monitor.until(shown, 60, "data in every panel")
            assert not missing
            await monitor.until(up, 30, "every process to answer")
        (done,) = await ask(ports[2], 'bunny_queue_jobs_done_total{queue="thumbs",via="own"}')
        assert float(done["value"][1]) > 0


@contextlib.asynccontextmanager
async def busy(bridge: Bridge, worker: Worker, relay: Producer) -> AsyncIterator[None]:
    """Keep jobs coming and being worked."""
    worker.folder = bridge.identity("bunny")
    running = asyncio.create_task(worker.run())

    async def submit() -> None:
        number = 0
        while True:
            number += 1
            handle = await relay.submit("thumbs", "resize", number)
            with contextlib.suppress(Exception):  # every fifth is rejected
                await handle.result(timeout=30)
            with contextlib.suppress(Exception):
                await relay.submit("thumbs", "resize", object())

    submitting = asyncio.create_task(submit())
    try:
        yield
    finally:
        submitting.cancel()
        worker.stop()
        await asyncio.wait([submitting, running])
    running.result()


@contextlib.asynccontextmanager
async def prometheus(binary: str, folder: Path, port: int, targets: list[int]) -> AsyncIterator[None]:
    """Run a Prometheus that scrapes ``targets`` every second, with the alert rules loaded."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {"job_name": "bunny", "static_configs": [{"targets": [f"127.0.0.1:{target}" for target in targets]}]}
        ],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    child = await asyncio.create_subprocess_exec(
        binary,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:

        async def ready() -> bool:
            assert child.returncode is None, "Prometheus ended"
            return bool(await ask(port, "vector(1)"))

        await monitor.until(ready, 30, "Prometheus to be ready")
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def ask(port: int, query: str) -> list[dict[str, Any]]:
    """The result of an instant query; a quantile of nothing, NaN, is none."""
    _, answer = await monitor.get(port, f"/api/v1/query?{urlencode({'query': query})}")
    assert answer["status"] == "success", (query, answer)
    return [sample for sample in answer["data"]["result"] if sample["value"][1] != "NaN"]
