"""A newer trust bundle reaches services that run, and what cannot be relied on does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import bundle, follow
from bridge.clock import now_ms
from bridge.crypto import SigningKey
from bridge.devserver import Bridge
from bridge.errors import NotAuthorised
from bridge.files import write_file
from bridge.identity import TRUST_FILE, load_keys
from bridge.policy import Policy, load_policy
from bridge.roots import load_roots
from bridge.trust import FLOOR_FILE
from consumers import Worker
from producers import Producer
from tests.support import POLICY, running_bridge

KINDS = "kinds: [resize, probe]"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LOOK_S", 0.02)


def without_probe(tmp_path: Path) -> Policy:
    path = tmp_path / "less.yaml"
    path.write_text(POLICY.replace(KINDS, "kinds: [resize]"))
    return load_policy(path)


def signed(bridge: Bridge, policy: Policy, version: int, roots: list[SigningKey] | None = None) -> bytes:
    payload = bundle.build_payload(policy, load_keys(bridge.folder.keys, policy.identities), version, now_ms())
    return bundle.sign_payload(payload, roots if roots is not None else load_roots(bridge.folder.roots))


def version(bridge: Bridge) -> int:
    return int(bundle.read_payload((bridge.folder.path / TRUST_FILE).read_bytes())["version"])


async def until(logs: list[Any], told: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(10):
        while not any(map(told, logs)):  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[None]:
    """A worker as `Worker.main` runs it, with handlers for both kinds."""
    worker = Worker(folder)

    @worker.handler("thumbs", "resize")
    @worker.handler("thumbs", "probe")
    async def handle(args: int) -> int:
        return args

    running = asyncio.create_task(worker.run())
    try:
        while not (worker.serving or running.done()):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
        yield
    finally:
        worker.stop()
        await running


async def test_a_newer_bundle_is_taken_up_by_a_producer_and_a_worker_that_run(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        alpha, bunny, now = bridge.identity("alpha"), bridge.identity("bunny"), version(bridge)
        for place in (alpha, bunny):
            write_file(place / TRUST_FILE, signed(bridge, without_probe(tmp_path), now + 1))
        with capture_logs() as logs:
            async with Producer.open(alpha) as producer, serving(bunny):
                assert await (await producer.submit("thumbs", "resize", 1)).result(int, timeout=20) == 1
                with pytest.raises(NotAuthorised):
                    await producer.submit("thumbs", "probe", 1)
                for place in (bunny, alpha):
                    write_file(place / TRUST_FILE, signed(bridge, bridge.policy, now + 2))
                await until(logs, lambda e: sum(x["event"] == "trust_reloaded" for x in logs) == 2)
                assert await (await producer.submit("thumbs", "probe", 1)).result(int, timeout=20) == 1
        assert {(place / FLOOR_FILE).read_text() for place in (alpha, bunny)} == {f"{now + 2}\n"}


async def test_what_cannot_be_relied_on_is_said_once_and_the_bundle_stays(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        alpha, now = bridge.identity("alpha"), version(bridge)
        good = (alpha / TRUST_FILE).read_bytes()
        worse = {
            "BelowThreshold": signed(bridge, without_probe(tmp_path), now + 1, [SigningKey.generate()]),
            "BadBundle": good[: len(good) // 2],
            "BundleRolledBack": signed(bridge, without_probe(tmp_path), now),
        }
        write_file(alpha / TRUST_FILE, signed(bridge, bridge.policy, now + 1))
        with capture_logs() as logs:
            async with Producer.open(alpha) as producer:
                for error, data in worse.items():
                    write_file(alpha / TRUST_FILE, data)
                    await until(logs, lambda e, error=error: e.get("error") == error)  # type: ignore[misc]  # bound now
                    await producer.submit("thumbs", "probe", 1)
                (alpha / TRUST_FILE).unlink()
                await until(logs, lambda e: e.get("error") == "ConfigurationError")
                await producer.submit("thumbs", "probe", 1)
                write_file(alpha / TRUST_FILE, signed(bridge, without_probe(tmp_path), now + 2))
                await until(logs, lambda e: e["event"] == "trust_reloaded")
                with pytest.raises(NotAuthorised):
                    await producer.submit("thumbs", "probe", 1)
        said = [event["error"] for event in logs if event["event"] == "trust_not_reloaded"]
        assert said == [*worse, "ConfigurationError"]
