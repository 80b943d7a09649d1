"""``bunny trust``: root keys, signing the trust bundle, and looking at it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bridge import bundle, dsse
from bridge.cli.frame import AsJson, PolicyFile, example, group
from bridge.cli.out import Out, when
from bridge.cli.trust_show import show
from bridge.cli.where import find_policy, keys_of, private_folder, read_policy
from bridge.clock import now_ms
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import BadBundle, BundleExpired, ConfigurationError
from bridge.files import read_file, write_file
from bridge.identity import ROOTS_FILE, TRUST_FILE
from bridge.policy import Policy
from bridge.roots import load_root, load_roots, save_root
from bridge.trust import SKEW_MS, Trust, read_roots

ROOTS_FOLDER = "roots"


def register(app: typer.Typer) -> None:
    """Add the group."""
    trust = group("Sign who may send what to whom, and look at it.")
    trust.command("init", epilog=example("bunny trust init --roots 3 --threshold 2", "bunny trust init --join"))(init)
    trust.command("sign", epilog=example("bunny trust sign", "bunny trust sign --add --root usb/1f0c.json"))(sign)
    trust.command("show", epilog=example("bunny trust show", "bunny trust show /etc/bunny/trust.json"))(show)
    app.add_typer(trust, name="trust")


Roots = Annotated[
    Path | None,
    typer.Option("--dir", help="Private root keys.", show_default="roots beside the policy"),
]


def init(
    count: Annotated[
        int | None,
        typer.Option(
            "--roots", min=1, max=dsse.MAX_SIGNATURES, help="Root keys to make.", show_default="as many as must sign"
        ),
    ] = None,
    threshold: Annotated[
        int | None,
        typer.Option(min=1, max=dsse.MAX_SIGNATURES, help="How many must sign.", show_default="trust.threshold"),
    ] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Add root keys made here to a roots.json that others began.")
    ] = False,
    folder: Roots = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Make root keys (one private file each, 0600) and roots.json, which says which they are.

    Keep each private file with another person, offline. Holders on different machines each run it with --join,
    one after another, on the same roots.json. Deliver roots.json to every service apart from the bundle.
    """
    path = find_policy(policy)
    values, out = read_policy(path), Out(as_json)
    public, keys, needed = path.parent / ROOTS_FILE, [], threshold or values.trust.threshold
    if join and (path.parent / TRUST_FILE).exists():
        raise ConfigurationError(f"{public}: has signed a bundle already, so no root key can be added")
    if public.exists() and not join:
        raise ConfigurationError(f"{public}: exists already; services rely on it, so it is never overwritten")
    if public.exists():
        before, needed, _ = read_roots(read_file(public), partial=True)
        keys = list(before.values())
        if threshold not in (None, needed):
            raise ConfigurationError(f"{public}: says that {needed} must sign; leave --threshold out")
    made = count or (1 if join else needed)
    if len(keys) + made > dsse.MAX_SIGNATURES or (not join and made < needed):
        raise ConfigurationError(f"{made} root keys: {needed} must sign, of at most {dsse.MAX_SIGNATURES}")
    place = folder or path.parent / ROOTS_FOLDER
    private_folder(place)
    roots = [SigningKey.generate() for _ in range(made)]
    files = [save_root(root, place) for root in roots]
    keys += [VerifyKey(root.public) for root in roots]
    write_file(public, bundle.build_roots(values.bridge, needed, keys))
    for file in files:
        out.say(f"private  {file}", "bold")
    out.say(f"public   {public}: {needed} of {len(keys)} must sign", "bold")
    out.say()
    if len(keys) < needed:
        out.say(f"Root keys still needed: {needed - len(keys)}. Their holders run `bunny trust init --join`.")
    else:
        out.say("Move each private key to its holder. When keys/ is complete: `bunny trust sign`.")
    out.result({"roots": str(public), "threshold": needed, "keys": len(keys), "private": [str(file) for file in files]})


