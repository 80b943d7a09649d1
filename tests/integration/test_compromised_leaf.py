"""A compromised leaf can do nothing outside its list, whatever it claims to be."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from bridge.devserver import running
from tests.integration.fake_leaf import fake_leaf, link_tls
from tests.integration.plain import plain, stored
from tests.support import write_policy

SESSION = "feedfacefeedfacefeedface"
TAIL = f"{SESSION}.1"
STREAMS = ("JOBS_thumbs", "RESULTS_thumbs", "RESULTS_lookup", "STARTS_lookup", "DEAD_lookup", "REFUSED_lookup")
PULL = "$JS.aws.API.CONSUMER.MSG.NEXT.JOBS_thumbs.bunny-normal"

FORBIDDEN = [
    *(
        f"{api}.STREAM.{call}.{s}"
        for api in ("$JS.aws.API", "$JS.API")
        for call in ("DELETE", "PURGE")
        for s in STREAMS
    ),
    *(f"$JS.aws.API.STREAM.{call}.JOBS_thumbs" for call in ("INFO", "UPDATE", "CREATE", "MSG.GET", "MSG.DELETE")),
    *(f"$JS.aws.API.{call}" for call in ("INFO", "STREAM.NAMES", "STREAM.LIST", "STREAM.CREATE.MINE")),
    *(f"$JS.aws.API.CONSUMER.{call}" for call in ("CREATE.JOBS_thumbs", "CREATE.JOBS_thumbs.mine", "LIST.JOBS_thumbs")),
    "$JS.aws.API.CONSUMER.CREATE.JOBS_thumbs.bunny-normal",
    "$JS.aws.API.CONSUMER.DELETE.JOBS_thumbs.bunny-normal",
    "$JS.aws.API.CONSUMER.MSG.NEXT.JOBS_thumbs.mine",
    "$JS.aws.API.CONSUMER.MSG.NEXT.RESULTS_thumbs.bunny-normal",
    "$JS.API.CONSUMER.MSG.NEXT.JOBS_thumbs.bunny-normal",
    f"$JS.aws.API.DIRECT.GET.JOBS_thumbs.jobs.thumbs.normal.alpha.{TAIL}",
    "$JS.aws.API.DIRECT.GET.RESULTS_lookup",
    "$JS.aws.API.CONSUMER.RESET.JOBS_thumbs.bunny-normal",
    "$JS.azure.API.CONSUMER.MSG.NEXT.JOBS_lookup.relay-normal",
    "$JS.FC.RESULTS_thumbs.home.x",
    f"jobs.thumbs.normal.alpha.{TAIL}",
    f"results.lookup.gamma.{TAIL}.0",
    f"results.thumbs.alpha.{TAIL}.0",
    f"done.thumbs.alpha.{TAIL}.0",
    f"starts.lookup.gamma.{TAIL}.0",
    f"dead.lookup.gamma.{TAIL}.0",
    f"refused.lookup.{SESSION}",
    "home.results.lookup",
    "home.results.other",
    "_INBOX_alpha.guess",
    "_GR_.guess.guess",
    "$SYS.REQ.SERVER.PING",
    "$SYS.REQ.ACCOUNT.BRIDGE.CONNZ",
    "$SYS.ACCOUNT.RELAY.CONNECT",
    "x",
]
"""What it may not publish towards the hub."""

UNHEARD = [
    f"jobs.thumbs.normal.alpha.{TAIL}",
    f"results.lookup.gamma.{TAIL}.0",
    f"done.thumbs.alpha.{TAIL}.0",
    f"dead.lookup.gamma.{TAIL}.0",
    f"parts.thumbs.alpha.{TAIL}.x.0",
    "home.results.thumbs",
    "_INBOX_alpha.guess",
    "$JS.API.INFO",
    "$JS.aws.API.INFO",
    PULL,
    "$JS.EVENT.ADVISORY.API",
    "$SYS.ACCOUNT.RELAY.CONNECT",
    "x",
]
"""What it may not hear by name."""

EXEMPT = [
    "$JS.ACK.JOBS_thumbs.mine.1.1.1.1.0",
    "$JS.ACK.RESULTS_lookup.home.1.1.1.1.1.0",
    "$JS.ACK.aws.hash.JOBS_thumbs.mine.1.1.1.1.1.0",
    "$JS.ACK.aws.hash.RESULTS_lookup.home.1.1.1.1.1.0",
    "_R_.guess",
    "$MQTT.msgs.x",
]
"""What nats-server lets any leaf publish, whatever its permissions: no import leads on from the link's account."""

CLAIMS: list[dict[str, Any]] = [
    {},
    {"is_hub": True},
    {"remote_account": "RELAY", "domain": "aws", "jetstream": True},
    {"remote_account": "SYS", "cluster": "mine", "is_hub": True, "jetstream": True},
]


