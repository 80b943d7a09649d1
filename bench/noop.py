"""The worker that the benchmark runs: it returns what it was given, as JSON or as a model.

``python -m bench.noop noted`` serves the queue whose jobs leave receipts in place of the other.
"""

from __future__ import annotations

import sys

from pydantic import BaseModel

from consumers import Worker

worker = Worker.from_env(concurrency=64, prefetch=512)


class Echo(BaseModel):
    """What goes there and back."""

    data: str


async def echo(args: dict[str, str]) -> dict[str, str]:
    """Nothing but the way there and back."""
    return args


async def model(args: Echo) -> Echo:
    """The same, of a declared type."""
    return args


if __name__ == "__main__":
    queue = sys.argv[1] if sys.argv[1:] else "bench"
    worker.handler(queue, "echo")(echo)
    if queue == "bench":
        worker.handler(queue, "model")(model)
    worker.main()
