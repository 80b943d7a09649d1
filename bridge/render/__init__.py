"""Policy in, files out: servers, accounts, streams and connections. Pure and deterministic; public keys only."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.identity import PublicIdentity
from bridge.policy import Policy, Role
from bridge.render.accounts import accounts_conf
from bridge.render.connections import connection_yaml
from bridge.render.contexts import ROLES, context_file, context_json
from bridge.render.servers import DISTRIBUTION, cluster_conf, link_conf, server_config
from bridge.render.streams import plan_json

__all__ = ["DISTRIBUTION", "render", "server_config"]


def render(policy: Policy, keys: Mapping[str, PublicIdentity]) -> dict[str, str]:
    """Every file that follows from a policy: its path under the output folder, and its text.

    Args:
        policy: The policy.
        keys: The public halves of all its identities that are not revoked, by name (`bridge.identity.load_keys`).
    """
    files: dict[str, str] = {}
    for cloud in sorted(policy.clouds.values(), key=lambda c: c.name):
        files[f"{cloud.name}/{cloud.role}.conf"] = server_config(cloud.role)
        files[f"{cloud.name}/accounts.conf"] = accounts_conf(policy, keys, cloud)
        files[f"{cloud.name}/cluster.conf"] = cluster_conf(policy, cloud)
        if cloud.role == "leaf":
            files[f"{cloud.name}/link.conf"] = link_conf(policy)
        files[f"{cloud.name}/plan.json"] = plan_json(policy, cloud.name)
    for name, identity in sorted(policy.accepted.items()):
        if identity.role is not Role.LINK:
            files[f"{identity.cloud}/connections/{name}.yaml"] = connection_yaml(policy, identity)
        if identity.role in ROLES:
            files[f"{identity.cloud}/{context_file(policy, identity)}"] = context_json(policy, identity)
    return files
