# One team's worker: bunny work examples.files.worker:worker
from hashlib import sha256

from consumers import Worker
from examples.files.contract import COUNT, Counts

worker = Worker.from_env()


@worker.handler(COUNT)
def count(data: bytes) -> Counts:
    return Counts(sha256(data).hexdigest(), data.count(b"\n"), len(data.split()))
