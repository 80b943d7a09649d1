"""``bunny trust show``: what a trust bundle says, and whether it may be believed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bridge import bundle, dsse, strict_json
from bridge.cli.frame import AsJson, NotAsAsked, PolicyFile
from bridge.cli.out import Out, when
from bridge.cli.where import find_policy
from bridge.clock import now_ms
from bridge.crypto import VerifyKey
from bridge.errors import TrustError
from bridge.files import read_file
from bridge.identity import ROOTS_FILE, TRUST_FILE
from bridge.trust import Trust, least_version, read_roots


def show(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="The bundle, or an identity folder.", show_default="trust.json beside the policy", metavar="FILE"
        ),
    ] = None,
    roots: Annotated[
        Path | None, typer.Option("--roots", help="The roots to verify against.", show_default="roots.json beside it")
    ] = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Verify a trust bundle as a service does, and print what it says. Fails if a service would refuse it."""
    path = file or find_policy(policy).parent / TRUST_FILE
    path = path / TRUST_FILE if path.is_dir() else path
    signed, public = read_file(path), read_file(roots or path.parent / ROOTS_FILE)
    refusal = _refusal(signed, public, least_version(path.parent))
    out = Out(as_json)
    if refusal is None:
        out.say(f"VALID    {path}", "bold green")
    else:
        out.say(f"REFUSED  {path}: {type(refusal).__name__}", "bold red")
    says = _says(signed, public)
    if says:
        _print(out, says, verified=refusal is None)
    out.result(
        {
            "file": str(path),
            "valid": refusal is None,
            **({"error": type(refusal).__name__, "message": str(refusal)} if refusal else {}),
            **says,
        }
    )
    if refusal is not None:
        raise NotAsAsked(refusal)


def _refusal(signed: bytes, public: bytes, least: int) -> TrustError | None:
    try:
        Trust.verify(signed, public, now_ms(), least)
    except TrustError as error:
        return error
    return None


def _says(signed: bytes, public: bytes) -> dict[str, Any]:
    """The bundle's contents, verified or not; nothing if it cannot be read."""
    try:
        value = bundle.read_payload(signed)
        Trust(value)  # of the right shape, so that what follows can be printed
        known, threshold, _ = read_roots(public)
    except (TrustError, KeyError, TypeError, ValueError):
        return {}
    return {
        **{key: value[key] for key in ("bridge", "version", "issued", "expires", "principals", "grants")},
        "threshold": threshold,
        "signatures": _signatures(signed, known),
    }


def _signatures(signed: bytes, known: dict[bytes, VerifyKey]) -> list[strict_json.Object]:
    payload, signatures = dsse.decode(signed)
    message = dsse.signed_bytes(payload)
    return [
        {
            "kid": kid.hex(),
            "root": kid in known,
            "valid": kid in known and known[kid].verify(signature, message),
        }
        for kid, signature in signatures
    ]


def _print(out: Out, says: dict[str, Any], *, verified: bool) -> None:
    if not verified:
        out.say("What it claims, NOT verified:", "red")
    out.say(f"bridge   {says['bridge']}")
    out.say(f"version  {says['version']}, issued {when(says['issued'])}, expires {when(says['expires'])}")
    for each in says["signatures"]:
        state = (
            "a root, verifies" if each["valid"] else "a root, DOES NOT verify" if each["root"] else "no root of ours"
        )
        out.say(f"signed   {each['kid'][:16]} ({state}; {says['threshold']} needed)")
    out.say()
    out.table(
        ("principal", "cloud", "role", "signs with", "sealed to"),
        [(p["name"], p["cloud"], p["role"], _kids(p["sign"]), _kids(p["kem"])) for p in says["principals"]],
    )
    out.table(
        ("queue", "jobs from", "to", "kinds"),
        [(g["queue"], g["from"], g["to"], ", ".join(g["kinds"])) for g in says["grants"]],
    )


def _kids(keys: list[dict[str, Any]]) -> str:
    return "\n".join(key["kid"][:16] for key in keys)
