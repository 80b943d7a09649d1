"""Provisioning, against real servers and with each cloud's real provisioner."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.devserver import Bridge
from bridge.errors import ConfigurationError, TransportError
from bridge.provision import Outcome, Report, load_plan, provision
from bridge.subjects import JobKey, done, results_stream
from bridge.subjects import result as result_subject
from bridge.transport import Message
from tests.support import POLICY, connected, running_bridge

SESSION = "0123456789abcdef01234567"


def plan_of(bridge: Bridge, cloud: str) -> dict[str, Any]:
    """A copy of a cloud's plan, to be changed."""
    return copy.deepcopy(dict(load_plan(bridge.folder.rendered / cloud / "plan.json")))


def stream_of(plan: dict[str, Any], name: str) -> dict[str, Any]:
    return next(dict_ for dict_ in plan["streams"] if dict_["name"] == name)


async def apply(bridge: Bridge, cloud: str, plan: dict[str, Any], *, dry_run: bool = False) -> Report:
    async with await connected(bridge, f"prov-{cloud}") as transport:
        return await provision(transport, plan, dry_run=dry_run)


async def config_of(bridge: Bridge, cloud: str, stream: str) -> dict[str, Any]:
    async with await connected(bridge, f"prov-{cloud}") as transport:
        return dict(json.loads(await transport.request(f"$JS.API.STREAM.INFO.{stream}", b""))["config"])


def outcomes(report: Report) -> dict[str, Outcome]:
    return {change.asset: change.outcome for change in report.changes}


async def store_results(bridge: Bridge, count: int) -> None:
    async with await connected(bridge, "bunny") as worker:
        for n in range(1, count + 1):
            subject = result_subject(JobKey("thumbs", "alpha", SESSION, n))
            await worker.publish(results_stream("thumbs"), subject, bytes(1024))


