"""Both clouds for the tests of your own services, in one line: in memory, as processes, or as containers.

All three are used in the same way (`Rig`), so that a test can move from one to the next. ``docs/testing.md`` shows how.
"""

from __future__ import annotations

from bridge.testing.container import ServerContainer
from bridge.testing.containers import ContainersRig, containers_bridge
from bridge.testing.embedded import EmbeddedRig, embedded_bridge
from bridge.testing.memory import MemoryRig, memory_bridge
from bridge.testing.rig import Party, Rig

__all__ = [
    "ContainersRig",
    "EmbeddedRig",
    "MemoryRig",
    "Party",
    "Rig",
    "ServerContainer",
    "containers_bridge",
    "embedded_bridge",
    "memory_bridge",
]
