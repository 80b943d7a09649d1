"""`bunny prove` against both clouds: all is as the policy says, nothing is touched, and what is widened is found."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

from bridge import pki
from bridge.devserver import Bridge, running
from bridge.policy import Policy
from bridge.prove import ANYONE, Act, Area, Found, Stand, Trial, prove
from tests.acceptance.typed import bunny
from tests.integration.forbidden import SESSION
from tests.integration.plain import plain, stored
from tests.integration.test_permissions import every_role
from tests.load import clustered
from tests.support import write_policy

DELETE = "$JS.API.STREAM.DELETE.JOBS_thumbs"
DELETES = {f"publish {DELETE}", f"publish {DELETE.replace('API', 'aws.API')}"}
"""One's own domain is mapped away before the permission is looked at."""


def stand(bridge: Bridge, *names: str) -> Stand:
    folders = {name: bridge.identity(name) for name in names or bridge.policy.identities}
    links = [f"tls://127.0.0.1:{bridge.ports[hub.name].leafnodes}" for hub in bridge.of("aws")]
    return Stand(bridge.policy, folders, bridge.folder.pki, links)


async def proved(bridge: Bridge, name: str) -> dict[str, Found]:
    """What one identity finds to be otherwise than the policy says, by act."""
    trial = next(each for each in await prove(stand(bridge, name)) if each.name == name)
    assert not trial.not_run, trial.not_run
    return {str(each.expected.act): each.found for each in trial.differing}


def rendered(bridge: Bridge, cloud: str) -> Path:
    return bridge.folder.rendered / cloud / "accounts.conf"


@contextlib.asynccontextmanager
async def changed(bridge: Bridge, cloud: str, *changes: tuple[str, str]) -> AsyncIterator[None]:
    """The accounts of a cloud as somebody else would have written them, taken up by SIGHUP, until the block ends."""
    path, server = rendered(bridge, cloud), bridge.hub if cloud == "aws" else bridge.leaf
    before = text = path.read_text()
    for pattern, more in changes:
        found = re.search(pattern, text, re.DOTALL)
        assert found is not None, pattern
        text = text[: found.end()] + more + text[found.end() :]
    path.write_text(text)
    await server.reload()
    yield
    path.write_text(before)
    await server.reload()


async def test_everything_is_as_the_policy_says_and_nothing_is_touched(tmp_path: Path) -> None:
    async with running(every_role(tmp_path), tmp_path / "b") as bridge:
        async with plain(bridge, "alpha") as alpha, plain(bridge, "gamma") as gamma, plain(bridge, "bunny") as bunny_:
            for n in (1, 2):
                await alpha.ask(f"jobs.thumbs.normal.alpha.{SESSION}.{n}", b"job")
                await gamma.ask(f"jobs.lookup.normal.gamma.{SESSION}.{n}", b"job")
            held = await bunny_.pull("JOBS_thumbs", "bunny-normal", "aws")  # one is at work, and stays so
            before = await stored(bridge)
            found = await prove(stand(bridge))
            assert await stored(bridge) == before
            await bunny_.ask(held.reply, b"+ACK")
        assert {each.name for each in found} == {*bridge.policy.identities, ANYONE}
        assert [(each.name, each.not_run, each.differing) for each in found if not each.whole or each.differing] == []
        assert min(len(each.outcomes) for each in found if each.name != ANYONE) > 250
        for allowed in (True, False):
            tried = {
                each.expected.act.area for trial in found for each in trial.outcomes if each.expected.allowed is allowed
            }
            assert tried == set(Area)


async def test_what_was_changed_by_hand_is_found_and_by_name(tmp_path: Path) -> None:
    async with running(every_role(tmp_path), tmp_path / "b") as bridge:
        user = r"# alpha: service.*?publish: \{\s*allow: \["
        async with changed(bridge, "aws", (user, f'"{DELETE}", ')):
            # Its account still imports nothing of the kind: it is found all the same.
            assert await proved(bridge, "alpha") == dict.fromkeys(DELETES, Found.ALLOWED)
            assert await proved(bridge, "beta") == {}

        wide = "$JS.API.STREAM.DELETE.>"
        export, import_ = r"\n  RELAY: \{.*?exports: \[", r"\n  alpha: \{.*?imports: \["
        given = (export, f'{{service: "{wide}", accounts: [alpha]}}, ')
        taken = (import_, f'{{service: {{account: RELAY, subject: "{wide}"}}}}, ')
        async with changed(bridge, "aws", given, taken, (user, f'"{wide}", ')):
            # Now every wall is down, and a request would delete. What is tried deletes nothing.
            before = await stored(bridge)
            found = await proved(bridge, "alpha")
            assert set(found) > DELETES
            assert set(found.values()) == {Found.ALLOWED}
            assert all("STREAM.DELETE" in act for act in found)
            assert await stored(bridge) == before

        async with changed(bridge, "aws", (r"# alpha: service.*?subscribe: \{\s*allow: \[", '"_INBOX_beta.>", ')):
            assert set(await proved(bridge, "alpha")) == {"subscribe _INBOX_beta.>", "subscribe _INBOX_beta.0"}

        async with changed(bridge, "aws", (r"# link-azure: .*?publish: \{\s*allow: \[", f'"{DELETE}", ')):
            assert await proved(bridge, "link-azure") == {f"publish {DELETE}": Found.ALLOWED}
        assert await proved(bridge, "link-azure") == {}

        await _narrowed(bridge)
        await _stream(bridge)


