"""`bunny payload` against a running bridge: whose parts stand, what is missing of them, and how much room is used."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

from bridge import subjects
from bridge.cli.who import connect_soon
from bridge.identity import Connection, Identity
from bridge.jetstream import JetStreamTransport
from bridge.job import JobToken
from bridge.payload import SEALED_PART, stored_length
from tests.acceptance.test_cli_jobs import APP, submit, working
from tests.acceptance.typed import TIMEOUT_S, bunny, up
from tests.support import POLICY, write_policy

LENGTH = 3 * 262_144 + 1
LARGE = POLICY.replace("kinds: [resize, probe]", "kinds: [resize, probe]\n    max_payload: 4MiB")


async def withdraw(folder: Path, token: JobToken, transfer: str, numbers: tuple[int, ...], **headers: str) -> None:
    """Put an empty message in the place of some parts, and wait until they have passed where they have a TTL."""
    stream, names = subjects.parts_stream(token.queue), [subjects.part(token.key, transfer, each) for each in numbers]
    async with connected(folder, "alpha") as alpha, connected(folder, "ops-aws") as inspector:
        for name in names:
            await alpha.publish(stream, name, b"", headers)
        async with asyncio.timeout(TIMEOUT_S):
            while headers and any([await inspector.lookup(stream, name) for name in names]):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def connected(folder: Path, name: str) -> AsyncIterator[JetStreamTransport]:
    place = folder / ".bunny/identities" / name
    async with await connect_soon(Connection.load(place), Identity.load(place).nkey_seed, place, "test") as transport:
        yield transport


def test_payloads_of_jobs_and_results_in_both_clouds(tmp_path: Path) -> None:
    write_policy(tmp_path, LARGE)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "big").write_bytes(bytes(LENGTH))
    with up("up --json", tmp_path) as running:
        running.until("version")
        token = submit(tmp_path, "probe", "--file", "big")
        listed = bunny("payload ls --json", tmp_path).json
        (job,), of = listed["transfers"], JobToken.parse(token)
        assert (job["producer"], job["session"], job["n"]) == ("alpha", of.session, str(of.n))
        assert (job["of"], job["cloud"], job["parts"], job["first"], job["last"]) == ("job", "aws", 5, 0, 4)
        assert stored_length(LENGTH) <= job["bytes_at_most"] < stored_length(LENGTH) + SEALED_PART
        rooms = {room["cloud"]: room for room in listed["rooms"]}
        assert rooms["aws"]["bytes"] > stored_length(LENGTH)
        assert rooms["azure"]["bytes"] == 0
        assert rooms["aws"]["max_bytes"] > 4 * 4 * 1024 * 1024
        parts = [
            each for each in bunny("queue show thumbs --json", tmp_path).json["streams"] if "PARTS" in each["stream"]
        ]
        assert [(each["cloud"], each["messages"]) for each in parts] == [("aws", 5), ("azure", 0)]
        shown = bunny("payload show", tmp_path, job["transfer"]).out
        for words in (r"missing +none", r"named_by +JOBS_thumbs", r"must_be +5", r"length +786,433"):
            assert re.search(words, shown), shown

        # What was half withdrawn has holes; the one at its end is told by the message that names the parts alone.
        asyncio.run(withdraw(tmp_path, of, job["transfer"], (2, 4)))
        passing = bunny("payload ls --json", tmp_path).json
        assert (passing["transfers"], passing["withdrawn"]) == ([], 1)
        asyncio.run(withdraw(tmp_path, of, job["transfer"], (2, 4), **{"Nats-TTL": "1s"}))
        (left,) = bunny("payload show --json", tmp_path, token).json["transfers"]
        assert (left["parts"], left["missing"], left["last"], left["must_be"]) == (3, ["2", "4"], 3, 5)

        whole = submit(tmp_path, "probe", "--file", "big")
        table = bunny("payload ls thumbs --limit 1", tmp_path).out
        assert JobToken.parse(whole).key.job_id in table
        assert "1 more, of fewer parts: --limit 2" in table
        with working("app:bunny", tmp_path):
            bunny("job wait --out result", tmp_path, whole)
        azure = bunny("payload show --json --identity .bunny/identities/ops-azure", tmp_path, whole).json
        (result,) = azure["transfers"]
        assert (result["of"], result["cloud"], result["parts"], result["missing"]) == ("result", "azure", 5, [])
        assert (result["named_by"], result["length"]) == ("RESULTS_thumbs", LENGTH)
        assert list(azure["unknown"]) == ["aws"]
        assert "no parts of it stand in aws, azure" in bunny("payload show", tmp_path, "0" * 32, code=1).error
        assert "did you mean 'thumbs'?" in bunny("payload ls thumb", tmp_path, code=1).error
