"""A provisioner that turns what it may make into what it may not do."""

from __future__ import annotations

from pathlib import Path

from bridge.devserver import monitor
from tests.integration.plain import Plain, plain
from tests.support import running_bridge

SESSION = "feedfacefeedfacefeedface"


async def streams(of: Plain) -> set[str]:
    return set((await of.api("STREAM.NAMES"))["streams"])


async def test_what_it_makes_acts_in_the_account_of_its_cloud_and_no_further(tmp_path: Path) -> None:
    """A republish without payload is a call of the API. `docs/threats.md` says so: a provisioner can destroy its side.

    What must hold is that the other cloud hears nothing of it.
    """
    async with (
        running_bridge(tmp_path) as bridge,
        plain(bridge, "prov-aws") as me,
        plain(bridge, "prov-azure") as there,
        plain(bridge, "alpha") as alpha,
    ):
        before, config = await streams(there), (await me.api("STREAM.INFO.JOBS_thumbs"))["config"]
        calls = [
            *(f"$JS.azure.API.STREAM.{call}.RESULTS_thumbs" for call in ("DELETE", "PURGE")),
            "$JS.azure.API.CONSUMER.DELETE.RESULTS_thumbs.home",
            "results.lookup.gamma.{{wildcard(2)}}.{{wildcard(3)}}.0",
            "$JS.API.STREAM.DELETE.RESULTS_thumbs",  # of its own cloud, so the last: it shows when the others are over
        ]
        for n, call in enumerate(calls, 1):
            republish = {"src": "jobs.thumbs.*.*.*.*", "dest": call, "headers_only": True}
            await me.api("STREAM.UPDATE.JOBS_thumbs", config | {"republish": republish})
            await alpha.ask(f"jobs.thumbs.normal.alpha.{SESSION}.{n}", b"x")

        async def gone() -> bool:
            return "RESULTS_thumbs" not in await streams(me)

        await monitor.until(gone, 10, "its own stream to be deleted")
        assert await streams(there) == before
        assert (await there.api("STREAM.INFO.RESULTS_thumbs"))["state"]["consumer_count"] == 1
        assert (await there.api("STREAM.INFO.RESULTS_thumbs"))["state"]["messages"] == 0