async def test_each_server_of_a_cluster_is_tried(tmp_path: Path) -> None:
    async with running(write_policy(tmp_path, clustered("aws")), tmp_path / "b") as bridge:
        found = await prove(stand(bridge))
        assert [(each.name, each.not_run, each.differing) for each in found if not each.whole or each.differing] == []

        path, odd = rendered(bridge, "aws"), bridge.servers["aws.2"]
        before = path.read_text()
        path.write_text(re.sub(r"(# alpha: service.*?publish: \{\s*allow: \[)", rf'\1"{DELETE}", ', before, flags=re.S))
        await odd.reload()  # the others have what was rendered
        assert await proved(bridge, "alpha") == dict.fromkeys(DELETES, Found.ALLOWED)
        path.write_text(before)
        await odd.reload()

        await odd.kill()
        alpha = next(each for each in await prove(stand(bridge, "alpha")) if each.name == "alpha")
        assert "127.0.0.1" in alpha.not_run


async def _narrowed(bridge: Bridge) -> None:
    """What is allowed and does not work any more is otherwise, too."""
    path = rendered(bridge, "aws")
    before = path.read_text()
    own = "jobs.thumbs.high.alpha.*.*"
    path.write_text(before.replace(f'"{own}"', '"nothing"'))
    await bridge.hub.reload()
    found = await proved(bridge, "alpha")
    assert found["publish jobs.thumbs.high.alpha.0.0"] is Found.REFUSED
    path.write_text(before)
    await bridge.hub.reload()
    assert await proved(bridge, "alpha") == {}


async def _stream(bridge: Bridge) -> None:
    """A stream that takes a header that it is not to take is found by whoever may write to it."""
    plan = json.loads((bridge.folder.rendered / "aws" / "plan.json").read_text())
    jobs = next(stream for stream in plan["streams"] if stream["name"] == "JOBS_thumbs")
    async with plain(bridge, "prov-aws") as provisioner:
        await provisioner.api("STREAM.UPDATE.JOBS_thumbs", jobs | {"allow_msg_ttl": True})
    before = await stored(bridge)
    assert await proved(bridge, "alpha") == {"publish jobs.thumbs.high.alpha.0.0 with Nats-TTL": Found.ALLOWED}
    assert await stored(bridge) == before


async def test_the_command_says_what_was_not_run_and_ends_with_a_code_for_it(tmp_path: Path) -> None:
    async with running(write_policy(tmp_path), tmp_path / ".bunny") as bridge:
        said = await asyncio.to_thread(bunny, "prove", tmp_path)
        assert said.err == ""
        assert "link-azure" in said.out
        assert "it does not; 0 found otherwise" in said.out

        some = f"prove --identity {bridge.identity('alpha')} --pki {bridge.folder.pki} --json"
        said = await asyncio.to_thread(bunny, some, tmp_path, code=1)
        value = said.json
        assert {each["identity"] for each in value["identities"] if each["run"]} == {"alpha"}
        assert set(value["not_run"]) == {*bridge.policy.identities, ANYONE} - {"alpha"}
        assert "beta" in said.error

        path = rendered(bridge, "aws")
        path.write_text(
            re.sub(r"(# alpha: service.*?publish: \{\s*allow: \[)", r'\1"x", ', path.read_text(), flags=re.S)
        )
        await bridge.hub.reload()
        said = await asyncio.to_thread(bunny, some.removesuffix(" --json"), tmp_path, code=3)
        assert "alpha: publish x: found allowed, expected refused" in said.out
        assert "user permission, accounts.conf of aws, user of alpha: not among its list" in said.out


# --- the port ----------------------------------------------------------------------------------------


class Lax(asyncio.Protocol):
    """Takes whoever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b'INFO {"nonce":"x"}\r\n')

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"PONG\r\n" * data.count(b"PING"))


@contextlib.asynccontextmanager
async def lax(tmp_path: Path, policy: Policy, *, tls: bool) -> AsyncIterator[Stand]:
    """A port that lets anybody in."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        here = tmp_path / "pki" / "aws"
        context.load_cert_chain(here / "leafnodes.pem", here / "leafnodes.key")

    server = await asyncio.get_running_loop().create_server(Lax, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Stand(policy, {}, tmp_path / "pki", [f"tls://127.0.0.1:{port}"])


async def test_a_port_that_lets_anybody_in_is_found(tmp_path: Path) -> None:
    policy = write_policy(tmp_path)

    def of_anyone(found: list[Trial]) -> dict[Act, Found]:
        return {each.expected.act: each.found for each in found[-1].outcomes if not each.equal}

    pki.issue(policy, tmp_path / "pki")
    async with lax(tmp_path, policy, tls=True) as place:
        found = of_anyone(await prove(place))
        assert {act.what for act in found} == {"TLS 1.2", "no certificate", "a certificate of another authority"}
    async with lax(tmp_path, policy, tls=False) as place:
        assert {act.what for act in of_anyone(await prove(place))} == {"no TLS"}
