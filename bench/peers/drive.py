"""What all peers are driven by: no import of ours, since each runs in an environment of its own."""

import asyncio
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor


def body(size):
    """The arguments of a job, and its result."""
    return {"data": "x" * (size - len('{"data":""}'))}


def say(jobs, seconds, times):
    """Tell `bench.peers.__main__` what a run came to."""
    print(json.dumps({"jobs": jobs, "seconds": seconds, "times": times}), flush=True)


def with_threads(job, jobs, window):
    """Do ``job`` so many times, as many at once; for those that block."""

    def timed(_):
        begun = time.perf_counter()
        job()
        return time.perf_counter() - begun

    with ThreadPoolExecutor(window) as pool:
        list(pool.map(timed, range(min(jobs, 200))))
        begun = time.perf_counter()
        times = list(pool.map(timed, range(jobs)))
    say(jobs, time.perf_counter() - begun, times)


async def with_tasks(job, jobs, window):
    """The same for coroutines."""

    async def run(count):
        times, numbers = [], iter(range(count))

        async def one_by_one():
            for _ in numbers:
                begun = time.perf_counter()
                await job()
                times.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(one_by_one() for _ in range(window)))
        return time.perf_counter() - begun, times

    await run(min(jobs, 200))
    say(jobs, *await run(jobs))


def numbers():
    """Jobs, window and bytes, from the command line."""
    return (int(each) for each in sys.argv[2:5])
