"""A daemon that stores results, to be run as a process of its own: ``python -m tests.integration.inbox_process``.

For each result it writes a line, ``<value> <delivered>``; with ``hold`` it acks none of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

from producers import Producer


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(*, hold: bool) -> None:
    me = asyncio.current_task()
    assert me is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    held = []
    with contextlib.suppress(asyncio.CancelledError):
        async with Producer.from_env() as alpha, alpha.inbox("thumbs") as inbox:
            say("ready")
            async for result in inbox:
                say(result.value(int), result.delivered)
                if hold:
                    held.append(result)
                else:
                    await result.ack()
    say("over")


if __name__ == "__main__":
    asyncio.run(main(hold="hold" in sys.argv))
