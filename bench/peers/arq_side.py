"""arq on Redis: one worker process, 100 jobs at once, asked for every 10 ms."""

import asyncio
import os
import sys

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker
from drive import body, numbers, with_tasks

SETTINGS = RedisSettings.from_dsn(os.environ["URL"])


async def echo(_, value):
    """What it got."""
    return value


async def produce():
    """Submit, and wait for each."""
    jobs, window, size = numbers()
    value, pool = body(size), await create_pool(SETTINGS)

    async def job():
        await (await pool.enqueue_job("echo", value)).result(timeout=60, poll_delay=0.01)

    await with_tasks(job, jobs, window)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        Worker([echo], redis_settings=SETTINGS, max_jobs=100, poll_delay=0.01, keep_result=60).run()
    else:
        asyncio.run(produce())
