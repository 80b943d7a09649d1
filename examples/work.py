# examples/work.py, in the other
from dataclasses import dataclass

from consumers import Job, Worker

worker = Worker.from_env()


@dataclass
class Resize:
    width: int
    height: int


@worker.handler("thumbnails", "resize")
async def resize(args: Resize, job: Job) -> dict[str, int]:
    return {"pixels": args.width * args.height, "attempt": job.attempt}
