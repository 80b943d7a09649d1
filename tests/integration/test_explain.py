"""What ``bunny explain`` says is what real servers do, for every identity and everything that could be tried."""

from __future__ import annotations

from pathlib import Path

import nats.errors
import pytest

from bridge.devserver import Bridge, running
from bridge.explain import Explanation, Ground, Verb, Verdict, explain
from bridge.explain.walls import ACCOUNT, EXPORT, USER
from bridge.policy import IdentityEntry
from bridge.render.permissions import private
from tests.integration.forbidden import Act, forbidden
from tests.integration.plain import plain, status
from tests.integration.test_permissions import USERS, every_role

SAMPLE = 9
"""One in so many of what is forbidden: `test_permissions` tries all of it."""


def acts(ground: Ground, me: IdentityEntry) -> list[Act]:
    """Much that it must not do, everything that it may, and what lies between."""
    given = [*ground.grants[me.name], *(grant for _, grant in private(ground.policy, me))]
    may = [Act(each.kind, each.subject) for each in given]
    some = [Act(act.verb, act.subject.replace("*", "x").replace(">", "x")) for act in may]
    wider = [Act(act.verb, f"{act.subject.rpartition('.')[0]}.>") for act in may if act.verb == "subscribe"]
    own = [Act("publish", act.subject.replace("$JS.API.", f"$JS.{me.cloud}.API.")) for act in some]
    return list(dict.fromkeys([*forbidden(ground.policy, me)[::SAMPLE], *may, *some, *wider, *own]))


async def differs(bridge: Bridge, ground: Ground, me: IdentityEntry) -> list[tuple[Act, Explanation]]:
    """Acts that the servers take and that were said to be refused, or the other way round."""
    tried = acts(ground, me)
    async with plain(bridge, me.name) as client:
        for act in tried:
            if act.verb == "publish":
                await client.client.publish(act.subject, b"{", reply=client.client.new_inbox())
            else:
                await client.client.subscribe(act.subject)
        await client.settled()
        refused = set(client.refused)
    told = [(act, explain(ground, me, Verb(act.verb), act.subject)) for act in tried]
    # A pattern that is allowed in part may be taken: a server holds its wildcards for tokens like any others.
    unclear = [each for _, each in told if each.taken is not (each.servers is Verdict.ALLOWED)]
    assert {each.servers for each in unclear} <= {Verdict.PARTLY}
    return [(act, each) for act, each in told if each.taken is ((act.verb, each.checked.lower()) in refused)]


async def test_the_servers_refuse_what_is_said_to_be_refused_and_nothing_else(tmp_path: Path) -> None:
    policy = every_role(tmp_path)
    ground = Ground(policy)
    async with running(policy, tmp_path / "b") as bridge:
        for name in USERS:
            assert await differs(bridge, ground, policy.identities[name]) == []


async def test_whoever_gets_past_the_first_wall_is_stopped_by_the_next(tmp_path: Path) -> None:
    """With the permission of a user widened by hand, its account still imports nothing: nobody answers."""
    policy = every_role(tmp_path)
    pull = "$JS.aws.API.CONSUMER.MSG.NEXT.JOBS_thumbs.bunny-normal"
    told = {name: explain(Ground(policy), policy.identities[name], Verb.REQUEST, pull) for name in ("bunny", "gamma")}
    assert [wall.name for wall in told["gamma"].walls if wall.verdict is Verdict.REFUSED] == [USER, ACCOUNT, EXPORT]
    assert told["bunny"].verdict is Verdict.ALLOWED
    async with running(policy, tmp_path / "b") as bridge:
        accounts = bridge.folder.rendered / "azure" / "accounts.conf"
        before, me, after = accounts.read_text().partition("# gamma: service")
        accounts.write_text(before + me + after.replace("allow: [", f'allow: ["{pull}", ', 1))
        await bridge.leaf.reload()
        async with plain(bridge, "gamma") as gamma, plain(bridge, "bunny") as bunny:
            with pytest.raises(nats.errors.NoRespondersError):
                await gamma.ask(pull, b"{}")
            await gamma.settled()
            assert not gamma.refused
            assert status(await bunny.ask(pull, {"batch": 1, "no_wait": True})) == "404"
