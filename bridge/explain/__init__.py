"""Why an identity may use a subject, or what stops it, and what to change. Pure: the policy in, words out.

``account`` follows a subject through the walls that the servers are, ``receiver`` is what whoever reads the message
checks, ``remedies`` looks for what would have to stand in the policy.
"""

from __future__ import annotations

from bridge.explain.account import Ground, as_checked, takes
from bridge.explain.explanation import Explanation, Verb, explain, remedies
from bridge.explain.remedies import Remedy
from bridge.explain.walls import Verdict, Wall

__all__ = [
    "Explanation",
    "Ground",
    "Remedy",
    "Verb",
    "Verdict",
    "Wall",
    "as_checked",
    "explain",
    "remedies",
    "takes",
]
