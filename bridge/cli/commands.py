"""Every command, in the order in which ``bunny --help`` lists them, and the module that registers it.

Modules are imported when they are asked for: a command starts without what only the others need.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Final

MODULES: Final = {
    "init": "init",
    "up": "up",
    "demo": "demo.command",
    "drill": "drill.command",
    "keys": "keys",
    "trust": "trust",
    "pki": "pki",
    "rotate": "rotate.command",
    "revoke": "revoke",
    "render": "render",
    "explain": "explain",
    "provision": "provision",
    "work": "work",
    "submit": "submit",
    "bench": "bench",
    "job": "job",
    "inbox": "inbox",
    "queue": "queue",
    "payload": "payload",
    "receipts": "receipts",
    "schedule": "schedule",
    "dead": "dead",
    "top": "top",
    "agent": "agent",
    "doctor": "doctor",
    "prove": "prove",
    "open": "unseal",
}
"""The first word of a command line, and the module below `bridge.cli` whose ``register`` adds it."""


def commands_for(arguments: Sequence[str]) -> list[Callable[[Any], None]]:
    """What registers the command that a command line begins with; every command's, if it begins with none."""
    named = MODULES.get(arguments[0]) if arguments else None
    return [importlib.import_module(f"bridge.cli.{each}").register for each in ([named] if named else MODULES.values())]
