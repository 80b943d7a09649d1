"""What the link's own keys try at the hub. No I/O.

A leaf's messages are delivered where its permissions let them through. So there are fewer of them than a user tries,
and none that a stream, a call or a listener would act on: those that are allowed are answered harmlessly, or left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bridge import subjects
from bridge.explain import Ground
from bridge.policy import IdentityEntry, Role
from bridge.prove.acts import Expectation, assets, concrete, expect, of_queue
from bridge.prove.calls import STRANGER, calls
from bridge.prove.harmless import answered
from bridge.subjects import api, inbox_prefix

_UNSAID: Final = (
    *("$NRG.V.0", "$JSC.CI.0", "$SYS.REQ.SERVER.PING.VARZ", "$SYS.REQ.SERVER.0.RELOAD", "$SYS.REQ.ACCOUNT.SYS.CONNZ"),
    *("$SYS.ACCOUNT.RELAY.CONNECT", "$JS.EVENT.ADVISORY.API", "_INBOX.0", "x"),
)
_UNTRIED: Final = ("META.", "SERVER.", "ACCOUNT.", "STREAM.CANCEL_MOVE.")
"""Calls that no stream's name narrows down, or whose body is not looked at: not tried where they could get through."""


def over_the_link(ground: Ground, me: IdentityEntry) -> list[Expectation]:
    """Everything that the link tries once it is let in.

    Args:
        ground: The policy, and what follows from it.
        me: The link's identity.
    """
    said = [expect(ground, me, "publish", subject) for subject in dict.fromkeys(_said(ground, me))]
    heard = [expect(ground, me, "subscribe", subject) for subject in dict.fromkeys(_heard(ground))]
    return [each for each in said if not each.allowed or answered(each.act.subject) is not None] + [
        each for each in heard if not each.allowed
    ]


def _said(ground: Ground, me: IdentityEntry) -> Iterator[str]:
    policy, hub = ground.policy, ground.policy.hub.name
    yield from (concrete(granted, policy, hub) for granted in ground.link.publish)
    planned = assets(policy, hub)
    for prefix in (api(None), api(hub)):
        yield from (f"{prefix}.STREAM.{call}.{stream}" for stream, _ in planned for call in ("DELETE", "PURGE"))
        # Every call, on one stream that has a consumer.
        some = next(((stream, consumers[:1]) for stream, consumers in planned if consumers), (STRANGER, []))
        for call in calls(prefix, [some]):
            if not call.removeprefix(f"{prefix}.").startswith(_UNTRIED):
                yield call
    for queue in policy.queues.values():
        yield from of_queue(queue, queue.producers[0])
    yield from (f"{inbox_prefix(each.name)}.0" for each in policy.identities.values() if each.role is Role.SERVICE)
    yield from _UNSAID


def _heard(ground: Ground) -> Iterator[str]:
    """Subjects without wildcards: a hub takes any wider interest of a leaf, and sends no more than its list."""
    policy = ground.policy
    for queue in policy.queues.values():
        yield from of_queue(queue, queue.producers[0])
        yield subjects.next_message(subjects.jobs_stream(queue.name), f"{queue.workers}-normal", queue.home)
    yield from (f"{inbox_prefix(each.name)}.0" for each in policy.identities.values() if each.role is Role.SERVICE)
    yield from _UNSAID
