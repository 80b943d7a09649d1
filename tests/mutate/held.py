"""The code that verifies what comes from outside, and the tests that hold it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Held(NamedTuple):
    """The tests of one module: files or folders under ``tests/``."""

    quick: tuple[str, ...]
    """Seconds, all together."""
    slow: tuple[str, ...] = ()
    """Tried at what the quick ones let live."""


_CORE: Final = Held(("unit/test_cores.py", "unit/test_stems.py", "unit/test_envelope.py"))

HELD: Final = {
    "bridge/bundle.py": Held(("unit/test_bundle.py", "unit/test_trust.py", "unit/test_revoked_policy.py")),
    "bridge/core.py": _CORE,
    "bridge/corefields.py": _CORE,
    "bridge/crypto.py": Held(("unit/test_crypto.py", "vectors/test_published.py", "unit/test_envelope.py")),
    "bridge/dsse.py": Held(("unit/test_bundle.py", "unit/test_trust.py"), ("vectors/test_own.py",)),
    "bridge/envelope.py": Held(
        ("unit/test_sealers.py", "unit/test_envelope.py", "attacks/test_sealed.py"),
        ("unit/test_replay_orders.py",),
    ),
    "bridge/fence.py": Held(("unit/test_fence.py", "unit/test_keyed.py")),
    "bridge/frame.py": Held(
        ("unit/test_envelope.py", "attacks/test_sealed.py"), ("attacks/test_envelope.py", "vectors/test_own.py")
    ),
    "bridge/packing.py": Held(("vectors/test_packed.py", "attacks/test_packing.py")),
    "bridge/payload.py": Held(("unit/test_parts.py", "vectors/test_payloads.py")),
    "bridge/prelude.py": Held(("unit/test_prelude.py", "vectors/test_packed.py")),
    "bridge/replay.py": Held(("unit/test_replay_orders.py", "unit/test_replays.py")),
    "bridge/segments.py": Held(("unit/test_chains.py", "vectors/test_segments.py")),
    "bridge/stems.py": _CORE,
    "bridge/strict_json.py": Held(
        ("unit/test_strict_json.py", "unit/test_trust.py"), ("attacks/test_sealed.py", "vectors/test_own.py")
    ),
    "bridge/trust.py": Held(("unit/test_trust.py", "unit/test_trust_fields.py")),
    "consumers/verdict.py": Held(("unit/test_verdicts.py",)),
    "producers/arrivals.py": Held(("unit/test_arrivals.py",)),
}