def sign(
    root: Annotated[
        list[Path] | None,
        typer.Option("--root", help="A private root key. Again for more.", show_default="all in roots"),
    ] = None,
    version: Annotated[
        int | None, typer.Option(min=1, help="Its version.", show_default="one more than trust.json's")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Add signatures to trust.json as it is.")] = False,
    roots_file: Annotated[
        Path | None,
        typer.Option(
            "--roots",
            metavar="FILE",
            help="The roots.json that the keys are in: another, while new root keys take the place of old.",
            show_default="roots.json beside the policy",
        ),
    ] = None,
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Sign the trust bundle: who may send what to whom, from bridge.yaml and keys/, as trust.json.

    Holders of root keys sign one after another: the first makes a new version, the others --add. Whoever adds signs
    what bridge.yaml and keys/ say on their own machine, and nothing else.
    """
    path = find_policy(policy)
    values = read_policy(path)
    named = roots_file or path.parent / ROOTS_FILE
    file, public = path.parent / TRUST_FILE, read_file(named)
    known, threshold, bridge = read_roots(public)
    if bridge != values.bridge:
        raise ConfigurationError(f"{named}: of bridge {bridge!r}, and the policy is of {values.bridge!r}")
    if add and version is not None:
        raise typer.BadParameter("--add signs trust.json as it is; leave --version out")
    roots = [load_root(each) for each in root] if root else load_roots(path.parent / ROOTS_FOLDER)
    if not roots:
        raise ConfigurationError(f"{path.parent / ROOTS_FOLDER}: holds no root key; name one with --root FILE")
    for key in roots:
        if key.kid not in known:
            raise ConfigurationError(f"root key {key.kid.hex()[:16]}: not in {named}")
    if add:
        signed = _added(values, path, file, roots, explicit=bool(root))
    else:
        signed = bundle.sign_payload(
            bundle.build_payload(values, keys_of(values, path), _next(file, version), now_ms()), roots
        )
    names = {kid for kid, _ in dsse.decode(signed)[1]} & set(known)
    if len(names) >= threshold:
        Trust.verify(signed, public, now_ms())  # whatever is written as complete has passed what services check
    write_file(file, signed)
    _tell(Out(as_json), file, signed, len(names), threshold)


def _added(policy: Policy, path: Path, file: Path, roots: list[SigningKey], *, explicit: bool) -> bytes:
    before = read_file(file)
    payload, signatures = dsse.decode(before)
    value = bundle.read_payload(before)
    try:
        same = bundle.build_payload(policy, keys_of(policy, path), value["version"], value["issued"]) == payload
        issued, expires = int(value["issued"]), int(value["expires"])
    except (KeyError, TypeError, ValueError):
        raise BadBundle(f"{file}: its payload is not a trust bundle") from None
    if not same:
        raise ConfigurationError(
            f"{file}: says something else than {path} and keys/ here; compare them before you sign"
        )
    if expires <= now_ms():
        raise BundleExpired(f"{file}: expired; sign a new one without --add")
    if issued > now_ms() + SKEW_MS:  # it would outlive what its next holder can see: a dead man's switch put off
        raise BundleExpired(f"{file}: signed in the future; check this machine's clock, and whoever signed it first")
    there = {kid for kid, _ in signatures}
    new = roots if explicit else [root for root in roots if root.kid not in there]
    if not new:
        raise ConfigurationError(f"{file}: every root key here has signed it already; name another with --root")
    return bundle.add_signatures(before, new)


def _next(file: Path, version: int | None) -> int:
    try:
        before = int(bundle.read_payload(read_file(file))["version"]) if file.exists() else 0
    except (KeyError, TypeError, ValueError):
        raise BadBundle(f"{file}: its payload names no version; move it away, and give --version") from None
    if version is not None and version <= before:
        raise ConfigurationError(f"version {version}: {file} is version {before} already, and versions only grow")
    return version or before + 1


def _tell(out: Out, file: Path, signed: bytes, signatures: int, threshold: int) -> None:
    value = bundle.read_payload(signed)
    out.say(f"wrote {file}: version {value['version']}, until {when(value['expires'])}", "bold")
    if signatures < threshold:
        out.say(f"{signatures} of {threshold} signatures: hand it to the next holder, for `bunny trust sign --add`")
    else:
        out.say(f"signed by {signatures}, {threshold} needed: deliver it to every service's identity folder")
    out.result(
        {
            "trust": str(file),
            "version": value["version"],
            "expires": value["expires"],
            "signatures": signatures,
            "threshold": threshold,
            "complete": signatures >= threshold,
        }
    )
