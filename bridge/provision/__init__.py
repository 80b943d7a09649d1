"""Make servers match the rendered plan: idempotent, and refusing whatever would destroy data."""

from bridge.provision.apply import Change, Outcome, Report, Requester, load_plan, provision
from bridge.provision.difference import MONITOR, Difference

__all__ = ["MONITOR", "Change", "Difference", "Outcome", "Report", "Requester", "load_plan", "provision"]
