# examples/submit.py, in one cloud
from producers import Producer, run


async def main() -> None:
    async with Producer.from_env() as relay:
        job = await relay.submit("thumbnails", "resize", {"width": 320, "height": 200})
        print(await job.result())


run(main())
