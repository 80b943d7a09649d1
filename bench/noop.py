"""The worker that the benchmark runs: it returns what it was given, as JSON or as a model."""

from __future__ import annotations

from pydantic import BaseModel

from consumers import Worker

worker = Worker.from_env(concurrency=64, prefetch=512)


class Echo(BaseModel):
    """What goes there and back."""

    data: str


@worker.handler("bench", "echo")
async def echo(args: dict[str, str]) -> dict[str, str]:
    """Nothing but the way there and back."""
    return args


@worker.handler("bench", "model")
async def model(args: Echo) -> Echo:
    """The same, of a declared type."""
    return args


if __name__ == "__main__":
    worker.main()
