"""What each role may and may not do, tried with real identities and plain nats-py over both real servers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import nats
import pytest

from bridge.devserver import Bridge, Server, running
from bridge.devserver.ports import free_port
from bridge.policy import Policy, Role
from bridge.render.permissions import ACCOUNT_REQUESTS, SERVER_REQUESTS
from tests.integration.forbidden import SESSION, forbidden, refusals
from tests.integration.plain import Plain, plain, status, stored
from tests.support import POLICY, write_policy

EVERY_ROLE = (
    POLICY.replace(
        "  link-azure:",
        "  boss-aws: {cloud: aws, role: operator}\n  agent-azure: {cloud: azure, role: agent}\n"
        "  sys-aws: {cloud: aws, role: system}\n  sys2-aws: {cloud: aws, role: system}\n"
        "  sys-azure: {cloud: azure, role: system}\n  link-azure:",
    )
    .replace("    kinds: [find]\n", "    kinds: [find]\n    concurrency: 2\n    concurrency_per_key: 1\n")
    .replace("[alpha, beta]\n", "[alpha, beta]\n    inbox: [alpha]\n")
    .replace("    kinds:", "    max_payload: 1MiB\n    receipts: on\n    kinds:")
)
EVERY_ROLE += "schedules: {daily: {agent: agent-azure, queue: lookup, kind: find, every: 1d}}\n"
SERVICES = ("alpha", "beta", "relay", "bunny", "gamma")
SYSTEM = ("sys-aws", "sys2-aws", "sys-azure")
USERS = (*SERVICES, *SYSTEM, "ops-aws", "ops-azure", "prov-aws", "prov-azure", "boss-aws", "agent-azure")
"""All but the link, which is no user (`test_compromised_leaf`)."""

QUEUES = pytest.mark.parametrize(
    ("queue", "producer", "worker", "home"),
    [("thumbs", "alpha", "bunny", "aws"), ("lookup", "gamma", "relay", "azure")],
)


def every_role(folder: Path) -> Policy:
    return write_policy(folder, EVERY_ROLE)


# --- refused ---------------------------------------------------------------------------------------


def test_every_user_of_the_policy_is_tried(tmp_path: Path) -> None:
    policy = every_role(tmp_path)
    assert {name for name, entry in policy.identities.items() if entry.role is not Role.LINK} == set(USERS)
    assert {entry.role for entry in policy.identities.values()} == set(Role)


@pytest.mark.parametrize("name", USERS)
async def test_h36_it_is_refused_everything_else(name: str, tmp_path: Path) -> None:
    policy = every_role(tmp_path)
    acts = forbidden(policy, policy.identities[name])
    assert min(sum(act.verb == verb for act in acts) for verb in ("publish", "subscribe")) >= 30
    async with running(policy, tmp_path / "b") as bridge:
        before = await stored(bridge)
        async with plain(bridge, name) as me:
            inbox = me.client.new_inbox()
            for act in acts:
                if act.verb == "publish":
                    await me.client.publish(act.subject, b"{}", reply=inbox)
                else:
                    await me.client.subscribe(act.subject)
            await me.settled()
        mine = policy.identities[name]
        assert refusals(me.refused, mine) == refusals(Counter(acts), mine)
        assert await stored(bridge) == before


# --- a reply subject is not checked by the server ------------------------------------------------------

DESTROYED = ("JOBS_thumbs", "RESULTS_thumbs", "RESULTS_lookup", "STARTS_lookup", "DEAD_lookup", "REFUSED_lookup")


def replies() -> list[str]:
    """Subjects that whoever names them as the reply of a permitted request would like the server to answer on."""
    tail = f"{SESSION}.1.0"
    return [
        *(f"$JS.API.STREAM.{call}.{stream}" for call in ("DELETE", "PURGE") for stream in DESTROYED),
        *(f"$JS.aws.API.STREAM.{call}.{stream}" for call in ("DELETE", "PURGE") for stream in DESTROYED),
        "$JS.API.CONSUMER.DELETE.JOBS_thumbs.bunny-normal",
        "$JS.API.CONSUMER.DELETE.RESULTS_lookup.home",
        "$JS.API.STREAM.CREATE.MINE",
        f"jobs.thumbs.normal.beta.{SESSION}.1",
        f"results.lookup.gamma.{tail}",
        f"starts.lookup.gamma.{tail}",
        f"dead.lookup.gamma.{tail}",
        f"refused.lookup.{SESSION}",
        f"done.thumbs.beta.{tail}",
        "_INBOX_beta.guess",
        "home.results.lookup",
    ]


REQUESTS = {
    "alpha": [f"$JS.API.DIRECT.GET.JOBS_thumbs.jobs.thumbs.normal.alpha.{SESSION}.{n}" for n in (1, 2)],
    "ops-aws": [f"$JS.API.DIRECT.GET.JOBS_thumbs.jobs.thumbs.normal.alpha.{SESSION}.{n}" for n in (1, 2)],
    "prov-aws": ["$JS.API.INFO", "$JS.API.STREAM.INFO.JOBS_thumbs"],
}
"""Permitted requests; the first and second of alpha's are answered with `{}` and with nothing, which both delete."""


