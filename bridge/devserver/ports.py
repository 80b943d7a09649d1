"""Free ports on loopback, outside the range that the system hands to outgoing connections."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass, fields, replace
from typing import Final

from bridge.errors import ConfigurationError

# A restarted server must get its port back while others redial it. A port of the ephemeral range (from 32768 on
# Linux, 49152 elsewhere) could meanwhile be given to any outgoing connection, even to the redialling one itself.
_RANGE: Final = range(20_000, 32_000)
_TRIES: Final = 200


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one server; 0 means any free one. A leaf has no ``leafnodes``, and only a cluster ``routes``."""

    clients: int = 0
    monitor: int = 0
    leafnodes: int = 0
    routes: int = 0

    def filled(self, taken: set[int]) -> Ports:
        """These ports with every 0 replaced by a free one that is not in ``taken``, where they are added."""
        chosen = {field.name: getattr(self, field.name) or free_port(taken) for field in fields(self)}
        return replace(self, **chosen)


def free_port(taken: set[int], among: range = _RANGE) -> int:
    """A port of a range that nothing listens on now; it is added to ``taken``.

    Raises:
        ConfigurationError: None was found.
    """
    for _ in range(_TRIES):
        port = random.choice(among)  # noqa: S311 - chosen to differ from others' choices, not to be secret
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    raise ConfigurationError(f"no free port between {among.start} and {among.stop}: stop what listens there")


def is_free(port: int) -> bool:
    """Whether a server could listen on a loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
