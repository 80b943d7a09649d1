"""What a service that submits jobs imports::

from producers import Producer

async with Producer.from_env() as relay:
    job = await relay.submit("thumbnails", "resize", Resize(width=320), deadline=60)
    thumbnail = await job.result(Thumbnail)
"""

import bridge

# The name is a common word: another package of that name fails here, with its path, and not somewhere inside it.
if getattr(bridge, "HOME", None) is None:
    raise ImportError(
        f"another module named 'bridge', {bridge.__file__}, hides the one of Bunny Bridge; "
        "rename it, or keep its folder off sys.path"
    )

from bridge.errors import (
    BridgeError,
    DeadlineExceeded,
    FencePoisoned,
    JobCancelled,
    JobFailed,
    KeyConflict,
    OutcomeUnknown,
    StreamRestarted,
)
from bridge.job import Content, JobToken, Kind, Status
from bridge.transfer import Payload
from producers.client import Producer
from producers.events import Progress
from producers.handle import Handle
from producers.inbox import Inbox, Result
from producers.process import run
from producers.records import Records

__all__ = [
    "BridgeError",
    "Content",
    "DeadlineExceeded",
    "FencePoisoned",
    "Handle",
    "Inbox",
    "JobCancelled",
    "JobFailed",
    "JobToken",
    "KeyConflict",
    "Kind",
    "OutcomeUnknown",
    "Payload",
    "Producer",
    "Progress",
    "Records",
    "Result",
    "Status",
    "StreamRestarted",
    "run",
]
