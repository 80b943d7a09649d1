"""Contexts of the stock ``nats`` CLI, one for each identity that people look around with. No I/O.

``XDG_CONFIG_HOME`` names the folder above ``nats/context``. A context holds paths and no secret: the CLI itself puts
environment variables into them, and ``BUNNY_IDENTITY`` is the one that names an identity folder everywhere else.
"""

from __future__ import annotations

import json
from typing import Final

from bridge.identity import CA_FILE, ENVIRONMENT, NATS_SEED_FILE
from bridge.policy import IdentityEntry, Policy, Role
from bridge.subjects import inbox_prefix

ROLES: Final = (Role.INSPECTOR, Role.OPERATOR, Role.SYSTEM)
"""Whose identities have a context: those of people."""

FOLDER: Final = "nats/context"
"""Where the CLI looks, below ``XDG_CONFIG_HOME``."""


def context_file(policy: Policy, identity: IdentityEntry) -> str:
    """The path of an identity's context below ``XDG_CONFIG_HOME``; its stem is the context's name."""
    return f"{FOLDER}/{policy.bridge}-{identity.name}.json"


def context_json(
    policy: Policy, identity: IdentityEntry, folder: str = f"${ENVIRONMENT}", server: str | None = None
) -> str:
    """The text of an identity's context.

    Args:
        policy: The policy.
        identity: Whose context it is.
        folder: The identity folder.
        server: Where to connect, if not where the policy says.
    """
    context = {
        "description": f"{policy.bridge}: {identity.role} of {identity.cloud}",
        "url": server or policy.clouds[identity.cloud].clients,
        "nkey": f"{folder}/{NATS_SEED_FILE}",
        "ca": f"{folder}/{CA_FILE}",
        # Not the CLI's own prefix: an inbox that others may listen to would tell them what is answered.
        "inbox_prefix": inbox_prefix(identity.name),
        "tls_first": True,
    }
    return json.dumps(context, indent=2) + "\n"
