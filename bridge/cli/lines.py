"""How the commands print what comes of a job: the records that it yields as they come, a line each, or its result."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from bridge.cli.out import Out, printable
from bridge.cli.results import Arrived, arrived, parsed, print_result
from bridge.errors import ConfigurationError, UsageError
from bridge.job import Content
from bridge.transfer.aside import target
from bridge.transfer.value import save
from producers import Handle


class Lines(NamedTuple):
    """Records that were printed, or written to the file named instead."""

    records: int
    file: Path | None


async def followed(
    out: Out,
    job: Handle[Any],
    file: Path | None,
    timeout: float | None,
    *,
    then: Callable[[], object] = lambda: None,
) -> Lines | Arrived:
    """Wait for a job, and print its records as they come, if its handler yields any.

    Args:
        out: Where to print.
        job: Whose.
        file: Where its records or its result go instead; it is there once all of them are.
        timeout: Seconds to wait: for each record, or for the result.
        then: Called before anything of it is shown.
    """
    count, file = 0, None if file is None else target(file)

    async def lines() -> AsyncIterator[bytes]:
        nonlocal count
        async for record in job.records(Content, timeout=timeout):
            then()
            count += 1
            yield _line(out, record, file)

    try:
        if file is not None:
            await save(lines(), file)
        else:
            async for line in lines():
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
    except UsageError as error:
        # On a queue that has no room for records there are none.
        if job.streamed is not False and not isinstance(error, ConfigurationError):
            raise
        return await arrived(job, file, timeout, shown=not out.as_json, then=then)
    return Lines(count, file)


def print_end(out: Out, token: str, end: Lines | Arrived) -> None:
    """Print a result, or how many records there were.

    Raises:
        UsageError: As `print_result`.
    """
    if isinstance(end, Arrived):
        print_result(out, token, end)
        return
    if end.file is not None:
        out.say(f"{end.records} records in {end.file}")
    about = {"token": token, "status": "succeeded", "records": end.records}
    out.result(about if end.file is None else {**about, "file": str(end.file)})


def _line(out: Out, record: Content, file: Path | None) -> bytes:
    """JSON on one line, and anything else as the bytes it is."""
    (is_json, value), shown = parsed(record), file is None and sys.stdout.isatty()
    if out.as_json and file is None:
        told = {"record": value} if is_json else {"base64": base64.b64encode(record.body).decode()}
        return json.dumps({**told, "content_type": record.content_type}).encode() + b"\n"
    if not is_json and shown:
        raise UsageError(
            f"a record is {len(record.body)} bytes of {record.content_type}; name a file with --out, or pipe it"
        )
    if not is_json:
        return record.body + b"\n"
    # Escaped where a program reads it, which gets what was sent; to be read where a person does.
    text = printable(json.dumps(value, ensure_ascii=False)) if shown else json.dumps(value)
    return text.encode() + b"\n"
