"""How the commands print a job's result: JSON to read, anything else as the bytes it is."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from bridge.cli.out import Out, printable
from bridge.errors import InvalidArguments, UsageError
from bridge.files import write_file
from bridge.job import JSON, Content, decode


def print_result(out: Out, token: str, content: Content, file: Path | None) -> None:
    """Print a result, or write it to a file (0600: what was sealed stays private).

    Raises:
        UsageError: It is no text, and would go to a terminal.
    """
    is_json, value = parsed(content)
    if file is not None:
        write_file(file, content.body, private=True)
        out.say(f"{len(content.body)} bytes of {content.content_type} in {file}")
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
    about = {"token": token, "status": "succeeded", "content_type": content.content_type, "bytes": len(content.body)}
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
