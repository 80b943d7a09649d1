"""Records in the shell: a line each, as they come."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.acceptance.test_cli_jobs import working
from tests.acceptance.typed import TIMEOUT_S, bunny, environment, up
from tests.support import POLICY, write_policy

APP = """\
import asyncio
from pathlib import Path
from typing import Any, AsyncIterator

from consumers import Job, Reject, Worker

bunny = Worker.from_env()


@bunny.handler("thumbs", "resize")
async def count(args: dict[str, Any], job: Job) -> AsyncIterator[dict[str, object]]:
    if args.get("over") and job.attempt == 1:
        yield {"n": -1}
        while not Path("over").exists():
            await asyncio.sleep(0.01)
        raise OSError("gone")
    for n in range(args["rows"]):
        yield {"n": n, "name": "Blåbär"}
        while n == 1 and not Path("go").exists():
            await asyncio.sleep(0.01)
    if args.get("fail"):
        raise Reject("no more", type="Enough")


@bunny.handler("thumbs", "probe")
async def probe(args: int) -> AsyncIterator[bytes]:
    for n in range(args):
        yield bytes([n])
"""
ROWS = [{"n": n, "name": "Blåbär"} for n in range(4)]


def waiting(token: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "job", "wait", token],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_lines_as_they_come(tmp_path: Path) -> None:
    write_policy(tmp_path, POLICY.replace("kinds: [resize, probe]", "kinds: [resize, probe]\n    max_payload: 1MiB"))
    (tmp_path / "app.py").write_text(APP)
    with up("up --json", tmp_path) as running:
        running.until("version")
        with working("app:bunny", tmp_path):
            as_alpha = "--identity .bunny/identities/alpha"
            rows = '{"rows":4}'
            token = bunny(f"submit thumbs resize {rows} {as_alpha} --json", tmp_path).json["token"]
            with waiting(token, tmp_path) as child:
                assert child.stdout is not None
                assert [json.loads(child.stdout.readline()) for _ in range(2)] == ROWS[:2]
                (tmp_path / "go").touch()
                out, _ = child.communicate(timeout=TIMEOUT_S)
                assert ([json.loads(line) for line in out.splitlines()], child.returncode) == (ROWS[2:], 0)
            told = [json.loads(line) for line in bunny(f"job wait --json {token}", tmp_path).out.splitlines()]
            assert [each["record"] for each in told[:-1]] == ROWS
            assert told[-1] == {"token": token, "status": "succeeded", "records": 4}
            (stored,) = bunny(f"payload show --json {token}", tmp_path).json["transfers"]
            assert (stored["of"], stored["cloud"], stored["bytes_at_most"]) == ("records", "azure", None)
            assert "4 records in rows" in bunny(f"job wait --out rows {token}", tmp_path).out
            assert [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()] == ROWS
            waited = bunny(f"submit --wait thumbs resize {rows} {as_alpha}", tmp_path)
            assert [json.loads(line) for line in waited.out.splitlines()] == ROWS
            assert bunny(f"submit --wait thumbs probe 3 {as_alpha}", tmp_path).out == "\0\n\1\n\2\n"
            failing = '{"rows":1,"fail":true}'
            failed = bunny(f"submit --wait thumbs resize {failing} {as_alpha}", tmp_path, code=5)
            assert json.loads(failed.out) == ROWS[0]
            assert "Enough" in failed.err
            starting_over = '{"rows":1,"over":true}'
            token = bunny(f"submit thumbs resize {starting_over} {as_alpha} --json", tmp_path).json["token"]
            with waiting(token, tmp_path) as child:
                assert child.stdout is not None
                assert json.loads(child.stdout.readline()) == {"n": -1}
                (tmp_path / "over").touch()
                out, error = child.communicate(timeout=TIMEOUT_S)
                assert (out, child.returncode) == ("", 5)
                assert "written its records anew" in error
            assert json.loads(bunny(f"job wait {token}", tmp_path).out) == ROWS[0]