async def test_it_creates_everything_and_then_nothing(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        for cloud in ("aws", "azure"):
            planned = plan_of(bridge, cloud)
            count = len(planned["streams"]) + len(planned["consumers"])
            dry = await bridge.provision(cloud, dry_run=True)
            assert list(outcomes(dry).values()) == [Outcome.CREATED] * count
            assert not dry.applied
            first = await bridge.provision(cloud)
            assert first.applied
            assert outcomes(first) == outcomes(dry)
            again = await bridge.provision(cloud)
            assert list(outcomes(again).values()) == [Outcome.UNCHANGED] * count
            assert not again.extra


async def test_safe_changes_are_made_and_keep_what_the_plan_does_not_name(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        await store_results(bridge, 3)
        plan = plan_of(bridge, "azure")
        stream = stream_of(plan, "RESULTS_thumbs")
        stream["max_bytes"] *= 2
        stream["description"] = "changed"
        stream["metadata"] = {"owner": "bunny"}
        plan["consumers"][0]["config"]["ack_wait"] *= 2
        report = await apply(bridge, "azure", plan)
        changed = {asset: outcome for asset, outcome in outcomes(report).items() if outcome is not Outcome.UNCHANGED}
        assert changed == {
            "stream RESULTS_thumbs": Outcome.UPDATED,
            "consumer DELAYED_lookup/relay": Outcome.UPDATED,
        }
        have = await config_of(bridge, "azure", "RESULTS_thumbs")
        assert have["max_bytes"] == stream["max_bytes"]
        assert have["metadata"].items() >= {"owner": "bunny"}.items()
        assert set(outcomes(await apply(bridge, "azure", plan)).values()) == {Outcome.UNCHANGED}
        del stream["metadata"]
        stream["description"] = "changed again"
        await apply(bridge, "azure", plan)
        assert (await config_of(bridge, "azure", "RESULTS_thumbs"))["metadata"]["owner"] == "bunny"


async def test_what_would_destroy_data_is_refused_in_one_line_and_nothing_is_changed(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        await store_results(bridge, 20)
        before = await config_of(bridge, "azure", "RESULTS_thumbs")
        for field, value in (
            ("max_bytes", 10_000),
            ("max_msgs", 19),
            ("max_age", 1),
            ("subjects", ["results.thumbs.alpha.>"]),
            ("retention", "workqueue"),
            ("storage", "memory"),
            ("discard", "old"),
        ):
            plan = plan_of(bridge, "azure")
            stream_of(plan, "RESULTS_thumbs")[field] = value
            stream_of(plan, "DEAD_thumbs")["description"] = "safe by itself"
            report = await apply(bridge, "azure", plan)
            assert not report.applied
            assert outcomes(report)["stream RESULTS_thumbs"] is Outcome.REFUSED
            assert len(report.refusals) == 1
            line = report.refusals[0]
            assert "\n" not in line
            for part in ("stream RESULTS_thumbs", field, json.dumps(before.get(field)), json.dumps(value)):
                assert part in line
        assert await config_of(bridge, "azure", "RESULTS_thumbs") == before
        assert (await config_of(bridge, "azure", "DEAD_thumbs"))["description"] != "safe by itself"
        plan = plan_of(bridge, "azure")
        stream_of(plan, "RESULTS_thumbs")["max_msgs"] = 20
        assert (await apply(bridge, "azure", plan)).applied


async def test_a_consumer_is_not_turned_into_another(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        plan = plan_of(bridge, "aws")
        jobs = next(each for each in plan["consumers"] if each["config"]["name"] == "bunny-normal")
        jobs["config"]["filter_subject"] = "jobs.thumbs.normal.alpha.>"
        report = await apply(bridge, "aws", plan)
        assert not report.applied
        assert report.refusals[0].startswith("consumer JOBS_thumbs/bunny-normal: filter_subject is")


async def test_a_policy_that_shrinks_below_what_is_stored_does_not_come_up(tmp_path: Path) -> None:
    async with running_bridge(tmp_path) as bridge, await connected(bridge, "alpha") as producer:
        for n in (1, 2, 3):
            await producer.publish("JOBS_thumbs", f"jobs.thumbs.normal.alpha.{SESSION}.{n}", b"sealed")
    smaller = POLICY.replace("kinds: [resize, probe]\n", "kinds: [resize, probe]\n    max_pending: 2\n")
    with pytest.raises(ConfigurationError, match=r"stream JOBS_thumbs: max_msgs is \d+, the plan wants 2: 3 is stored"):
        async with running_bridge(tmp_path, smaller):
            pass
    async with running_bridge(tmp_path) as bridge, await connected(bridge, "alpha") as producer:
        assert await producer.lookup("JOBS_thumbs", f"jobs.thumbs.normal.alpha.{SESSION}.3") is not None


async def test_streams_that_are_not_planned_are_told_and_kept(tmp_path: Path) -> None:
    async with running_bridge(tmp_path):
        pass
    without = POLICY[: POLICY.index("  lookup:")]
    async with running_bridge(tmp_path, without) as bridge:
        report = await bridge.provision("azure")
        assert report.applied
        assert report.extra == ("CONTROL_lookup", "DELAYED_lookup", "JOBS_lookup", "RESULTS_lookup")


async def test_an_inbox_is_made_for_what_stands_and_kept_when_the_policy_has_it_no_more(tmp_path: Path) -> None:
    with_inbox = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    inbox: [alpha]\n")
    async with running_bridge(tmp_path):
        pass
    async with running_bridge(tmp_path, with_inbox) as bridge:
        report = await bridge.provision("aws")
        assert outcomes(report)["consumer RESULTS_thumbs/inbox-alpha"] is Outcome.UNCHANGED
        assert not report.extra
    async with running_bridge(tmp_path) as bridge:
        report = await bridge.provision("aws")
        assert report.applied
        assert report.extra == ("RESULTS_thumbs/inbox-alpha",)


async def test_a_plan_without_room_says_what_to_do(tmp_path: Path) -> None:
    async with running_bridge(tmp_path, provisioned=False) as bridge:
        plan = plan_of(bridge, "aws")
        plan["streams"][0]["max_bytes"] = 1 << 60
        with pytest.raises(ConfigurationError, match="no room"):
            await apply(bridge, "aws", plan)


@pytest.mark.parametrize("first", ["aws", "azure"])
async def test_two_provisioners_may_come_in_either_order(tmp_path: Path, first: str) -> None:
    """Each cloud copies results from the other, so whoever comes first copies from what is not there yet."""
    second = {"aws": "azure", "azure": "aws"}[first]
    worker, queue, producer = {"azure": ("bunny", "thumbs", "alpha"), "aws": ("relay", "lookup", "gamma")}[second]
    key = JobKey(queue, producer, SESSION, 1)
    came = asyncio.Event()

    async def home(message: Message) -> None:
        came.set()

    async with running_bridge(tmp_path, provisioned=False) as bridge:
        await bridge.provision(first)
        with pytest.raises(TransportError, match="results flowing home"):
            await bridge.until_flowing(3)
        await bridge.provision(second)
        await bridge.until_flowing()
        async with await connected(bridge, worker) as transport, await connected(bridge, producer) as reader:
            await reader.subscribe(done(key), home)
            await transport.publish(results_stream(queue), result_subject(key), b"sealed")
            await asyncio.wait_for(came.wait(), 20)


def test_what_is_no_plan_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    for text in ("", "[]", '{"version": true, "streams": 1}', '{"version": 1, "streams": {}}'):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="bunny render"):
            load_plan(path)
    path.write_text('{"version": 2}')
    with pytest.raises(ConfigurationError, match=r"format version 2, .* reads version 1"):
        load_plan(path)
