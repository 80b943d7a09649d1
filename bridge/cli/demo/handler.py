"""The demo's worker: ``bunny work bridge.cli.demo.handler:worker``."""

from bridge.cli.demo.files import COUNT, Counts, count
from consumers import Worker

worker = Worker.from_env()


@worker.handler(COUNT)
def count_file(data: bytes) -> Counts:
    """Counts what is in one file; it computes, so it is a plain function and runs in a thread."""
    return count(data)
