"""``bunny keys new``: make an identity where it will run, and its public half for review."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge.cli.frame import AsJson, PolicyFile, example, group
from bridge.cli.out import Out
from bridge.cli.where import find_policy, private_folder, read_policy
from bridge.errors import ConfigurationError
from bridge.files import write_file
from bridge.identity import IDENTITY_FILE, LEAF_SEED_FILE, Identity
from bridge.policy import Policy, Role
from bridge.policy.hints import near_name, nearest
from bridge.subjects import is_name


def register(app: typer.Typer) -> None:
    """Add the group."""
    keys = group("Make keys.")
    keys.command(
        "new", epilog=example("bunny keys new relay-api", "bunny keys new relay-api --dir /var/lib/relay --keys out")
    )(new)
    app.add_typer(keys, name="keys")


def new(
    name: Annotated[str, typer.Argument(help="The identity, as bridge.yaml names it.", metavar="NAME")],
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Where its folder is made.", show_default="identities beside the policy"),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Where the public half goes.", show_default="keys beside the policy"),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Without a policy here: these are the keys of the leaf's link.")
    ] = False,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make the keys of an identity; run it where the identity will run.

    The private half is DIR/NAME/identity.json (0600) and never leaves; the public half, keys/NAME.json, goes into
    review beside bridge.yaml. With a bridge.yaml here NAME must be one of its identities. Without one NAME is taken
    as it is.
    """
    if not is_name(name):
        raise ConfigurationError(f"{name!r}: not a name that NATS and file systems can carry; {near_name(name)}")
    path = find_policy(policy)
    known = policy is not None or path.exists()
    role = _role(read_policy(path), path, name) if known else None
    place = (folder or path.parent / "identities") / name
    public = (keys or path.parent / "keys") / f"{name}.json"
    if (place / IDENTITY_FILE).exists():
        raise ConfigurationError(f"{place / IDENTITY_FILE}: exists already; private keys are never overwritten")
    if public.exists():
        raise ConfigurationError(f"{public}: exists already; if its private half is lost, remove it and run this again")
    identity = Identity.generate(name, link=link or role is Role.LINK)
    private_folder(place.parent)
    private = identity.save(place)
    half = identity.public()
    write_file(public, half.to_json())
    _tell(Out(as_json), identity, private, public, known)


def _role(policy: Policy, path: Path, name: str) -> Role:
    if name not in policy.identities:
        remedy = nearest(name, policy.identities)
        raise ConfigurationError(f"{name!r} is not an identity of {path}; {remedy}")
    return policy.identities[name].role


def _tell(out: Out, identity: Identity, private: Path, public: Path, known: bool) -> None:
    half = identity.public()
    out.say(f"private  {private}", "bold")
    seed = private.parent / LEAF_SEED_FILE if not half.sign else None
    if seed is not None:
        out.say(f"         {seed} (put it beside the leaf's rendered leaf.conf)")
    out.say(f"public   {public}", "bold")
    out.say(f"nkey     {half.nkey}")
    for key in half.sign:
        out.say(f"sign     {key.kid.hex()}")
    for epoch, kem in half.kem:
        out.say(f"seal to  {kem.kid.hex()} (epoch {epoch})")
    out.say()
    if not known:
        out.say("There is no bridge.yaml here, so the name was not checked against it.")
    out.say(
        f"Keep {private.parent} where {identity.name} runs. Put {public.name} into keys/ beside bridge.yaml, to review;"
    )
    out.say("then `bunny trust sign` and `bunny render` take it up.")
    out.result(
        {
            "name": identity.name,
            "private": str(private),
            "leaf_seed": str(seed) if seed else None,
            "public": str(public),
            "nkey": half.nkey,
            "sign": [key.kid.hex() for key in half.sign],
            "kem": [kem.kid.hex() for _, kem in half.kem],
        }
    )
