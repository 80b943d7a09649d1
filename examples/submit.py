"""The service with the jobs. Run it as ``BUNNY_IDENTITY=.bunny/identities/relay-api python examples/submit.py``."""

import asyncio

from producers import Producer


async def main() -> None:
    """Submit one job and print its result."""
    async with Producer.from_env() as relay:
        job = await relay.submit("thumbnails", "resize", {"width": 320, "height": 200})
        print(await job.result())  # noqa: T201  # the example's output


asyncio.run(main())
