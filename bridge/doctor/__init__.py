"""Finds out why a bridge does not work, or soon will not: what was seen, what it means, what to do.

``examine`` runs the checks in order at a `Site`, which is what happens to be at hand: in a pod an identity folder, on
an operator's machine the policy, what it renders to and certificates as well. ``catalogue`` has every trouble known by
name; ``dns``, ``dial`` and ``session`` look at one connection step by step. Nothing is changed and nothing stored.
"""

from bridge.doctor.catalogue import CATALOGUE, Check, Verdict
from bridge.doctor.dns import Resolver
from bridge.doctor.examine import examine
from bridge.doctor.finding import Finding, Findings
from bridge.doctor.site import TIMEOUT_S, Site

__all__ = ["CATALOGUE", "TIMEOUT_S", "Check", "Finding", "Findings", "Resolver", "Site", "Verdict", "examine"]
