# examples/submit.py, in one cloud
import asyncio

from producers import Producer


async def main() -> None:
    async with Producer.from_env() as relay:
        job = await relay.submit("thumbnails", "resize", {"width": 320, "height": 200})
        print(await job.result())


asyncio.run(main())
