"""taskiq on a Redis stream: one worker process, results in Redis, asked for every 10 ms."""

import asyncio
import os
import sys

from drive import body, numbers, with_tasks
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(os.environ["URL"]).with_result_backend(
    RedisAsyncResultBackend(os.environ["URL"], result_ex_time=300)
)


@broker.task
async def echo(value: dict) -> dict:
    """What it got."""
    return value


async def main():
    """Work, or submit and wait for each."""
    if sys.argv[1] == "work":
        broker.is_worker_process = True
        await broker.startup()
        await run_receiver_task(broker, run_startup=False, max_async_tasks=100)
    await broker.startup()
    jobs, window, size = numbers()
    value = body(size)

    async def job():
        await (await echo.kiq(value)).wait_result(check_interval=0.01, timeout=60)

    await with_tasks(job, jobs, window)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
