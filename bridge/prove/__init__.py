"""What the policy allows and what it does not, tried live by every identity at hand, in ways that change nothing.

``acts`` and ``crossing`` list what is tried, ``harmless`` makes the messages, ``trial`` and ``link`` send them; what is
expected is what `bridge.explain` says. ``report`` is what was found, signed.
"""

from __future__ import annotations

from bridge.prove.acts import Act, Area, Expectation
from bridge.prove.report import Statement
from bridge.prove.run import ANYONE, NOT_AT_HAND, TIMEOUT_S, Stand, Trial, prove
from bridge.prove.trial import Found, Outcome

__all__ = [
    "ANYONE",
    "NOT_AT_HAND",
    "TIMEOUT_S",
    "Act",
    "Area",
    "Expectation",
    "Found",
    "Outcome",
    "Stand",
    "Statement",
    "Trial",
    "prove",
]
