"""What an examination finds: a value for each thing looked at, in the order of the checks."""

from __future__ import annotations

from dataclasses import dataclass, field

from bridge.doctor.catalogue import CATALOGUE, Check, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, or could not be.

    Args:
        check: The step it belongs to.
        about: What was looked at: an identity, a cloud, an address.
        verdict: How bad it is.
        seen: What was seen, in one line.
        trap: The name of the known trouble; empty where nothing is wrong.
        means: What it means.
        do: What to do.
    """

    check: Check
    about: str
    verdict: Verdict
    seen: str
    trap: str = ""
    means: str = ""
    do: str = ""


@dataclass(slots=True)
class Findings:
    """All findings, with the words of the catalogue put to what was seen."""

    all: list[Finding] = field(default_factory=list)

    def ok(self, check: Check, about: str, seen: str) -> None:
        """Nothing is wrong with it."""
        self.all.append(Finding(check, about, Verdict.OK, seen))

    def note(self, check: Check, about: str, seen: str) -> None:
        """Worth knowing, and nobody has to act."""
        self.all.append(Finding(check, about, Verdict.INFO, seen))

    def trap(self, name: str, about: str, seen: str) -> None:
        """A trouble of the catalogue."""
        known = CATALOGUE[name]
        self.all.append(Finding(known.check, about, known.verdict, seen, name, known.means, known.do))

    def not_run(self, check: Check, about: str, because: str) -> None:
        """It could not be looked at, which is never a pass."""
        self.all.append(Finding(check, about, Verdict.NOT_RUN, because))

    def count(self, verdict: Verdict) -> int:
        """How many have this verdict."""
        return sum(each.verdict is verdict for each in self.all)

    def sorted(self) -> list[Finding]:
        """By the order of the checks, then as found."""
        order = list(Check)
        return sorted(self.all, key=lambda each: order.index(each.check))
