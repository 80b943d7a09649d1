"""What a type checker says of code that uses the SDK: mypy over snippets, right and wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SNIPPET = """\
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from consumers import Job, Worker
from producers import BridgeError, Handle, Kind, Producer


@dataclass
class Resize:
    width: int


@dataclass
class Size:
    width: int


RESIZE = Kind("thumbs", "resize", Resize, Size)
worker = Worker.from_env()


@worker.handler(RESIZE)
async def with_job(args: Resize, job: Job) -> Size:
    return Size(args.width)


@worker.handler(RESIZE)
def plain(args: Resize) -> Size:
    return Size(args.width)


@worker.handler("thumbs", "resize")
async def by_name(args: Resize) -> int:
    return args.width


@worker.handler(RESIZE)
async def yields(args: Resize, job: Job) -> AsyncIterator[Size]:
    for width in range(job.resume(), args.width):
        yield Size(width)


@worker.handler(RESIZE)
async def wrong_records(args: Resize) -> AsyncIterator[int]:
    yield 1


@worker.handler(RESIZE)
async def wrong_args(args: str) -> Size:
    return Size(1)


@worker.handler(RESIZE)
def wrong_result(args: Resize) -> int:
    return 1


async def main() -> None:
    async with Producer.from_env() as relay:
        reveal_type(relay)
        handle = await relay.submit(RESIZE, Resize(1))
        reveal_type(handle)
        reveal_type(await handle.result())
        reveal_type(await handle.result(bytes))
        by_names = await relay.submit("thumbs", "resize", {"width": 1})
        reveal_type(await by_names.result(Size))
        async for record in handle.records():
            reveal_type(record)
        reveal_type(await anext(handle.records(bytes)))
        many = await relay.submit_many(RESIZE, [Resize(1)])
        reveal_type(many)
        await relay.submit(RESIZE, "wrong")
        await relay.submit("thumbs", "resize")
        async with relay.inbox("thumbs") as inbox:
            async for result in inbox:
                reveal_type(result.value(Size))
    reveal_type(by_name)
"""

REVEALED = [
    '"producers.client.Producer"',
    '"producers.handle.Handle[snippet.Size]"',
    '"snippet.Size"',
    '"bytes"',
    '"snippet.Size"',
    '"snippet.Size"',
    '"bytes"',
    '"list[producers.handle.Handle[snippet.Size] | bridge.errors.BridgeError]"',
    '"snippet.Size"',
    '"def (args: snippet.Resize) -> Coroutine[Any, Any, int]"',
]


def test_the_kind_types_the_result_and_the_handler(tmp_path: Path) -> None:
    snippet = tmp_path / "snippet.py"
    snippet.write_text(SNIPPET)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(ROOT / ".mypy_cache"), str(snippet)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    lines = checked.stdout.replace("builtins.", "").replace("typing.", "").splitlines()
    assert [line.partition("Revealed type is ")[2] for line in lines if "Revealed" in line] == REVEALED
    wrong = [SNIPPET.splitlines()[int(line.split(":")[1]) - 1] for line in lines if ": error:" in line]
    assert [line.strip() for line in wrong] == [
        "@worker.handler(RESIZE)",
        "@worker.handler(RESIZE)",
        "@worker.handler(RESIZE)",
        'await relay.submit(RESIZE, "wrong")',
        'await relay.submit("thumbs", "resize")',
    ], checked.stdout
