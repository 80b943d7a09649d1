"""The files beside ``accounts.conf``: the hand-written configuration, and the variables it includes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Final

from bridge.errors import ConfigurationError
from bridge.policy import Cloud, Policy
from bridge.render.conf import Value, Variable, write
from bridge.render.crossings import crossings
from bridge.render.permissions import link_permissions

DISTRIBUTION: Final = "bunny-bridge"
SYNC: Final = {"power-loss": "always", "process": "10s"}
"""``sync_interval`` of each durability: every write on disk before its PubAck, or within ten seconds.

Not each second: a server that syncs keeps what it has read of its streams for ten seconds more, and so spends half of
its time on collecting garbage while large payloads are read (ADR 0015).
"""

CROSSING_BYTES: Final = 16 * 61_440 - 64 * 1024
"""What crosses, as the hub tells it to a leaf in one line of JSON: that may be 16 times the ``max_control_line`` of
``nats/leaf.conf``, and 64 KiB are for what else it says."""

POLICY_TAG: Final = "policy:"
"""What a server's tag begins with that names the digest of its policy."""


def server_config(role: str) -> str:
    """``nats/hub.conf`` or ``nats/leaf.conf``, as shipped.

    It is read from the checkout or, for an installed package, from where its installer put shared files.

    Args:
        role: ``hub`` or ``leaf``.

    Raises:
        ConfigurationError: The installation lacks it.
    """
    name = f"{role}.conf"
    checkout = Path(__file__).parents[2] / "nats" / name
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    for file in metadata.files(DISTRIBUTION) or ():
        if file.parts[-2:] == ("nats", name):
            return Path(str(file.locate())).read_text(encoding="utf-8")
    raise ConfigurationError(f"nats/{name}: not in this installation; install {DISTRIBUTION} again")


def cluster_conf(policy: Policy, cloud: Cloud, routes: Sequence[str] = ()) -> str:
    """``cluster.conf``: the domain, the durability, and the routes of a cluster (one server has none).

    The tag is what a running server tells of the policy it was given: a reload is taken as a whole or not at all,
    so a tag that differs from the file's says the accounts differ as well.

    Args:
        policy: The policy.
        cloud: Whose servers they are.
        routes: Where they find each other, if not where the policy says.
    """
    prefix = cloud.role.upper()
    variables: dict[str, Value] = {
        f"{prefix}_DOMAIN": cloud.name,
        f"{prefix}_SYNC": SYNC[cloud.durability],
        "server_tags": [f"{POLICY_TAG}{policy.digest}"],
    }
    if cloud.routes:
        variables["cluster"] = _cluster(policy, cloud, routes or cloud.routes)
    notes = [
        f"{policy.bridge}: what the servers in {cloud.name} share. Rendered from the policy: change that instead.",
    ]
    return write(variables, notes)


def _cluster(policy: Policy, cloud: Cloud, routes: Sequence[str]) -> Value:
    """The block ``cluster``: the same for each of its servers, which know their own route and leave it out."""
    prefix = cloud.role.upper()
    return {
        "name": f"{policy.bridge}-{cloud.name}",
        "listen": Variable(f"{prefix}_ROUTES"),
        "no_advertise": True,  # clients keep to the addresses of the policy, which certificates name
        "compression": "off",
        "routes": list(routes),
        "tls": {
            "cert_file": Variable(f"{prefix}_CLUSTER_CERT"),
            "key_file": Variable(f"{prefix}_CLUSTER_KEY"),
            "ca_file": Variable(f"{prefix}_CLUSTER_CA"),
            # A route sees everything: an authority's word is not enough, the certificate must name one of the routes.
            "verify_cert_and_check_known_urls": True,
            "min_version": "1.3",
            "timeout": 5,
        },
    }


def link_conf(policy: Policy, addresses: Sequence[str] = ()) -> str:
    """``link.conf``: the addresses that the leaf dials, any one of them at a time.

    What may cross is laid down when a link is dialled, and a reload alone does not dial it again: a new queue's jobs
    would wait at the hub until somebody restarted the leaf. So each address ends in a digest of what may cross, which
    is never sent. Once it differs, the remote is another to the server, and its reload dials.

    Args:
        policy: The policy.
        addresses: Where the hub listens, if not where the policy says.

    Raises:
        ConfigurationError: It is more than the hub can tell a leaf in one line: the link would never stand.
    """
    allowed = link_permissions(policy, crossings(policy))
    said = len(json.dumps([*allowed.publish, *allowed.subscribe]).replace(">", "\\u003e"))  # as the server writes it
    if said > CROSSING_BYTES:
        raise ConfigurationError(
            f"what may cross the link takes {said} bytes, and a leaf takes {CROSSING_BYTES}; "
            "give queues, clouds or workers shorter names, or make two bridges"
        )
    crossing = sha256("\n".join((*allowed.publish, "", *allowed.subscribe)).encode()).hexdigest()[:16]
    urls = [f"{address}#{crossing}" for address in addresses or (policy.hub.leafnodes or "").split(",")]
    notes = [
        f"{policy.bridge}: the hub's leafnode listener. Rendered from the policy: change that instead.",
        "After the # is what may cross: where it changes, a SIGHUP dials again.",
    ]
    return write({"HUB_LEAF_URLS": urls}, notes)
