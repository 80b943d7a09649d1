"""A mapping of the policy, read key by key into typed values; every mistake is noted, none stops the reading.

A value that is wrong is noted and replaced by one of the right type, so that the rest is still checked; nothing of
it gets out, since a policy with a single noted mistake is never made.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from bridge.errors import PolicyError
from bridge.policy.document import Entry, Mapping, Node, Scalar, Sequence, shown
from bridge.policy.hints import a, is_url, near_name, near_url, near_whole, nearest, quoted
from bridge.policy.quantities import BadQuantity, parse_duration, parse_size, spell_duration, spell_size
from bridge.policy.values import DAY, HOUR
from bridge.subjects import is_name

NOT_BUILT: Final = frozenset(
    {
        *("alarms", "alerts", "audit", "cancel", "control"),
        *("events", "isolation", "keyed", "labels", "parts", "progress"),
        *("retention", "slo", "stats", "stream", "streaming"),
    }
)
"""Words of features that a policy may have one day: said so, instead of guessing at a typing mistake."""
ELSEWHERE: Final = {
    **dict.fromkeys(("priority", "priorities"), "a producer says it of each job, submit(…, priority=…)"),
    **dict.fromkeys(("delay", "delayed", "not_before"), "a producer says it of each job, submit(…, delay=…) or at=…"),
    **dict.fromkeys(("schedule", "cron"), "recurring jobs stand under schedules:, beside queues:"),
    "schedules": "they stand beside queues:, and each names its queue",
    "concurrency_key": "a producer says it of each job, and the queue has concurrency_per_key",
    **dict.fromkeys(("rate_limit", "rate_limits"), "a queue has rate: {jobs: 100, per: 1s}"),
    **dict.fromkeys(("agent", "agents"), "an agent is an identity with role: agent"),
    **dict.fromkeys(("metrics", "tracing"), "a service is told where it runs, by BUNNY_METRICS and BUNNY_TRACES"),
    "replay": "an operator orders it, with `bunny dead replay`",
    "receipt": "a queue has receipts: on",
    "replicas": "a cloud with servers: 3 keeps every stream three times",
}
"""Words of features that there are, and where they are asked for."""

_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9_]{0,17})")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15})")


class Problems:
    """The mistakes found so far in one file."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.found: list[PolicyError] = []

    def error(self, line: int, problem: str, remedy: str = "") -> PolicyError:
        """Make the error of a line."""
        return PolicyError(self._file, line, problem, remedy)

    def note(self, line: int, problem: str, remedy: str = "") -> None:
        """Remember a mistake and go on."""
        self.found.append(self.error(line, problem, remedy))


