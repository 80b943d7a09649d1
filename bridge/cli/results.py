"""How the commands print a job's result: JSON to read, anything else as the bytes it is."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bridge.cli.out import Out, printable
from bridge.cli.progress import bar
from bridge.errors import InvalidArguments, UsageError
from bridge.job import BYTES, JSON, Content, decode
from producers import Handle


class Arrived(NamedTuple):
    """A result, and the file that it was written to instead where there is one."""

    content: Content
    length: int
    file: Path | None


async def arrived(
    job: Handle[Any], file: Path | None, timeout: float | None, *, shown: bool, then: Callable[[], object] | None = None
) -> Arrived:
    """Wait for a result, and write it to the file named (0600: what was sealed stays private).

    Args:
        job: Whose result.
        file: The file, if it is to go to one.
        timeout: Seconds to wait.
        shown: Whether to show how far it is, where it is large.
        then: Called before the first of it is shown.
    """

    def told(done: int) -> None:
        if then is not None:
            then()
        show(done)

    with bar("receiving", lambda: job.length, shown=shown) as show:
        if file is None:
            content = await job.result(Content, timeout=timeout, progress=told)
            return Arrived(content, len(content.body), None)
        await job.result(to=file, timeout=timeout, progress=told)
    return Arrived(Content(job.content_type or BYTES, b""), job.length or 0, file)


def print_result(out: Out, token: str, result: Arrived) -> None:
    """Print a result, or where it was written to.

    Raises:
        UsageError: It is no text, and would go to a terminal.
    """
    content, length, file = result
    is_json, value = parsed(content) if file is None else (False, None)
    if file is not None:
        out.say(f"{length} bytes of {content.content_type} in {file}")
    elif out.as_json:
        pass
    elif is_json:
        out.say(printable(json.dumps(value, indent=2, ensure_ascii=False)))
    elif sys.stdout.isatty():
        raise UsageError(
            f"the result is {len(content.body)} bytes of {content.content_type}; name a file with --out, or pipe it"
        )
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content.body)
        sys.stdout.buffer.flush()
    about = {"token": token, "status": "succeeded", "content_type": content.content_type, "bytes": length}
    if file is not None:
        out.result({**about, "file": str(file)})
    elif is_json:
        out.result({**about, "result": value})
    else:
        out.result({**about, "base64": base64.b64encode(content.body).decode()})


def parsed(content: Content) -> tuple[bool, Any]:
    """Whether content is the JSON that it says it is, and the value: its author may have sealed anything."""
    if content.content_type != JSON:
        return False, None
    try:
        return True, decode(content, object)
    except InvalidArguments:
        return False, None