@pytest.mark.parametrize("act", ["publish", "subscribe"])
async def test_h36_each_act_is_refused_by_name_and_ends_the_link(act: str, tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        before = await stored(bridge)
        for subject in FORBIDDEN if act == "publish" else UNHEARD:
            async with fake_leaf(bridge) as leaf:
                if act == "publish":
                    leaf.publish(subject, b"{}", reply="_R_.mine")
                else:
                    leaf.subscribe(subject)
                await leaf.settled()
                word = "Publish" if act == "publish" else "Subscription"
                # The hub's own domain is mapped away before it answers.
                named = subject.replace("$JS.aws.API.", "$JS.API.") if act == "publish" else subject
                assert leaf.errors == [f"'Permissions Violation for {word} to \"{named}\"'"]
                assert leaf.closed
        assert await stored(bridge) == before


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda c: ",".join(c) or "nothing")
async def test_whatever_it_claims_nothing_changes_in_the_hub(claims: dict[str, Any], tmp_path: Path) -> None:
    """Claiming to be the hub's hub turns refusals into silence, so what counts is what the hub then holds."""
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge, plain(bridge, "alpha") as alpha:
        heard = [await alpha.client.subscribe(subject) for subject in ("_INBOX_alpha.>", "done.thumbs.alpha.>")]
        await alpha.settled()
        before = await stored(bridge)
        for subject in (*FORBIDDEN, *EXEMPT):
            async with fake_leaf(bridge, claims) as leaf:
                leaf.publish(subject, b"{}", reply="_R_.mine")
                leaf.publish(subject, reply="_R_.mine")
                await leaf.settled()
                assert leaf.messages == []
        assert await stored(bridge) == before
        await alpha.settled()
        assert [subscription.pending_msgs for subscription in heard] == [0, 0]


async def test_what_is_exempt_from_permissions_leads_nowhere(tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        async with plain(bridge, "relay") as relay:
            assert b"error" not in (await relay.ask(f"results.lookup.gamma.{TAIL}.0", b"result")).data
        await bridge.until_flowing()
        before = await stored(bridge)
        async with fake_leaf(bridge) as leaf:
            for subject in EXEMPT:
                leaf.publish(subject, b"+TERM")
            await leaf.settled()
            assert not leaf.errors
        assert await stored(bridge) == before


async def test_a_reply_subject_of_its_choice_reaches_nothing(tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        before = await stored(bridge)
        async with fake_leaf(bridge) as leaf:
            for reply in FORBIDDEN:
                # With no job to give, the answer is empty: in the right account, a request to delete.
                leaf.publish(PULL, json.dumps({"batch": 1, "no_wait": True}).encode(), reply=reply)
            await leaf.settled()
        assert await stored(bridge) == before


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda c: ",".join(c) or "nothing")
async def test_with_interest_in_everything_it_hears_its_list_alone(claims: dict[str, Any], tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        await bridge.leaf.stop()
        async with (
            fake_leaf(bridge, claims) as leaf,
            plain(bridge, "alpha") as alpha,
            plain(bridge, "relay") as relay,
        ):
            for subject in (">", "*.>", "jobs.>", "$JS.>", "$SYS.>", "_INBOX_alpha.>", "done.>"):
                leaf.subscribe(subject)
            await leaf.settled()
            await alpha.ask(f"jobs.thumbs.normal.alpha.{TAIL}", b"for the real leaf")
            await relay.ask(f"results.lookup.gamma.{TAIL}.0", b"for the other cloud")
            if not claims.get("is_hub"):
                # What does cross: results on their way home, and they are its own cloud's.
                assert await leaf.heard("home.results.lookup") == b"for the other cloud"
            await leaf.settled()
            assert {subject for subject, _ in leaf.messages} <= {"home.results.lookup"}


async def test_what_is_on_its_list_works(tmp_path: Path) -> None:
    """The control: the same connection pulls and settles the jobs that its cloud works on."""
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        await bridge.leaf.stop()
        async with fake_leaf(bridge) as leaf, plain(bridge, "alpha") as alpha:
            await alpha.ask(f"jobs.thumbs.normal.alpha.{TAIL}", b"job")
            leaf.subscribe("_R_.mine")
            leaf.publish(PULL, json.dumps({"batch": 1, "expires": 5_000_000_000}).encode(), reply="_R_.mine")
            assert await leaf.heard("_R_.mine") == b"job"
            assert not leaf.errors


async def test_only_the_link_s_key_and_certificate_open_the_port(tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        async with fake_leaf(bridge, identity="alpha") as leaf:
            assert leaf.errors == ["'Authorization Violation'"]
            assert leaf.closed
        bare = ssl.create_default_context(cafile=str(bridge.folder.pki / "aws" / "ca.pem"))
        for context in (bare, link_tls(bridge, bridge.folder.pki / "aws" / "clients.pem")):
            with pytest.raises((ssl.SSLError, ConnectionError, json.JSONDecodeError)):
                async with fake_leaf(bridge, tls=context):
                    pass


async def test_the_link_s_key_is_no_user(tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / "b") as bridge:
        for cloud in ("aws", "azure"):
            place, link = bridge.identity("alpha" if cloud == "aws" else "gamma"), bridge.identity("link-azure")
            for name in ("connection.yaml", "ca.pem"):
                (link / name).write_bytes((place / name).read_bytes())
            with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
                async with plain(bridge, "link-azure"):
                    pass
