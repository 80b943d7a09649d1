"""The policy, `bridge.yaml`: what both teams agreed on, as typed values."""

from __future__ import annotations

from bridge.policy.load import check_policy, load_policy, policy_lines
from bridge.policy.scaffold import SCAFFOLD
from bridge.policy.values import Backoff, Cloud, IdentityEntry, Missed, Policy, Queue, Rate, Role, Schedule, TrustPolicy

__all__ = [
    "SCAFFOLD",
    "Backoff",
    "Cloud",
    "IdentityEntry",
    "Missed",
    "Policy",
    "Queue",
    "Rate",
    "Role",
    "Schedule",
    "TrustPolicy",
    "check_policy",
    "load_policy",
    "policy_lines",
]
