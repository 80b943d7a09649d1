"""The link's port, with every credential that must not open it, and what the link's own keys may do there."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge import pki
from bridge.crypto import new_nkey
from bridge.errors import TransportError
from bridge.explain import Ground
from bridge.identity import Identity
from bridge.jetstream.credentials import tls_context
from bridge.policy import IdentityEntry, Policy
from bridge.prove.acts import Act, Area, Expectation
from bridge.prove.crossing import over_the_link
from bridge.prove.harmless import answered, unheard
from bridge.prove.leaf import Entry, Leaf, Port, entered, published, says_in_clear
from bridge.prove.trial import Found, Outcome

AT_ONCE: Final = 8
"""Connections to the port at a time: each act that is refused ends its own."""

_CLEAR, _OLD, _BARE, _FOREIGN = "no TLS", "TLS 1.2", "no certificate", "a certificate of another authority"
_FOR_SERVERS: Final = "a certificate for servers"
_NO_KEY, _OTHER_KEY, _OWN = "its certificate, no NKey", "its certificate, another NKey", "its certificate and NKey"

_OF_ANYONE: Final = (_CLEAR, _OLD, _BARE, _FOREIGN)
_OF_HOLDER: Final = (_BARE, _FOREIGN, _FOR_SERVERS, _NO_KEY, _OTHER_KEY, _OWN)


@dataclass(frozen=True, slots=True)
class Papers:
    """What is at hand to show at the port.

    Args:
        foreign: A certificate and key of an authority that nobody trusts.
        hub_ca: The authority that vouches for the hub; who has the link's key needs it.
        link: Those of the link.
        servers: Those of a listener of the leaf: of the right authority, for another use.
    """

    foreign: tuple[Path, Path]
    hub_ca: Path | None = None
    link: tuple[Path, Path] | None = None
    servers: tuple[Path, Path] | None = None


def papers(policy: Policy, folder: Path | None, throwaway: Path) -> Papers:
    """What a folder of certificates has, if there is one, and a certificate made for this alone in another folder."""
    pki.issue(policy, throwaway)
    leaf = policy.leaf.name

    def pair(here: Path, name: str) -> tuple[Path, Path]:
        return here / leaf / f"{name}.pem", here / leaf / f"{name}.key"

    def there(found: tuple[Path, Path]) -> tuple[Path, Path] | None:
        return found if all(path.exists() for path in found) else None

    foreign = pair(throwaway, "link")
    if folder is None:
        return Papers(foreign)
    link, servers = there(pair(folder, "link")), there(pair(folder, "clients"))
    return Papers(foreign, folder / policy.hub.name / "ca.pem", link, servers)


def of_anyone(policy: Policy) -> list[Expectation]:
    """What whoever has no key of the bridge tries at the link's port."""
    return [_at(policy, credential, allowed=False) for credential in _OF_ANYONE]


def of_holder(ground: Ground, me: IdentityEntry) -> list[Expectation]:
    """What whoever has the link's NKey tries: the port, and what crosses it."""
    tried = [_at(ground.policy, credential, allowed=credential == _OWN) for credential in _OF_HOLDER]
    return [*tried, *over_the_link(ground, me)]


def _at(policy: Policy, credential: str, *, allowed: bool) -> Expectation:
    return Expectation(Act(Area.PORT, "connect", f"to the link's port of {policy.hub.name}", credential), allowed)


async def try_anyone(policy: Policy, port: Port, shown: Papers) -> list[Outcome]:
    """Knock at the port without a key.

    Raises:
        TransportError: Nothing listens there.
    """
    found = {_CLEAR: _allowed(await says_in_clear(port))}
    old = _unverified()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for credential, context in ((_OLD, old), (_BARE, _unverified()), (_FOREIGN, _unverified(shown.foreign))):
        async with entered(port, context, None) as entry:
            found[credential] = _allowed(bool(entry.info))
    return [Outcome(each, found[each.act.what]) for each in of_anyone(policy)]


