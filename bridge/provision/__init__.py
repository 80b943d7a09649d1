"""Make servers match the rendered plan: idempotent, and refusing whatever would destroy data."""

from bridge.provision.apply import Change, Comparison, Outcome, Report, compare, load_plan, provision
from bridge.provision.calls import Requester
from bridge.provision.difference import MONITOR, Difference

__all__ = [
    "MONITOR",
    "Change",
    "Comparison",
    "Difference",
    "Outcome",
    "Report",
    "Requester",
    "compare",
    "load_plan",
    "provision",
]