@pytest.mark.parametrize("name", REQUESTS)
async def test_h36_naming_another_s_subject_as_reply_reaches_nothing(name: str, tmp_path: Path) -> None:
    async with running(every_role(tmp_path), tmp_path / "b") as bridge, plain(bridge, "beta") as beta:
        heard = [await beta.client.subscribe(subject) for subject in ("_INBOX_beta.>", "done.thumbs.beta.>")]
        async with plain(bridge, "alpha") as alpha:
            await alpha.ask(f"jobs.thumbs.normal.alpha.{SESSION}.1", b"{}")
        before = await stored(bridge)
        async with plain(bridge, name) as me:
            for request in REQUESTS[name]:
                for reply in replies():
                    await me.client.publish(request, b"", reply=reply)
                await me.ask(request)
            assert not me.refused
        assert await stored(bridge) == before
        await beta.settled()
        assert [subscription.pending_msgs for subscription in heard] == [0, 0]


SHARED = """
listen: "127.0.0.1:{clients}"
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: "{store}" }}
accounts {{ ALL {{ jetstream: enabled, users: [
  {{ user: owner, password: owner }}
  {{ user: reader, password: reader, permissions: {{
    publish: {{ allow: ["$JS.API.DIRECT.GET.SECOND.second"] }}, subscribe: {{ allow: ["_INBOX.>"] }} }} }}
] }} }}
"""


async def test_in_the_account_of_the_streams_a_reply_subject_deletes(tmp_path: Path) -> None:
    """Why every identity has an account of its own. Should this fail, the servers have closed the hole themselves."""
    taken: set[int] = set()
    clients, monitor = free_port(taken), free_port(taken)
    config = tmp_path / "shared.conf"
    config.write_text(SHARED.format(clients=clients, monitor=monitor, store=tmp_path / "store"))
    server = Server("shared", config, {}, monitor_port=monitor, log=tmp_path / "log")
    await server.start()
    try:
        owner, reader = [
            await nats.connect(f"nats://127.0.0.1:{clients}", user=user, password=user) for user in ("owner", "reader")
        ]
        for name in ("FIRST", "SECOND"):
            config_json = json.dumps({"name": name, "subjects": [name.lower()], "allow_direct": True}).encode()
            await owner.request(f"$JS.API.STREAM.CREATE.{name}", config_json)
        # Nothing is stored on it, so the answer is empty, as a request to delete is.
        await reader.publish("$JS.API.DIRECT.GET.SECOND.second", b"", reply="$JS.API.STREAM.DELETE.FIRST")
        async with asyncio.timeout(10):
            while "FIRST" in json.loads((await owner.request("$JS.API.STREAM.NAMES")).data)["streams"]:
                await reader.flush()
        await reader.close()
        await owner.close()
    finally:
        await server.stop()


# --- allowed ---------------------------------------------------------------------------------------