async def try_holder(ground: Ground, me: IdentityEntry, identity: Identity, port: Port, shown: Papers) -> list[Outcome]:
    """Knock with the link's NKey, and try with all its papers what crosses.

    Raises:
        TransportError: Nothing listens there.
    """
    seed, found = identity.nkey_seed, dict.fromkeys(_OF_HOLDER, Found.NOT_RUN)
    for credential, pair in ((_BARE, None), (_FOREIGN, shown.foreign), (_FOR_SERVERS, shown.servers)):
        if credential == _BARE or pair is not None:
            async with entered(port, _context(shown, pair), seed) as entry:
                found[credential] = _allowed(bool(entry.info))
    if shown.link is not None:
        for credential, key in ((_NO_KEY, None), (_OTHER_KEY, new_nkey()), (_OWN, seed)):
            async with entered(port, _context(shown, shown.link), key) as entry:
                found[credential] = _allowed(entry.leaf is not None)
    tried = of_holder(ground, me)
    at_port = [Outcome(each, found[each.act.what]) for each in tried if each.act.area is Area.PORT]
    across = [each for each in tried if each.act.area is not Area.PORT]
    if shown.link is None or found[_OWN] is not Found.ALLOWED:
        return [*at_port, *(Outcome(each, Found.NOT_RUN) for each in across)]
    return [*at_port, *await _across(across, port, _context(shown, shown.link), seed)]


async def _across(wanted: Sequence[Expectation], port: Port, context: ssl.SSLContext, seed: str) -> list[Outcome]:
    """Each refusal ends its connection; what is allowed is asked on one, whose answers are waited for together."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(each: Expectation) -> Found:
        async with slots, entered(port, context, seed) as entry:
            leaf = _leaf(port, entry)
            publish = each.act.way == "publish"
            line = published(unheard(each.act.subject), _reply()) if publish else f"LS+ {each.act.subject}\r\n".encode()
            await leaf.exchange(line)
            if leaf.closed and not any(error.startswith("Permissions Violation") for error in leaf.errors):
                raise TransportError(f"{port}: the connection ended without a word of permissions")
            return _allowed(not leaf.closed)

    refused = [each for each in wanted if not each.allowed]
    found = dict(zip(refused, await asyncio.gather(*map(one, refused)), strict=True))
    found |= await _answers([each for each in wanted if each.allowed], port, context, seed)
    return [Outcome(each, found[each]) for each in wanted]


async def _answers(
    wanted: Sequence[Expectation], port: Port, context: ssl.SSLContext, seed: str
) -> dict[Expectation, Found]:
    questions = {each: question for each in wanted if (question := answered(each.act.subject)) is not None}
    async with entered(port, context, seed) as entry:
        leaf, base = _leaf(port, entry), _reply()
        replies = {each: f"{base}.{number}" for number, each in enumerate(questions)}
        lines = b"".join(published(question, replies[each]) for each, question in questions.items())
        await leaf.exchange(f"LS+ {base}.*\r\n".encode() + lines)
        await leaf.until(set(replies.values()))
        return {each: Found.ALLOWED if replies[each] in leaf.answers else Found.UNANSWERED for each in questions}


def _leaf(port: Port, entry: Entry) -> Leaf:
    if entry.leaf is None:
        raise TransportError(f"{port}: did not let the link in again within {port.timeout:g} s; say --timeout for more")
    return entry.leaf


def _reply() -> str:
    return f"_R_.{secrets.token_hex(8)}"


def _allowed(allowed: bool) -> Found:
    return Found.ALLOWED if allowed else Found.REFUSED


def _unverified(shown: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Whoever listens is not asked who it is: nothing is told on such a connection that is not public."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


def _context(papers: Papers, shown: tuple[Path, Path] | None) -> ssl.SSLContext:
    """The hub must be the hub, since the link's NKey signs what it says."""
    if papers.hub_ca is None:
        raise TransportError("the hub's ca.pem is not at hand: name the folder of certificates with --pki")
    context = tls_context(papers.hub_ca)
    if shown is not None:
        context.load_cert_chain(*shown)
    return context
