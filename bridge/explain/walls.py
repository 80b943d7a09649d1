"""The walls that a subject must pass, one after another, and how each judges it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bridge.matching import covers, overlaps

USER: Final = "user permission"
ACCOUNT: Final = "account"
EXPORT: Final = "export"
LINK: Final = "link"
OWNER: Final = "owner's export"
TRUST: Final = "trust bundle"
REPLY: Final = "reply"


class Verdict(StrEnum):
    """What becomes of an act."""

    ALLOWED = "allowed"
    PARTLY = "partly allowed"
    """Of a subject with wildcards: some of what it stands for."""
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Wall:
    """One wall: where it stands, and what it says."""

    name: str
    where: str
    """``accounts.conf of aws, user of relay-api``."""
    verdict: Verdict
    what: str
    """Why, in words."""


def judge(allowed: Iterable[str], subject: str) -> Verdict:
    """What a list of allowed subjects makes of one."""
    allowed = list(allowed)
    if any(covers(each, subject) for each in allowed):
        return Verdict.ALLOWED
    return Verdict.PARTLY if any(overlaps(each, subject) for each in allowed) else Verdict.REFUSED


def worst(walls: Iterable[Wall]) -> Verdict:
    """What becomes of a subject that must pass all of them."""
    verdicts = {wall.verdict for wall in walls}
    return next((each for each in (Verdict.REFUSED, Verdict.PARTLY) if each in verdicts), Verdict.ALLOWED)