@QUEUES
async def test_a_job_goes_there_and_its_result_comes_home(
    queue: str, producer: str, worker: str, home: str, tmp_path: Path
) -> None:
    subject, tail = f"jobs.{queue}.normal.{producer}.{SESSION}.1", f"{queue}.{producer}.{SESSION}.1.0"
    async with (
        running(every_role(tmp_path), tmp_path / "b") as bridge,
        plain(bridge, producer) as there,
        plain(bridge, worker) as here,
    ):
        done = await there.client.subscribe(f"done.{queue}.{producer}.{SESSION}.>")
        await there.settled()
        assert b"error" not in (await there.ask(subject, b"job")).data
        assert b"10077" in (await there.ask(subject, b"again")).data
        job = await here.pull(f"JOBS_{queue}", f"{worker}-normal", home)
        assert (job.subject, job.data) == (subject, b"job")
        for kind in ("starts", "dead", "results"):
            assert b"error" not in (await here.ask(f"{kind}.{tail}", kind.encode())).data
        assert b"error" not in (await here.ask(f"refused.{queue}.{SESSION}", b"refused")).data
        assert b"10077" in (await here.ask(f"results.{tail}", b"second")).data
        # The ack is confirmed across the link before the producer asks whether its job is still there.
        await here.ask(job.reply, b"+ACK")
        assert ((await done.next_msg(timeout=10)).subject) == f"done.{tail}"
        get = "$JS.API.DIRECT.GET"
        for who in (there, here):
            assert (await who.ask(f"{get}.RESULTS_{queue}.results.{tail}")).data == b"results"
        assert (await here.ask(f"{get}.STARTS_{queue}.starts.{tail}")).data == b"starts"
        assert status(await there.ask(f"{get}.JOBS_{queue}.{subject}")) == "404"
        assert not there.refused | here.refused


async def test_a_producer_reads_and_acks_its_inbox_without_a_right_to_make_one(tmp_path: Path) -> None:
    async with (
        running(every_role(tmp_path), tmp_path / "b") as bridge,
        plain(bridge, "alpha") as alpha,
        plain(bridge, "bunny") as bunny,
    ):
        for producer in ("beta", "alpha"):
            assert b"error" not in (await bunny.ask(f"results.thumbs.{producer}.{SESSION}.1.0", producer.encode())).data
        mine = await alpha.pull("RESULTS_thumbs", "inbox-alpha")
        assert (mine.subject, mine.data) == (f"results.thumbs.alpha.{SESSION}.1.0", b"alpha")
        await alpha.ask(mine.reply, b"+ACK")  # confirmed
        assert not alpha.refused


async def test_a_worker_takes_and_sees_the_slots_of_its_queue(tmp_path: Path) -> None:
    async with running(every_role(tmp_path), tmp_path / "b") as bridge, plain(bridge, "relay") as relay:
        subjects = ("slots.lookup.all.0", f"slots.lookup.key.gamma.{'0' * 64}.0", "slots.lookup.rate")
        for subject in subjects:
            assert b"error" not in (await relay.ask(subject, b"held")).data
            assert (await relay.ask(f"$JS.API.DIRECT.GET.SLOTS_lookup.{subject}")).data == b"held"
        await relay.ask(
            "$JS.API.DIRECT.GET.SLOTS_lookup", b'{"seq": 1, "next_by_subj": "slots.lookup.all.*", "batch": 9}'
        )
        assert not relay.refused


@pytest.mark.parametrize("name", ["ops-aws", "ops-azure", "boss-aws"])
async def test_a_reader_reads_all_of_its_cloud(name: str, tmp_path: Path) -> None:
    policy = every_role(tmp_path)
    async with running(policy, tmp_path / "b") as bridge, plain(bridge, name) as me:
        await me.client.subscribe("$JS.EVENT.ADVISORY.>")
        await me.client.subscribe("$JS.EVENT.METRIC.>")
        await me.ask("$SYS.REQ.USER.INFO")
        plan = _plan(bridge, policy.identities[name].cloud)
        assert (await me.api("INFO"))["streams"] == len(plan["streams"])
        assert set((await me.api("STREAM.NAMES"))["streams"]) == {stream["name"] for stream in plan["streams"]}
        for stream in plan["streams"]:
            await me.api(f"STREAM.INFO.{stream['name']}")
            await me.api(f"CONSUMER.NAMES.{stream['name']}")
            assert status(await me.ask(f"$JS.API.DIRECT.GET.{stream['name']}", {"seq": 1})) == "404"
            assert b"10037" in (await me.ask(f"$JS.API.STREAM.MSG.GET.{stream['name']}", {"seq": 1})).data
        for consumer in plan["consumers"]:
            await me.api(f"CONSUMER.INFO.{consumer['stream']}.{consumer['config']['name']}")
        assert not me.refused


