"""Every key of an embedded bridge replaced in turn while jobs flow, and what came of the jobs.

Run it with ``python -m tests.rotation``: about two minutes at 200 jobs/s; ``--rate`` and ``--seconds`` for others. It
prints what was done and when, then jobs, lost, refused; exit code 0 only if none was.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bridge import observe
from bridge.devserver import Bridge, monitor, rotations, turnover
from bridge.devserver.rotations import Outcome, Told
from bridge.devserver.standing import Standing, standing
from tests.support import running_bridge
from tests.traffic import Traffic, flowing

Turn = Callable[[Standing, Told], Awaitable[Outcome]]

TURNS: dict[str, Turn] = {
    "signing keys": lambda at, told: rotations.rotate_sign(at, (), told),
    "epochs": lambda at, told: rotations.rotate_kem(at, (), told),
    "NKeys, and the link's": lambda at, told: rotations.rotate_nkey(at, (), told),
    "certificates": lambda at, told: turnover.renew_certificates(at, (), told),
    "authorities": lambda at, told: turnover.replace_authorities(at, (), told),
    "root keys": turnover.replace_roots,
}


async def main(rate: float, seconds: float) -> int:
    """Run it; the exit code."""
    observe.configure(level="error")
    with tempfile.TemporaryDirectory() as folder:
        async with running_bridge(Path(folder)) as bridge:
            began = time.monotonic()
            with standing(bridge.policy, bridge.folder) as at:
                async with flowing(bridge.identity("alpha"), bridge.identity("bunny"), rate) as traffic:
                    for name, turn in TURNS.items():
                        start = time.monotonic()
                        outcome = await turn(at, lambda _: None)
                        kept = f"; kept: {outcome.left}" if outcome.left else ""
                        sys.stdout.write(f"{start - began:6.1f} s  {name}, {time.monotonic() - start:.1f} s{kept}\n")
                    await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
                    took = time.monotonic() - began
            return await tell(bridge, traffic, took)


async def tell(bridge: Bridge, traffic: Traffic, took: float) -> int:
    """Print what came of the jobs; the exit code."""
    stored = 0
    for server in (bridge.hub, bridge.leaf):
        _, body = await monitor.get(server.monitor_port, "/jsz?accounts=1&streams=1")
        details = [stream for account in body["account_details"] for stream in account.get("stream_detail", ())]
        stored += sum(each["state"]["messages"] for each in details if each["name"].startswith(("REFUSED_", "DEAD_")))
    lost = traffic.sent - traffic.answered - len(traffic.refused)
    sys.stdout.write(
        f"{traffic.sent} jobs in {took:.0f} s ({traffic.sent / took:.0f}/s): {traffic.answered} answered, {lost} lost, "
        f"{len(traffic.refused)} submits refused, {stored} messages refused or dead; slowest {traffic.slowest:.1f} s\n"
    )
    for line in [*map(str, traffic.refused), *traffic.wrong][:10]:
        sys.stdout.write(f"  {line}\n")
    return 0 if not (lost or traffic.refused or traffic.wrong or stored) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200.0, help="jobs a second")
    parser.add_argument("--seconds", type=float, default=120.0, help="at least so long")
    options = parser.parse_args()
    raise SystemExit(asyncio.run(main(options.rate, options.seconds)))
