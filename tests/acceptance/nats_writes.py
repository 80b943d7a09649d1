"""One attempt for each command with which the ``nats`` CLI could change something, and for some that say they do not.

The CLI itself tells which commands write (its model tags them ``impact:rw``), so one that a later version adds and
nobody tried shows up in `test_nats_cli`.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.nats_cli import binary

STREAM: Final = {"aws": "JOBS_thumbnails", "azure": "RESULTS_thumbnails"}
CONSUMER: Final = {"aws": "bunny-normal", "azure": "home"}
SUBJECT: Final = {
    "aws": "jobs.thumbnails.normal.relay-api.feedfacefeedfacefeedface.1",
    "azure": "results.thumbnails.relay-api.feedfacefeedfacefeedface.1.0",
}

INSPECTOR: Final[dict[str, str]] = {
    "stream add": "MINE --subjects mine.> --defaults",
    "stream edit": "{stream} --description mine --force",
    "stream rm": "{stream} --force",
    "stream purge": "{stream} --force",
    "stream copy": "{stream} MINE --subjects mine.>",
    "stream rmm": "{stream} 1 --force",
    "stream seal": "{stream} --force",
    "stream backup": "{stream} {folder}/backup --no-progress",
    "stream restore": "{archive} --no-progress",
    "stream view": "{stream}",
    "stream cluster step-down": "{stream} --force",
    "stream cluster balance": "",
    "stream cluster cancel-move": "{stream} --force",
    "stream cluster peer-remove": "{stream} acme-{cloud} --force",
    "stream cluster evacuate": "{stream} acme-{cloud} --force",
    "consumer add": "{stream} mine --pull --defaults",
    "consumer edit": "{stream} {consumer} --description mine --force",
    "consumer rm": "{stream} {consumer} --force",
    "consumer reset": "{stream} {consumer} --force",
    "consumer copy": "{stream} {consumer} mine",
    "consumer next": "{stream} {consumer} --count 1",
    "consumer sub": "{stream} {consumer}",
    "consumer pause": "{stream} {consumer} 1h --force",
    "consumer unpin": "{stream} {consumer} group --force",
    "consumer resume": "{stream} {consumer} --force",
    "consumer cluster step-down": "{stream} {consumer} --force",
    "consumer cluster balance": "{stream}",
    "consumer cluster evacuate": "{stream} {consumer} acme-{cloud} --force",
    "counter increment": "{subject} 1",
    "counter decrement": "{subject} 1",
    "kv add": "mine",
    "kv edit": "mine --description mine",
    "kv put": "mine key value",
    "kv create": "mine key value",
    "kv update": "mine key value 1",
    "kv del": "mine --force",
    "kv purge": "mine key --force",
    "kv revert": "mine key 1 --force",
    "kv compact": "mine --force",
    "object add": "mine",
    "object edit": "mine --description mine",
    "object put": "mine {folder}/file --no-progress --force",
    "object del": "mine --force",
    "object seal": "mine --force",
    "publish": "{subject} mine",
    "request": "{subject} mine",
    "reply": "{subject} mine --count 1",
    "subscribe": "{subject} --count 1",
    "trace": "{subject} mine --deliver",
    "service ping": "",
    "service request": "mine mine mine",
    "server check request": "--subject {subject} --payload mine",
    "account backup": "{folder}/account --force",
    "account restore": "{archives}",
    "backup stream": "{stream} {folder}/again --no-progress",
    "backup account": "{folder}/accounts --force",
    "backup restore stream": "{archive} --no-progress",
    "backup restore account": "{archives}",
    "bench pub": "{subject} --msgs 1",
    "bench sub": "{subject} --msgs 1",
    "bench js pub sync": "{subject} --stream {stream} --msgs 1",
    "bench js pub async": "{subject} --stream {stream} --msgs 1 --purge",
    "bench js pub atomic": "{subject} --stream MINE --create --msgs 1",
    "bench js pub fast": "{subject} --stream {stream} --msgs 1",
    "bench js ordered": "--stream {stream} --msgs 1",
    "bench js consume": "--stream {stream} --consumer {consumer} --msgs 1",
    "bench js fetch": "--stream {stream} --consumer {consumer} --msgs 1",
    "bench js get sync": "--stream {stream} --msgs 1",
    "bench js get batch": "--stream {stream} --msgs 1",
    "bench kv put": "--bucket mine --msgs 1",
    "bench kv get": "--bucket mine --msgs 1",
    "bench oldjs ordered": "{subject} --stream {stream} --msgs 1",
    "bench oldjs push": "{subject} --stream {stream} --consumer mine --msgs 1",
    "bench oldjs pull": "{subject} --stream {stream} --consumer mine --msgs 1",
    "bench service request": "{subject} --msgs 1",
    "bench service serve": "{subject} --msgs 1",
    "publish --jetstream": "{subject} mine",
    "request --raw": "$JS.API.STREAM.DELETE.{stream} mine",
}
"""Commands of a user of the streams, as an inspector types them; ``{…}`` is filled in by `attempts`."""

SYSTEM: Final[dict[str, str]] = {
    "server account purge": "RELAY --force",
    "server cluster balance": "1s --force",
    "server cluster evacuate": "acme-{cloud} --force",
    "server cluster step-down": "--force",
    "server cluster peer-remove": "acme-{cloud} --force",
    "server cluster rescue": "",
    "server config reload": "{id} --force",
    "server request kick": "{cid} {id}",
    "server request profile": "heap {folder}",
    "request --raw": "$SYS.REQ.SERVER.{id}.LDM mine",
    "publish": "$SYS.REQ.SERVER.{id}.RELOAD mine",
}
"""Commands of whoever runs the servers, as a system identity types them."""

LOCAL: Final[dict[str, str]] = {
    "rtt": "it measures the connection, and sends nothing",
    "latency": "it publishes between two connections of its own, on a random subject",
    "server check exporter": "it serves the results of checks, on a port of the operator's machine",
}
"""Tagged as writing, and they ask nothing of a bridge but what reading commands do."""


QUIET: Final = ("bench pub", "bench js get", "server cluster balance", "reply", "subscribe")
"""They send and do not listen, or only read, and so say nothing of a refusal. That nothing changed must be enough."""


def attempts(table: dict[str, str], cloud: str, values: dict[str, str]) -> Iterator[list[str]]:
    """The command lines of a table."""
    known = {"cloud": cloud, "stream": STREAM[cloud], "consumer": CONSUMER[cloud], "subject": SUBJECT[cloud], **values}
    for command, rest in table.items():
        yield [*command.split(), *rest.format(**known).split()]


def writing() -> set[str]:
    """Every command that the CLI says may write, but for ``auth``: that is a store of keys on the operator's disk."""
    model = json.loads(subprocess.check_output([binary(), "--fisk-introspect"], timeout=30))
    return {name for name in _writing(model, "", False) if not name.startswith("auth ")}


def _writing(node: dict[str, Any], above: str, inherited: bool) -> Iterator[str]:
    for command in node.get("commands") or ():
        name = f"{above} {command['name']}".strip()
        writes = inherited or "impact:rw" in (command.get("tags") or ())
        if command.get("commands"):
            yield from _writing(command, name, writes)
        elif writes:
            yield name


def prepare(folder: Path) -> dict[str, str]:
    """Files for the commands that read one: a message, and an archive as ``stream backup`` makes it."""
    (folder / "file").write_text("mine")
    archives = folder / "archives"
    config = {"name": "MINE", "subjects": ["mine.>"], "storage": "file", "retention": "limits", "max_consumers": -1}
    state = {"messages": 0, "bytes": 0, "first_seq": 0, "last_seq": 0, "consumer_count": 0}
    archive = archives / "MINE"
    archive.mkdir(parents=True)
    (archive / "backup.json").write_text(json.dumps({"config": config, "state": state}))
    (archive / "stream.tar.s2").write_bytes(b"")
    return {"folder": str(folder), "archive": str(archive), "archives": str(archives)}
