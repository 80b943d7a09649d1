"""Both clouds on this machine: the same configurations, real TLS, and a link that can be cut, delayed and choked."""

from bridge.devserver.folder import Folder
from bridge.devserver.handshake import Handshake, read_handshake
from bridge.devserver.link import Recording, Relay
from bridge.devserver.ports import Ports
from bridge.devserver.prepare import prepare
from bridge.devserver.process import PortTaken, Server, find_server
from bridge.devserver.up import Bridge, running

__all__ = [
    "Bridge",
    "Folder",
    "Handshake",
    "PortTaken",
    "Ports",
    "Recording",
    "Relay",
    "Server",
    "find_server",
    "prepare",
    "read_handshake",
    "running",
]
