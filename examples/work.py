"""The workers. Run it as ``BUNNY_IDENTITY=.bunny/identities/bunny bunny work examples.work:worker``."""

from dataclasses import dataclass

from consumers import Job, Worker

worker = Worker.from_env()


@dataclass
class Resize:
    """What the job asks for. Arguments that do not fit it fail for good, and are not retried."""

    width: int
    height: int


@worker.handler("thumbnails", "resize")
async def resize(args: Resize, job: Job) -> dict[str, int]:
    """The result is sealed to the producer; an exception is retried with backoff, then told to the producer."""
    return {"pixels": args.width * args.height, "attempt": job.attempt}
