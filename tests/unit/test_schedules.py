"""Recurring jobs: which ticks an agent submits, whatever its clock does and whatever it missed. No server, no sleep."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from bridge.agent.samples import samples
from bridge.agent.schedules import GRACE_MS, MOST_MISSED, Scheduler, look_back_ms
from bridge.agent.state import State
from bridge.bundle import build_payload
from bridge.errors import KeyConflict, PublishTimeout, QueueFull
from bridge.identity import Connection, ScheduleSettings
from bridge.policy import IdentityEntry, Missed, Policy, Role, Schedule
from bridge.render.connections import connection_yaml
from bridge.render.permissions import permissions
from bridge.strict_json import parse_object
from bridge.ticks import as_text
from tests.world import POLICY, World

MINUTE, HOUR = 60_000, 3_600_000
NOON = int(datetime.fromisoformat("2026-03-02T12:00:00Z").timestamp() * 1000)
HOURLY = Schedule("report", "agent-aws", "thumbs", "probe", deadline_ms=HOUR, cron="0 * * * *", args='{"deep":[1.5]}')


def policy_of(*schedules: Schedule) -> Policy:
    agents = {"agent-aws": IdentityEntry("agent-aws", "aws", Role.AGENT)}
    return replace(
        POLICY, identities={**POLICY.identities, **agents}, schedules={each.name: each for each in schedules}
    )


class Hub:
    """What many agents submit to: a tick is one job, and a submit may fail."""

    def __init__(self) -> None:
        self.jobs: dict[str, str] = {}
        self.asked: list[str] = []
        self.failing: list[Exception] = []

    async def submit(self, schedule: ScheduleSettings, key: str) -> None:
        self.asked.append(key)
        if self.failing:
            raise self.failing.pop()
        if self.jobs.setdefault(key, schedule.args) != schedule.args:
            raise KeyConflict("used before")

    @property
    def ticks(self) -> list[str]:
        """Hours and minutes of what was submitted, in order."""
        return [key.rpartition("T")[2].removesuffix("Z").removesuffix(":00") for key in self.jobs]


class Agent:
    """An agent with a clock of its own."""

    def __init__(self, hub: Hub, *schedules: Schedule, now: int = NOON) -> None:
        policy = policy_of(*schedules)
        text = connection_yaml(policy, policy.identities["agent-aws"])
        self.connection = Connection.model_validate(json.loads(text))
        self.now, self.hub = now, hub
        self.scheduler = Scheduler(self.connection, lambda: self.now)

    async def turn(self, forward: int = 0, name: str = "report") -> None:
        self.now += forward
        await self.scheduler.turn(name, self.hub.submit)

    def progress(self, name: str = "report") -> Any:  # noqa: ANN401  read by tests alone
        return self.scheduler.progress[name]


def hourly(missed: Missed, **more: Any) -> Schedule:  # noqa: ANN401  fields of Schedule
    return replace(HOURLY, missed=missed, **more)


async def test_a_tick_is_one_job_whatever_agents_run() -> None:
    hub = Hub()
    one, two = Agent(hub, hourly("skip")), Agent(hub, hourly("skip"), now=NOON + 3_000)
    for _ in range(3):
        await one.turn()
        await two.turn()
        one.now += HOUR
        two.now += HOUR
    assert hub.ticks == ["12:00", "13:00", "14:00"]
    assert hub.asked.count("schedule report 2026-03-02T13:00:00Z") == 2, "a replica cannot know, and asks"
    assert set(hub.jobs.values()) == {'{"deep":[1.5]}'}


async def test_a_tick_is_submitted_once_by_an_agent_that_lives() -> None:
    hub = Hub()
    agent = Agent(hub, hourly("all"), now=NOON - 1)
    await agent.turn()
    before = len(hub.asked)
    for _ in range(5):
        await agent.turn(1)
    assert len(hub.asked) == before + 1
    assert as_text(agent.progress().next) == "2026-03-02T13:00:00Z"


@pytest.mark.parametrize(("missed", "found"), [("skip", []), ("last", ["12:00"]), ("all", ["10:00", "11:00", "12:00"])])
async def test_what_an_agent_that_was_down_makes_up_for(missed: Missed, found: list[str]) -> None:
    hub = Hub()
    await Agent(hub, hourly(missed), now=NOON - 3 * HOUR).turn()
    hub.jobs.clear()
    hub.jobs["schedule report 2026-03-02T09:00:00Z"] = HOURLY.args  # was done
    done = len(hub.ticks)
    since = NOON - 150 * MINUTE
    await Agent(hub, hourly(missed, since_ms=since), now=NOON + 20 * MINUTE).turn()
    assert hub.ticks[done:] == found


@pytest.mark.parametrize("missed", ["skip", "last", "all"])
async def test_a_tick_a_little_late_is_not_missed(missed: Missed) -> None:
    hub = Hub()
    await Agent(hub, hourly(missed), now=NOON + GRACE_MS - 1).turn()
    assert hub.ticks[-1] == "12:00"


@pytest.mark.parametrize(
    ("missed", "found", "given_up"), [("skip", [], 3), ("last", ["15:00"], 2), ("all", ["13:00", "14:00", "15:00"], 0)]
)
async def test_what_a_stopped_broker_keeps_back(missed: Missed, found: list[str], given_up: int) -> None:
    hub = Hub()
    agent = Agent(hub, hourly(missed))
    await agent.turn()
    hub.jobs.clear()
    for forward in (HOUR, HOUR, HOUR):
        hub.failing = [PublishTimeout("not known to be stored")]
        with pytest.raises(PublishTimeout):
            await agent.turn(forward)
        assert agent.progress().next <= agent.now, "what cannot be submitted is seen to be late"
    await agent.turn(5 * MINUTE)
    assert hub.ticks == found
    assert agent.progress().missed == given_up
    assert as_text(agent.progress().next) == "2026-03-02T16:00:00Z"


async def test_a_failure_amid_many_goes_on_where_it_failed() -> None:
    hub = Hub()
    agent = Agent(hub, hourly("all"), now=NOON)
    await agent.turn()
    hub.jobs.clear()
    hub.asked.clear()
    original, calls = hub.submit, 0

    async def second_fails(schedule: ScheduleSettings, key: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise QueueFull("full")
        await original(schedule, key)

    agent.now += 3 * HOUR
    with pytest.raises(QueueFull):
        await agent.scheduler.turn("report", second_fails)
    await agent.turn()
    assert hub.ticks == [key[-9:-4] for key in hub.asked] == ["13:00", "14:00", "15:00"]


async def test_all_is_the_newest_hundred_and_never_more_than_the_fence_remembers() -> None:
    often = hourly("all", cron="", every_ms=1_000)
    hub = Hub()
    await Agent(hub, often).turn()
    timely = GRACE_MS // 1_000
    assert len(hub.jobs) == MOST_MISSED + timely
    assert hub.asked[-1] == "schedule report 2026-03-02T12:00:00Z"
    hub = Hub()
    agent = Agent(hub, hourly("all"), now=NOON + 10 * MINUTE)
    settings = agent.connection.schedules["report"]
    kept = look_back_ms(settings, agent.connection.queues["thumbs"].result_ttl_ms)
    await agent.turn()
    # 24 h of results, less an hour in which the job may start and 5 min of a clock that is ahead.
    assert kept == 22 * HOUR + 55 * MINUTE
    assert hub.asked[0] == "schedule report 2026-03-01T14:00:00Z"
    assert len(hub.asked) == 23


async def test_a_clock_that_is_put_back_runs_nothing_twice_and_leaves_nothing_out() -> None:
    hub = Hub()
    agent = Agent(hub, hourly("all"), now=NOON)
    await agent.turn()
    await agent.turn(2 * HOUR)  # too early, by mistake
    assert hub.ticks[-2:] == ["13:00", "14:00"]
    before = list(hub.jobs)
    await agent.turn(-2 * HOUR)
    for _ in range(3):
        await agent.turn(HOUR)
    assert [key for key in hub.jobs if key not in before] == ["schedule report 2026-03-02T15:00:00Z"]


async def test_another_definition_of_a_tick_that_stands_is_no_second_job() -> None:
    hub = Hub()
    await Agent(hub, hourly("skip")).turn()
    changed = Agent(hub, hourly("skip", args='"other"'))
    await changed.turn()
    assert (changed.progress().conflicts, changed.progress().submitted, len(hub.jobs)) == (1, 0, 1)
    await changed.turn(HOUR)
    assert hub.jobs["schedule report 2026-03-02T13:00:00Z"] == '"other"'


async def test_nothing_before_since() -> None:
    hub = Hub()
    agent = Agent(hub, hourly("all", since_ms=NOON + HOUR))
    await agent.turn()
    assert not hub.asked
    assert agent.progress().next == NOON + HOUR, "the first is itself among them"
    await agent.turn(HOUR)
    assert hub.ticks == ["13:00"]


async def test_it_waits_for_ticks_and_tries_again() -> None:
    hub = Hub()
    agent = Agent(hub, hourly("skip"), now=NOON - HOUR)
    pauses: list[float] = []

    class Enough(Exception):
        pass

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        agent.now += round(seconds * 1_000)
        if agent.now > NOON + 90 * MINUTE:
            raise Enough

    scheduler = Scheduler(agent.connection, lambda: agent.now, pause)
    hub.failing = [QueueFull("full"), QueueFull("full")]
    with pytest.raises(ExceptionGroup):
        await scheduler.run(hub.submit)
    assert hub.ticks == ["11:00", "12:00", "13:00"]
    assert scheduler.progress["report"].failures == {"QueueFull": 2}
    assert pauses[:2] == [1, 2], "not at once, and not late either"
    assert max(pauses) <= 30, "a clock that is changed meanwhile is noticed"


async def test_metrics_tell_the_ticks() -> None:
    hub = Hub()
    agent = Agent(hub, hourly("skip"))
    state = State(agent.connection, lambda: 0.0, schedules=agent.scheduler.progress)
    await agent.turn()
    shown = {(metric.name, labels): value for metric, labels, value in samples(state)}
    labels = ("report", "aws")
    assert shown["bunny_schedule_last_tick_timestamp_seconds", labels] == NOON / 1000
    assert shown["bunny_schedule_next_tick_timestamp_seconds", labels] == (NOON + HOUR) / 1000
    assert shown["bunny_schedule_ticks_total", (*labels, "submitted")] == 1


# --- what follows from the policy --------------------------------------------------------------------


def test_the_agent_may_submit_that_kind_and_nothing_else() -> None:
    policy, world = policy_of(HOURLY), World()
    keys = {name: identity.public() for name, identity in world.identities.items()}
    agent = keys["other"]
    payload = parse_object(build_payload(policy, {**keys, "agent-aws": replace(agent, name="agent-aws")}, 1, NOON))
    grants = {(grant["from"], tuple(grant["kinds"])) for grant in payload["grants"]}
    assert ("agent-aws", ("probe",)) in grants
    allowed = permissions(policy, policy.identities["agent-aws"])
    mine = {subject for subject in (*allowed.publish, *allowed.subscribe) if "thumbs.normal.agent-aws" in subject}
    assert mine == {
        "jobs.thumbs.normal.agent-aws.*.0",
        "$JS.API.DIRECT.GET.JOBS_thumbs.jobs.thumbs.normal.agent-aws.*.0",
    }
    assert "done.thumbs.agent-aws.*.0.*" in allowed.subscribe


def test_a_connection_without_schedules_is_as_it_was() -> None:
    policy = policy_of(HOURLY)
    assert "schedules" not in json.loads(connection_yaml(policy, policy.identities["relay"]))
    assert policy_of().digest == replace(POLICY, identities=policy_of().identities).digest
    assert policy.digest != policy_of().digest
