"""Dramatiq on Redis: one worker process of 8 threads, results in Redis; producers in threads."""

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from drive import body, numbers, with_threads

broker = RedisBroker(url=os.environ["URL"])
broker.add_middleware(Results(backend=RedisBackend(url=os.environ["URL"])))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def echo(value):
    """What it got."""
    return value


if __name__ == "__main__":
    if sys.argv[1] == "work":
        worker = dramatiq.Worker(broker, worker_threads=8)
        worker.start()
        worker.join()
        while True:
            worker.broker.join("default")
    jobs, window, size = numbers()
    value = body(size)
    with_threads(lambda: echo.send(value).get_result(block=True, timeout=60_000), jobs, window)