@pytest.mark.parametrize("name", ["prov-aws", "prov-azure"])
async def test_a_provisioner_makes_what_is_planned(name: str, tmp_path: Path) -> None:
    policy = every_role(tmp_path)
    async with running(policy, tmp_path / "b", provisioned=False) as bridge, plain(bridge, name) as me:
        plan = _plan(bridge, policy.identities[name].cloud)
        for stream in plan["streams"]:
            for call in ("CREATE", "UPDATE", "INFO"):
                await me.api(f"STREAM.{call}.{stream['name']}", stream if call != "INFO" else None)
        for consumer in plan["consumers"]:
            path = f"{consumer['stream']}.{consumer['config']['name']}"
            body = {"stream_name": consumer["stream"], "config": consumer["config"]}
            await me.api(f"CONSUMER.CREATE.{path}", body)
            await me.api(f"CONSUMER.DURABLE.CREATE.{path}", body)
            await me.api(f"CONSUMER.INFO.{path}")
        assert not me.refused


@pytest.mark.parametrize("name", ["sys-aws", "sys-azure"])
async def test_a_system_identity_hears_what_the_servers_of_its_cloud_tell(name: str, tmp_path: Path) -> None:
    async with running(every_role(tmp_path), tmp_path / "b") as bridge, plain(bridge, name) as me:
        cloud = bridge.policy.identities[name].cloud
        came = await me.client.subscribe("$SYS.ACCOUNT.*.CONNECT")
        await me.client.subscribe("$SYS.ACCOUNT.*.DISCONNECT")
        await me.client.subscribe("$SYS.SERVER.*.CLIENT.AUTH.ERR")
        server = json.loads((await me.ask("$SYS.REQ.SERVER.PING")).data)["server"]
        # The other cloud's servers are behind the link, which carries nothing of the system account.
        assert server["name"] == f"acme-{cloud}"
        same = server | dict.fromkeys(("time", "seq"), ANY)
        for call in SERVER_REQUESTS:
            for which in ("PING", server["id"]):
                assert json.loads((await me.ask(f"$SYS.REQ.SERVER.{which}.{call}")).data)["server"] == same
        # One answer, and one that tells of every account: a server would add an import of its own that does not.
        found = await me.client.subscribe(inbox := me.client.new_inbox())
        await me.client.publish("$SYS.REQ.SERVER.PING.CONNZ", b'{"auth": true}', reply=inbox)
        connections = json.loads((await found.next_msg(timeout=5)).data)["data"]["connections"]
        await me.ask("$SYS.REQ.SERVER.PING.VARZ")
        assert found.pending_msgs == 0
        assert {each["kind"] for each in connections} == {"Client", "Leafnode"}
        for call in ACCOUNT_REQUESTS:
            answer = json.loads((await me.ask(f"$SYS.REQ.ACCOUNT.{bridge.policy.clouds[cloud].account}.{call}")).data)
            assert "error" not in answer
        async with plain(bridge, "alpha" if cloud == "aws" else "bunny") as them:
            # Those that came before may be told late.
            while json.loads((await came.next_msg(timeout=5)).data)["client"]["acc"] != them.name:
                pass
        assert not me.refused


