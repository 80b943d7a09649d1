"""Two teams upgrade apart: a second checkout, of the next format version, beside this one, over real servers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.identity import CONNECTION_FILE
from bridge.jetstream import JetStreamTransport
from bridge.policy import load_policy
from tests.support import POLICY, connected, running_bridge, write_policy

HERE = Path(__file__).resolve().parents[2]

SUBMIT = """\
import asyncio, sys
from pathlib import Path
from producers import Producer

async def main() -> None:
    async with Producer.open(Path(sys.argv[1])) as relay:
        print((await relay.submit("thumbs", sys.argv[2], {"width": 1})).token, flush=True)

asyncio.run(main())
"""
WORK = """\
from consumers import Worker
worker = Worker.from_env()

@worker.handler("thumbs", "resize")
def resize(args: dict[str, int]) -> int:
    return args["width"]

worker.main()
"""


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the next release, as far as the others can tell: it writes and reads version 2 of every format."""
    folder = tmp_path_factory.mktemp("newer")
    for package in ("bridge", "producers", "consumers"):
        shutil.copytree(HERE / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    core = folder / "bridge" / "core.py"
    text = core.read_text()
    for old, new in (('{"v": 1, ', '{"v": 2, '), ("version != 1:", "version != 2:")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    core.write_text(text)
    return folder


def process(checkout: Path, code: str, *arguments: str, identity: Path) -> subprocess.Popen[str]:
    """A program that runs with the packages of one checkout."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "BUNNY_IDENTITY": str(identity)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def submit(checkout: Path, identity: Path, kind: str = "resize") -> subprocess.CompletedProcess[str]:
    """Submit one job with a checkout's SDK."""
    with process(checkout, SUBMIT, str(identity), kind, identity=identity) as submitting:
        out, err = submitting.communicate(timeout=60)
    return subprocess.CompletedProcess(submitting.args, submitting.returncode, out, err)


async def stored(ops: JetStreamTransport, stream: str) -> int:
    """How many messages a stream holds."""
    return int(json.loads(await ops.request(f"$JS.API.STREAM.INFO.{stream}", b""))["state"]["messages"])


async def test_a_job_of_a_newer_release_is_named_and_left_until_this_side_follows(tmp_path: Path, newer: Path) -> None:
    async with running_bridge(tmp_path) as bridge:
        alpha, bunny = bridge.identity("alpha"), bridge.identity("bunny")
        assert submit(newer, alpha).returncode == 0
        with process(HERE, WORK, identity=bunny) as older:
            assert older.stderr is not None
            for line in older.stderr:
                if "job_of_a_newer_version" in line:
                    break
            older.terminate()
        assert "format version 2" in line
        assert "reads version 1" in line
        async with await connected(bridge, "ops-aws") as here, await connected(bridge, "ops-azure") as there:
            assert await stored(here, "JOBS_thumbs") == 1
            assert await stored(there, "REFUSED_thumbs") == 0
            assert await stored(there, "RESULTS_thumbs") == 0


async def test_a_policy_that_is_newer_on_one_side_works_with_the_older_on_the_other(
    tmp_path: Path,
) -> None:
    (tmp_path / "old").mkdir()
    more = POLICY.replace("kinds: [resize, probe]", "kinds: [resize, probe, crop]")
    async with running_bridge(tmp_path / "old") as bridge:
        # The producers' team has rendered and delivered the next policy; the bundle and the workers' side are the old.
        write_policy(tmp_path / "old", more)
        assert load_policy(tmp_path / "old" / "bridge.yaml").queues["thumbs"].kinds == ("resize", "probe", "crop")
        place = bridge.identity("alpha") / CONNECTION_FILE
        connection = json.loads(place.read_text())
        connection["queues"]["thumbs"]["kinds"].append("crop")
        place.write_text(json.dumps(connection))
        with process(HERE, WORK, identity=bridge.identity("bunny")) as worker:
            assert submit(HERE, bridge.identity("alpha")).returncode == 0
            refused = submit(HERE, bridge.identity("alpha"), "crop")
            worker.terminate()
        assert refused.returncode != 0
        assert "NotAuthorised" in refused.stderr  # by its own bundle, before anything was sent


@pytest.mark.parametrize("name", ["connection.yaml", "identity.json"])
async def test_a_file_of_a_newer_release_is_refused_with_both_versions(tmp_path: Path, name: str) -> None:
    async with running_bridge(tmp_path) as bridge:
        alpha = bridge.identity("alpha")
        file = alpha / name
        file.write_text(json.dumps({**json.loads(file.read_text()), "version": 2, "more": True}))
        said = submit(HERE, alpha)
        assert said.returncode != 0
        assert f"{name}: format version 2, and Bunny Bridge" in said.stderr
        assert "reads version 1" in said.stderr
