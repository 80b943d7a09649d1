"""The code that verifies what comes from outside, and the tests that hold it."""

from __future__ import annotations

from typing import Final, NamedTuple


class Held(NamedTuple):
    """The tests of one module: files or folders under ``tests/``."""

    quick: tuple[str, ...]
    slow: tuple[str, ...] = ()
    """Tried at what the quick ones let live."""


HELD: Final = {
    "bridge/packing.py": Held(("vectors/test_packed.py", "attacks/test_packing.py")),
    "bridge/replay.py": Held(("unit/test_replay_orders.py", "unit/test_replays.py")),
}
