"""The transport over NATS JetStream; the only importer of nats-py.

``connection`` dials and knows the state, ``exchange`` asks and matches replies, ``publish`` stores,
``pull`` keeps credit ahead at a consumer, ``transport`` puts them together.
"""

from bridge.jetstream.transport import JetStreamTransport, connect

__all__ = ["JetStreamTransport", "connect"]
