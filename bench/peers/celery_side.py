"""Celery on Redis: one worker process, acks late, results in Redis; producers in threads."""

import os
import sys

from celery import Celery
from drive import body, numbers, with_threads

app = Celery("celery_side", broker=os.environ["URL"], backend=os.environ["URL"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=64,
    broker_transport_options={"visibility_timeout": 3600},
    result_expires=300,
    worker_hijack_root_logger=False,
)


@app.task
def echo(value):
    """What it got."""
    return value


if __name__ == "__main__":
    if sys.argv[1] == "work":
        app.worker_main(["worker", "--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle"])
    jobs, window, size = numbers()
    value = body(size)
    with_threads(lambda: echo.delay(value).get(timeout=60), jobs, window)
