"""The transport in memory: both clouds in one process, for tests of what is built on Bunny Bridge.

It is made from the same plans as the servers' streams, holds to the same conformance suite as
`bridge.jetstream`, and carries the same sealed envelopes: only permissions and durability are missing. Time is
the running event loop's clock.
"""

from bridge.memory.transport import MemoryBridge, MemoryPull, MemoryTransport

__all__ = ["MemoryBridge", "MemoryPull", "MemoryTransport"]
