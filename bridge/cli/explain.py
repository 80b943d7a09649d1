"""``bunny explain``: why an identity may use a subject, or what stops it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from bridge.cli.frame import AsJson, NotAsAsked, PolicyFile, example
from bridge.cli.out import Out
from bridge.cli.where import find_policy, read_policy
from bridge.errors import ConfigurationError, UsageError
from bridge.explain import Explanation, Ground, Remedy, Verb, Verdict, explain, remedies
from bridge.explain.remedies import MOST
from bridge.matching import is_subject
from bridge.policy import policy_lines
from bridge.policy.hints import nearest

LONGEST: Final = 1000
"""Characters of a subject: a server takes a control line of 4,096 bytes, with much else in it."""

_STYLES: Final = {Verdict.ALLOWED: "bold green", Verdict.PARTLY: "bold yellow", Verdict.REFUSED: "bold red"}
_EXAMPLES: Final = (
    "bunny explain relay-api publish 'jobs.thumbnails.*.relay-api.>'",
    "bunny explain bunny request '$JS.aws.API.STREAM.INFO.JOBS_thumbnails'",
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("explain", epilog=example(*_EXAMPLES))(explain_act)


def explain_act(
    identity: Annotated[str, typer.Argument(metavar="IDENTITY", help="A name of the policy.")],
    verb: Annotated[Verb, typer.Argument(help="What it would do; a request is a publish and an answer.")],
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="In quotes; with wildcards * and > or without.")],
    policy: PolicyFile = None,
    as_json: AsJson = False,
) -> None:
    """Say why an identity may publish, subscribe to or request a subject, or which wall stops it and what to change.

    From bridge.yaml alone: no server is asked, and no key is needed. Exit code 0: allowed; 1: refused, or allowed in
    part.
    """
    path = find_policy(policy)
    values = read_policy(path)
    if identity not in values.identities:
        raise typer.BadParameter(
            f"{identity[:80]!r} is not an identity of {path}; {nearest(identity, values.identities)}",
            param_hint="IDENTITY",
        )
    if identity in values.revoked:
        raise ConfigurationError(
            f"{identity}: revoked in {path}, and so refused everywhere; take it out of `revoked` first"
        )
    if len(subject) > LONGEST or not is_subject(subject):
        raise typer.BadParameter(
            f"{subject[:80]!r} is no subject; say words parted by dots, '*' for any one and a last '>' for any more",
            param_hint="SUBJECT",
        )
    found = explain(Ground(values), values.identities[identity], verb, subject)
    change = remedies(values, found)
    place = Places(path)
    out = Out(as_json)
    _print(out, found, change, place)
    out.result(_value(found, change, place))
    if found.stopped is not None:
        raise NotAsAsked(UsageError(f"{identity}: {verb} of {subject} is {found.verdict}: {found.stopped.name}"))


class Places:
    """Where the policy says something: ``bridge.yaml:31``.

    Args:
        path: The policy's file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, policy_lines(path)

    def line(self, at: tuple[str, ...]) -> int | None:
        """The line of the nearest thing that is written: what is left out stands with what it belongs to."""
        return next((self._lines[at[:n]] for n in range(len(at), 0, -1) if at[:n] in self._lines), None)

    def __call__(self, at: tuple[str, ...]) -> str:
        """The file and the line in front of what is said of it; nothing where there is none."""
        line = self.line(at)
        return f"{self._path}:{line}: " if line is not None else ""


def _print(out: Out, found: Explanation, change: tuple[Remedy, ...], place: Places) -> None:
    out.say(
        f"{found.verdict.upper()}: {found.identity.name} ({found.identity.role} in {found.identity.cloud}), "
        f"{found.verb} {found.subject}",
        _STYLES[found.verdict],
    )
    if found.checked != found.subject:
        out.say(f"checked as  {found.checked}, since it names its own cloud")
    for reason in found.reasons[:MOST]:
        out.say(f"granted by  {place(reason.origin.at)}{reason.origin.why}: {reason.subject}")
    if len(found.reasons) > MOST:
        out.say(f"            and {len(found.reasons) - MOST} more")
    if found.stopped is not None:
        out.say(f"stopped by  {found.stopped.name}, {found.stopped.where}: {found.stopped.what}")
    if found.verdict is Verdict.PARTLY and found.verb is Verb.SUBSCRIBE:
        out.say(f"servers     {'take it, and deliver what is granted' if found.taken else 'refuse it as a whole'}")
    for remedy in change:
        out.say(f"remedy      {place(remedy.at)}{remedy.text}")
    out.say()
    out.table(
        ("wall", "verdict", "where", "why"),
        [(wall.name, wall.verdict, wall.where, wall.what) for wall in found.walls],
    )


def _value(found: Explanation, change: tuple[Remedy, ...], place: Places) -> dict[str, Any]:
    walls = [{"wall": w.name, "verdict": w.verdict, "where": w.where, "why": w.what} for w in found.walls]
    stopped = next((wall for wall in walls if wall["verdict"] != Verdict.ALLOWED), None)
    return {
        "identity": found.identity.name,
        "role": found.identity.role,
        "cloud": found.identity.cloud,
        "verb": found.verb,
        "subject": found.subject,
        "checked": found.checked,
        "verdict": found.verdict,
        "servers": found.servers,
        "taken": found.taken,
        "granted": [
            {"subject": r.subject, "why": r.origin.why, "key": list(r.origin.at), "line": place.line(r.origin.at)}
            for r in found.reasons
        ],
        "walls": walls,
        "stopped": stopped,
        "remedies": [{"text": r.text, "key": list(r.at), "line": place.line(r.at)} for r in change],
    }