class Section:
    """One mapping of the policy.

    Args:
        problems: Where mistakes are noted.
        where: What the section is, as an error names it.
        line: Where it starts.
        node: What stands there.
        known: Its keys; each is read by exactly one call.
    """

    def __init__(self, problems: Problems, where: str, line: int, node: Node, known: Iterable[str]) -> None:
        self.where, self.line = where, line
        self._problems = problems
        self._entries: dict[str, Entry] = {}
        self._before = len(problems.found)
        self._whole = isinstance(node, Mapping)
        if isinstance(node, Mapping):
            self._entries = node.entries
            self._refuse_unknown(sorted(known))
        else:
            self.note(line, f"{where} is {a(node)} and wants keys with values", "write its keys below it")

    @property
    def sound(self) -> bool:
        """Whether nothing in the section was wrong so far: only then is it worth comparing its values."""
        return len(self._problems.found) == self._before

    @property
    def mistakes(self) -> int:
        """How many mistakes the whole file has so far."""
        return len(self._problems.found)

    def note(self, line: int, problem: str, remedy: str = "") -> None:
        """Note a mistake."""
        self._problems.note(line, problem, remedy)

    def has(self, key: str) -> bool:
        """Whether the key is written."""
        return key in self._entries

    def line_of(self, key: str) -> int:
        """The key's line, or the section's if the key is not written."""
        return self._entries[key].key.line if key in self._entries else self.line

    def node(self, key: str, remedy: str) -> Node | None:
        """What stands at a key that must be there."""
        if key in self._entries:
            return self._entries[key].node
        if self._whole:  # else it has been said already
            self.note(self.line, f"{self.where} has no {key!r}", remedy)
        return None

    def word(self, key: str) -> str:
        """The text at a key, whatever it is; "" if there is none."""
        node = self._entries[key].node if key in self._entries else None
        return node.text if isinstance(node, Scalar) else ""

    # --- plain values ------------------------------------------------------------------------------

    def text(self, key: str, remedy: str, default: str | None = None) -> str:
        """Text that YAML takes for text, or ""."""
        scalar = self._scalar(key, default, remedy)
        if scalar is None:
            return default or ""
        if scalar.kind != "text":
            self.note(scalar.line, f"{key}: YAML takes {shown(scalar.text)} for {a(scalar)}", quoted(scalar))
            return ""
        if not scalar.text:
            self.note(scalar.line, f"{key} is empty", remedy)
        return scalar.text

    def choice(self, key: str, options: Iterable[str], default: str | None = None) -> str:
        """One of a few words; "" if it is none of them."""
        options = [str(option) for option in options]
        listed = " or ".join(options)
        node = self._entries[key].node if key in self._entries else None
        if isinstance(node, Scalar) and node.kind == "yes/no" and node.text in options:
            return node.text  # `off`, where it is one of the words
        text = self.text(key, f"add {key}: {listed}", default)
        if text and text not in options:
            self.note(self.line_of(key), f"{key}: {shown(text)} is unknown", nearest(text, options))
            return ""
        return text

    def name(self, key: str, remedy: str) -> str:
        """A name that NATS can carry, or ""."""
        text = self.text(key, remedy)
        return text if text and self.carries(self.line_of(key), key, text) else ""

    def texts(self, key: str, remedy: str) -> dict[str, int]:
        """A list of different words, each with its line; empty if there is none that is right."""
        node = self.node(key, remedy)
        if node is None:
            return {}
        if not isinstance(node, Sequence) or not node.items:
            self.note(self.line_of(key), f"{key} is {a(node)} and wants a list of names", f"write {key}: [name]")
            return {}
        seen: dict[str, int] = {}
        for item in node.items:
            if not isinstance(item, Scalar) or item.kind != "text":
                self.note(item.line, f"{key} holds {a(item)}, not a name", quoted(item))
            elif item.text in seen:
                self.note(item.line, f"{key} has {shown(item.text)} twice", "keep one")
            else:
                seen[item.text] = item.line
        return seen

    def url(self, key: str, port: int, remedy: str) -> str:
        """An address ``tls://host:port``, or ""."""
        text = self.text(key, remedy)
        if text and not is_url(text):
            self.note(self.line_of(key), f"{key}: {shown(text)} is not tls://host:port", near_url(text, port))
            return ""
        return text

    def urls(self, key: str, port: int, most: int, remedy: str) -> tuple[str, ...]:
        """One address ``tls://host:port``, or a list of up to ``most`` different ones; empty if any is wrong."""
        node = self._entries[key].node if key in self._entries else None
        if not isinstance(node, Sequence):
            url = self.url(key, port, remedy)
            return (url,) if url else ()
        mistakes = self.mistakes
        found = self.texts(key, remedy)
        for text, line in found.items():
            if not is_url(text):
                self.note(line, f"{key}: {shown(text)} is not tls://host:port", near_url(text, port))
        if len(found) > most:
            servers = "1 server" if most == 1 else f"{most} servers"
            self.note(self.line_of(key), f"{key} has {len(found)} addresses for {servers}", "keep one for each server")
        return tuple(found) if self.mistakes == mistakes else ()

    def whole(self, key: str, default: int | None, least: int, most: int) -> int:
        """A whole number within limits."""
        scalar = self._scalar(key, default, f"add {key}: {least}")
        if scalar is None:
            return least if default is None else default
        line = scalar.line
        if scalar.kind != "whole number" or not _WHOLE.fullmatch(scalar.text):
            self.note(line, f"{key}: {shown(scalar.text)} is not a whole number", near_whole(scalar.text, least, most))
            return least
        return self._within(line, key, int(scalar.text.replace("_", "")), least, most, str)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """A finite number within limits."""
        scalar = self._scalar(key, default, "")
        if scalar is None:
            return default
        line = scalar.line
        plain = scalar.kind in ("whole number", "number") and _NUMBER.fullmatch(scalar.text)
        if not plain or not math.isfinite(float(scalar.text)):
            self.note(line, f"{key}: {shown(scalar.text)} is not a number", f"say one from {least:g} to {most:g}")
            return default
        number = float(scalar.text)
        if not least <= number <= most:
            self.note(line, f"{key}: {shown(scalar.text)} is out of range", f"say one from {least:g} to {most:g}")
            return default
        return number

    def duration(self, key: str, default: int, least: int, most: int) -> int:
        """A duration in milliseconds, within limits."""
        scalar = self._scalar(key, default, "")
        if scalar is None:
            return default
        try:
            usual = "d" if default > 2 * DAY else "h" if default >= HOUR else "s"
            milliseconds = parse_duration(scalar.text, usual)
        except BadQuantity as wrong:
            self.note(scalar.line, f"{key}: {shown(scalar.text)} {wrong.problem}", wrong.remedy)
            return default
        return self._within(scalar.line, key, milliseconds, least, most, spell_duration)

    def size(self, key: str, default: int, least: int, most: int, why: str = "") -> int:
        """A size in bytes, within limits."""
        scalar = self._scalar(key, default, "")
        if scalar is None:
            return default
        try:
            size = parse_size(scalar.text)
        except BadQuantity as wrong:
            self.note(scalar.line, f"{key}: {shown(scalar.text)} {wrong.problem}", wrong.remedy)
            return default
        return self._within(scalar.line, key, size, least, most, spell_size, why)

    # --- sections within ---------------------------------------------------------------------------

    def section(self, key: str, known: Iterable[str]) -> Section | None:
        """The section at a key that may be left out."""
        if key not in self._entries:
            return None
        entry = self._entries[key]
        return Section(self._problems, key, entry.key.line, entry.node, known)

    def named(self, key: str, what: str, known: Iterable[str], remedy: str) -> Iterator[tuple[str, Section]]:
        """The sections of a mapping whose keys are names: ``("relay-api", <its section>)``."""
        node = self.node(key, remedy)
        if node is None:
            return
        if not isinstance(node, Mapping) or not node.entries:
            self.note(self.line_of(key), f"{key} is {a(node)} and wants names with their keys", remedy)
            return
        for name, entry in node.entries.items():
            line = entry.key.line
            if entry.key.kind != "text":
                problem = f"YAML takes the name {shown(name)} for {a(entry.key)}"
                self.note(line, problem, quoted(entry.key))
            else:
                self.carries(line, what, name)
            # Given out even so: what names it is right about that.
            yield name, Section(self._problems, f"{what} {shown(name)}", line, entry.node, known)

    # --- what is behind them -----------------------------------------------------------------------

    def carries(self, line: int, what: str, name: str) -> bool:
        """Whether NATS can carry a name; noted if not."""
        if is_name(name):
            return True
        rule = "a name is 1 to 63 of a-z, 0-9, - and _, and neither starts nor ends with - or _"
        self.note(line, f"NATS cannot carry {shown(name)} as {what}: {rule}", near_name(name))
        return False

    def _refuse_unknown(self, known: list[str]) -> None:
        for key, entry in self._entries.items():
            line = entry.key.line
            if key in known:
                continue
            if key in NOT_BUILT:
                self.note(line, f"{key!r} in {self.where} is not built yet", "remove it")
            elif key in ELSEWHERE:
                self.note(line, f"{key!r} is nothing that {self.where} has", f"remove it: {ELSEWHERE[key]}")
            else:
                self.note(line, f"unknown key {shown(key)} in {self.where}", nearest(key, known))

    def _scalar(self, key: str, default: object, remedy: str) -> Scalar | None:
        if default is not None and key not in self._entries:
            return None
        node = self.node(key, remedy)
        if node is None:
            return None
        if not isinstance(node, Scalar) or node.kind == "nothing":
            self.note(
                self.line_of(key), f"{key} is {a(node)} and wants a value", remedy or "write one, or remove the key"
            )
            return None
        return node

    def _within(
        self, line: int, key: str, number: int, least: int, most: int, spell: Callable[[int], str], why: str = ""
    ) -> int:
        if least <= number <= most:
            return number
        if number < least:
            self.note(line, f"{key}: {spell(number)} is too little", f"say at least {spell(least)}")
            return least
        self.note(
            line, f"{key}: {spell(number)} is too much" + (f": {why}" if why else ""), f"say at most {spell(most)}"
        )
        return most
