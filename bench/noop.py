"""The worker that the benchmark runs: it returns what it was given."""

from __future__ import annotations

from consumers import Worker

worker = Worker.from_env(concurrency=64, prefetch=512)


@worker.handler("bench", "echo")
async def echo(args: dict[str, str]) -> dict[str, str]:
    """Nothing but the way there and back."""
    return args


if __name__ == "__main__":
    worker.main()
