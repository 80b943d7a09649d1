"""How the commands print a job's result: JSON to read, anything else as the bytes it is."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from bridge.cli.out import Out, printable
from bridge.errors import UsageError
from bridge.files import write_file
from bridge.job import JSON, Content


def print_result(out: Out, token: str, content: Content, file: Path | None) -> None:
    """Print a result, or write it to a file (0600: what was sealed stays private).

    Raises:
        UsageError: It is no text, and would go to a terminal.
    """
    value = json.loads(content.body) if content.content_type == JSON else None
    if file is not None:
        write_file(file, content.body, private=True)
        out.say(f"{len(content.body)} bytes of {content.content_type} in {file}")
    elif out.as_json:
        pass
    elif content.content_type == JSON:
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
    elif content.content_type == JSON:
        out.result({**about, "result": value})
    else:
        out.result({**about, "base64": base64.b64encode(content.body).decode()})
