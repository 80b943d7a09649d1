"""What a service that works jobs imports::

from consumers import Job, Worker

worker = Worker.from_env()


@worker.handler("thumbnails", "resize")
async def resize(args: Resize, job: Job) -> Thumbnail: ...


worker.main()
"""

import bridge

# The name is a common word: another package of that name fails here, with its path, and not somewhere inside it.
if getattr(bridge, "HOME", None) is None:
    raise ImportError(
        f"another module named 'bridge', {bridge.__file__}, hides the one of Bunny Bridge; "
        "rename it, or keep its folder off sys.path"
    )

from bridge.job import Content, Kind
from bridge.transfer import Payload
from consumers.children import WorkerProcessDied
from consumers.handlers import Job
from consumers.limits import Backoff
from consumers.verdict import Cancelled, Reject, Retry, Snooze
from consumers.worker import Worker

__all__ = [
    "Backoff",
    "Cancelled",
    "Content",
    "Job",
    "Kind",
    "Payload",
    "Reject",
    "Retry",
    "Snooze",
    "Worker",
    "WorkerProcessDied",
]
