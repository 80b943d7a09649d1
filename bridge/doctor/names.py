"""The DNS check: which address a name has from here, and what it took to find it."""

from __future__ import annotations

import asyncio

from bridge.doctor.catalogue import Check
from bridge.doctor.dns import Answer, Outcome, Resolver, is_address
from bridge.doctor.finding import Findings


async def find_address(found: Findings, about: str, host: str, resolver: Resolver, timeout: float) -> str | None:
    """Look a name up as the system would, and judge the way it went.

    Returns:
        The address, or None if there is none.
    """
    if is_address(host):
        found.ok(Check.DNS, about, f"{host} is an address: nothing to look up")
        return host
    known = resolver.known(host)
    if known is not None:
        found.ok(Check.DNS, about, f"{host} is {known}, as this machine's hosts file says")
        return known
    asked = await _ask_in_order(resolver, host, timeout)
    last = asked[-1]
    if last.outcome is not Outcome.FOUND:
        await _judge_failure(found, about, host, resolver, asked, timeout)
        return None
    await _judge_way(found, about, host, resolver, asked, timeout)
    return last.addresses[0]


async def _ask_in_order(resolver: Resolver, host: str, timeout: float) -> list[Answer]:
    """Ask for each candidate until one has an address, in ``timeout`` seconds in all."""
    deadline = asyncio.get_running_loop().time() + timeout
    asked: list[Answer] = []
    for name in resolver.candidates(host):
        left = deadline - asyncio.get_running_loop().time()
        asked.append(await resolver.ask(name, max(left, 0.05)))
        if asked[-1].outcome in (Outcome.FOUND, Outcome.SILENT):
            break
    return asked


async def _judge_failure(
    found: Findings, about: str, host: str, resolver: Resolver, asked: list[Answer], timeout: float
) -> None:
    outcomes = {answer.outcome for answer in asked}
    if Outcome.SILENT in outcomes:
        found.trap("resolver-silent", about, f"no answer for {host} from {resolver.where} in {timeout:g} s")
    elif Outcome.FAILED in outcomes:
        found.trap("broken-stub-zone", about, f"{resolver.where} answers {host} with {Outcome.FAILED}")
    else:
        if host.endswith("."):
            for domain in resolver.search:
                completed = await resolver.ask(f"{host}{domain}", timeout)
                if completed.outcome is Outcome.FOUND:
                    seen = f"{host} is {asked[-1].outcome}, and {completed.name} is {completed.addresses[0]}"
                    return found.trap("trailing-dot", about, seen)
        tried = f", tried as {len(asked)} names" if len(asked) > 1 else ""
        found.trap("missing-stub-zone", about, f"{resolver.where} answers {host} with {asked[-1].outcome}{tried}")
    return None


async def _judge_way(
    found: Findings, about: str, host: str, resolver: Resolver, asked: list[Answer], timeout: float
) -> None:
    last, before = asked[-1], asked[:-1]
    seen = f"{host} is {last.addresses[0]}, says {resolver.where}"
    if last.name != host.rstrip("."):
        whole = await resolver.ask(host, timeout)
        if whole.outcome is Outcome.FOUND:
            return found.trap(
                "search-capture", about, f"{last.name} answers with {last.addresses[0]}, {host} is {whole.addresses[0]}"
            )
        return found.ok(Check.DNS, about, f"{seen}, as {last.name}")
    if before:
        tried = ", ".join(answer.name for answer in before)
        return found.trap(
            "search-path", about, f"{seen}, after {2 * len(before)} queries for {tried} (ndots is {resolver.ndots})"
        )
    return found.ok(Check.DNS, about, seen)
