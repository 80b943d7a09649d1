"""FastStream on NATS JetStream: jobs pulled by 100, results stored in a stream; nothing sealed, one server, no TLS."""

import asyncio
import os
import secrets
import sys

import uvloop
from drive import body, numbers, with_tasks
from faststream import Context, FastStream
from faststream.nats import JStream, NatsBroker, PullSub

broker = NatsBroker(os.environ["URL"], logger=None)
JOBS = JStream("JOBS", subjects=["jobs.>"])
RESULTS = JStream("RESULTS", subjects=["results.>"])
NAME = secrets.token_hex(4)


def worker():
    """One that echoes."""

    @broker.subscriber("jobs.>", stream=JOBS, durable="pool", pull_sub=PullSub(batch_size=100))
    async def echo(value: dict, message=Context()) -> None:
        subject = message.raw_message.subject.replace("jobs.", "results.", 1)
        await broker.publish(value, subject, stream="RESULTS")

    return FastStream(broker, logger=None)


async def produce():
    """Submit, and wait for each."""
    jobs, window, size = numbers()
    value, waiting, count = body(size), {}, iter(range(10**9))

    @broker.subscriber(f"results.{NAME}.>")
    async def arrived(value: dict, message=Context()) -> None:
        waiting.pop(message.raw_message.subject).set_result(value)

    async with broker:
        await make_streams()
        await broker.start()

        async def job():
            n = next(count)
            answer = waiting[f"results.{NAME}.{n}"] = asyncio.get_running_loop().create_future()
            await broker.publish(value, f"jobs.{NAME}.{n}", stream="JOBS")
            await answer

        await with_tasks(job, jobs, window)


async def work():
    """Serve."""
    app = worker()
    await broker.connect()
    await make_streams()
    await app.run()


async def make_streams():
    """Make the streams; each side does, since either may be first."""
    stream = broker.config.connection_state.stream
    for each in (JOBS, RESULTS):
        await stream.add_stream(name=each.name, subjects=list(each.subjects))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work() if sys.argv[1] == "work" else produce())