async def test_what_the_servers_answer_a_system_identity_stays_in_its_account(tmp_path: Path) -> None:
    """Gossip of servers, raft and administration are subjects of the system account too, and replies unchecked."""
    async with (
        running(every_role(tmp_path), tmp_path / "b") as bridge,
        plain(bridge, "sys2-aws") as other,
        plain(bridge, "sys-aws") as me,
    ):
        heard = await other.client.subscribe("$SYS.ACCOUNT.*.CONNECT")
        await other.settled()
        started = json.loads((await me.ask("$SYS.REQ.SERVER.PING.VARZ")).data)
        for reply in (
            "$SYS.ACCOUNT.guess.CONNECT",
            *(f"$SYS.REQ.SERVER.{started['server']['id']}.{call}" for call in ("RELOAD", "KICK", "LDM")),
        ):
            await me.client.publish("$SYS.REQ.SERVER.PING.VARZ", b"", reply=reply)
        after = json.loads((await me.ask("$SYS.REQ.SERVER.PING.VARZ")).data)
        assert after["data"]["config_load_time"] == started["data"]["config_load_time"]
        await other.ask("$SYS.REQ.SERVER.PING")
        assert heard.pending_msgs == 0
        assert not me.refused


async def test_an_agent_sees_how_much_there_is_and_nothing_of_it(tmp_path: Path) -> None:
    async with running(every_role(tmp_path), tmp_path / "b") as bridge, plain(bridge, "agent-azure") as me:
        await me.client.subscribe("_INBOX_agent-azure.>")
        for call in ("STREAM.INFO.JOBS_lookup", "STREAM.INFO.DEAD_thumbs", "CONSUMER.INFO.JOBS_lookup.relay-normal"):
            await me.api(call)
        assert json.loads((await me.ask("$SYS.REQ.SERVER.PING.LEAFZ")).data)["data"]["leafnodes"] == 1
        await me.client.publish("stats.azure.agent-azure", b"{}")
        await me.settled()
        assert not me.refused
        others = ["stats.aws.agent-azure", "stats.azure.other", "$JS.API.DIRECT.GET.JOBS_lookup", "$JS.API.STREAM.LIST"]
        for subject in others:
            await me.client.publish(subject, b"")
        for subject in ("stats.azure.*", "jobs.>", "$JS.EVENT.ADVISORY.>"):
            await me.client.subscribe(subject)
        await me.settled()
        assert {subject for _, subject in me.refused} >= {subject.lower() for subject in (*others, "jobs.>")}
        assert ("subscribe", "stats.azure.*") in me.refused


# --- what a provisioner could turn to reading ---------------------------------------------------------


async def test_a_provisioner_cannot_have_payloads_sent_to_its_inbox(tmp_path: Path) -> None:
    """Its calls are carried out in the account of the streams, and its inbox is in another."""
    async with running(every_role(tmp_path), tmp_path / "b") as bridge, plain(bridge, "prov-azure") as me:
        inbox = f"{me.client.new_inbox()}.x"
        heard = [await me.client.subscribe(subject) for subject in (inbox, f"{inbox}.>")]
        plan = _plan(bridge, "azure")
        results = next(stream for stream in plan["streams"] if stream["name"] == "RESULTS_thumbs")
        republish = {"src": "results.thumbs.>", "dest": f"{inbox}.>"}
        await me.api("STREAM.UPDATE.RESULTS_thumbs", results | {"republish": republish})
        await _turn_consumers(me, plan, inbox)
        async with plain(bridge, "bunny") as bunny:
            assert b"error" not in (await bunny.ask(f"results.thumbs.alpha.{SESSION}.1.0", b"ciphertext")).data
        async with plain(bridge, "gamma") as gamma:
            assert b"error" not in (await gamma.ask(f"jobs.lookup.normal.gamma.{SESSION}.1", b"ciphertext")).data
        await me.api("STREAM.INFO.RESULTS_thumbs")
        assert [subscription.pending_msgs for subscription in heard] == [0, 0]


async def _turn_consumers(me: Plain, plan: dict[str, Any], inbox: str) -> None:
    for consumer in plan["consumers"]:
        path = f"{consumer['stream']}.{consumer['config']['name']}"
        config = consumer["config"] | {"deliver_subject": inbox}
        await me.ask(f"$JS.API.CONSUMER.CREATE.{path}", {"stream_name": consumer["stream"], "config": config})


def _plan(bridge: Bridge, cloud: str) -> dict[str, Any]:
    return dict(json.loads((bridge.folder.rendered / cloud / "plan.json").read_text()))
