"""Making a trust bundle: policy and public halves in, bytes for root keys to sign out. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bridge import dsse, strict_json
from bridge.crypto import SigningKey, VerifyKey
from bridge.errors import BadBundle, ConfigurationError, RepeatedSigner
from bridge.identity import PublicIdentity
from bridge.job import CANARY
from bridge.policy import Policy, Queue, Role
from bridge.strict_json import b64
from bridge.trust import SKEW_MS


def build_payload(policy: Policy, keys: Mapping[str, PublicIdentity], version: int, issued_ms: int) -> bytes:
    """The bytes to be signed: every principal but the link's, and every grant, from policy and public halves.

    Of who is revoked it has neither.

    All keys are valid from the skew before ``issued_ms`` until the bundle expires.
    """
    expires = issued_ms + policy.trust.expires_ms
    life = {"not_before": issued_ms - SKEW_MS, "not_after": expires}
    principals = []
    for name, entry in sorted(policy.accepted.items()):
        if entry.role is Role.LINK:
            continue
        public = keys[name]
        if not public.sign or not public.kem:
            raise ConfigurationError(f"keys/{name}.json: has no key to sign with or be sealed to; make new keys")
        principals.append(
            {
                "name": name,
                "cloud": entry.cloud,
                "role": str(entry.role),
                "sign": [{"kid": k.kid.hex(), "public": b64(k.public), **life} for k in public.sign],
                "kem": [{"kid": k.kid.hex(), "public": b64(k.public), "epoch": e, **life} for e, k in public.kem],
            }
        )
    grants = [
        {"queue": name, "from": producer, "to": queue.workers, "kinds": sorted(kinds)}
        for name, queue in sorted(policy.queues.items())
        for producer, kinds in sorted(senders(policy, queue).items())
        if not {producer, queue.workers} & set(policy.revoked)
    ]
    return strict_json.dump(
        {
            "v": 1,
            "bridge": policy.bridge,
            "version": version,
            "issued": issued_ms,
            "expires": expires,
            "principals": principals,
            "grants": grants,
        }
    )


def senders(policy: Policy, queue: Queue) -> dict[str, set[str]]:
    """Who may send jobs to a queue, and of which kinds: of an agent, its schedules' and canaries alone."""
    found = {producer: set(queue.kinds) for producer in queue.producers}
    for schedule in policy.schedules.values():
        if schedule.queue == queue.name:
            found.setdefault(schedule.agent, set()).add(schedule.kind)
    for agent in policy.canary_senders(queue):
        found.setdefault(agent, set()).add(CANARY)
    return found


def sign_payload(payload: bytes, roots: Iterable[SigningKey]) -> bytes:
    """``trust.json``: the payload in a DSSE envelope, one signature per root key."""
    return dsse.encode(payload, _signatures(payload, roots))


def add_signatures(bundle: bytes, roots: Iterable[SigningKey]) -> bytes:
    """The same bundle with more signatures, so that holders of root keys may sign one after another.

    Raises:
        BadBundle: It is not a bundle.
        RepeatedSigner: One of the keys has signed it already.
    """
    payload, signatures = dsse.decode(bundle)
    added = _signatures(payload, roots)
    if {kid for kid, _ in signatures} & {kid for kid, _ in added}:
        raise RepeatedSigner("trust.json: this root key has signed it already; another holder must sign")
    return dsse.encode(payload, [*signatures, *added])


def build_roots(bridge: str, threshold: int, keys: Sequence[VerifyKey]) -> bytes:
    """``roots.json``: which root keys there are, and how many of them must sign a bundle."""
    value: strict_json.Object = {
        "version": 1,
        "bridge": bridge,
        "threshold": threshold,
        "keys": [{"kid": k.kid.hex(), "public": b64(k.public)} for k in keys],
    }
    return strict_json.dump(value) + b"\n"


def read_payload(bundle: bytes) -> strict_json.Object:
    """A bundle's payload as it stands, **not verified**: for showing and for counting the version up.

    Raises:
        BadBundle: It is not a bundle.
    """
    try:
        return strict_json.parse_object(dsse.decode(bundle)[0])
    except ValueError:
        raise BadBundle("trust.json: its payload is not a trust bundle") from None


def _signatures(payload: bytes, roots: Iterable[SigningKey]) -> list[dsse.Signature]:
    message = dsse.signed_bytes(payload)
    return [(key.kid, key.sign(message)) for key in roots]
