"""The agent of a cloud: it watches, tells the other cloud's agents, and shows what it knows.

``look`` asks the local JetStream, ``link`` the local servers, ``report`` is what agents tell each other, ``state`` what
is known and for how long, ``samples`` and ``pages`` how it is shown, ``run`` the loop. ``schedules`` submits recurring
jobs beside it.
"""

from bridge.agent.run import Agent, watching

__all__ = ["Agent", "watching"]
