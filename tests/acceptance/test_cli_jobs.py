"""The commands of jobs and queues against a running bridge, in both directions."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.typed import TIMEOUT_S, bunny, environment, up
from tests.support import frozen, write_policy

APP = """\
from dataclasses import dataclass

from consumers import Job, Reject, Worker

bunny = Worker.from_env()
relay = Worker.from_env()
not_one = {}


@dataclass
class Resize:
    width: int


@bunny.handler("thumbs", "resize")
async def resize(args: Resize, job: Job) -> dict[str, object]:
    if args.width < 0:
        raise Reject("no \\x1b[31mnegative\\x07 width", type="BadWidth")
    return {"width": 2 * args.width, "name": "Blåbär"}


@bunny.handler("thumbs", "probe")
def probe(data: bytes) -> bytes:
    return data[::-1]


@relay.handler("lookup", "find")
def find(word: str | None) -> str:
    return f"found {word}"
"""


@contextlib.contextmanager
def bridge(folder: Path) -> Iterator[None]:
    """Both clouds beside an application."""
    write_policy(folder)
    (folder / "app.py").write_text(APP)
    with up("up --json", folder) as running:
        running.until("version")
        yield


@contextlib.contextmanager
def working(app: str, folder: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `bunny work` until the block ends; it must drain and end well."""
    with (folder / f"{app}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", "work", app, *more], cwd=folder, env=environment(), stderr=log
        )
    try:
        yield process
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 0


def submit(folder: Path, kind: str, *more: str | Path) -> str:
    """A job of alpha's on queue thumbs; its token."""
    said = bunny(f"submit thumbs {kind}", folder, *more, "--identity", ".bunny/identities/alpha")
    return said.out.strip()


# --- jobs ------------------------------------------------------------------------------------------


def test_both_directions_through_the_same_commands(tmp_path: Path) -> None:
    with bridge(tmp_path):
        several = bunny("submit thumbs resize", tmp_path, '{"width": 1}', code=1)
        assert several.error.startswith("alpha, beta may all submit to queue 'thumbs': say which, --identity ")
        with working("app:bunny", tmp_path), working("app:relay", tmp_path):
            there = bunny("submit thumbs resize --wait --identity .bunny/identities/beta", tmp_path, '{"width": 160}')
            assert json.loads(there.out) == {"width": 320, "name": "Blåbär"}
            assert there.err.startswith("thumbs.beta.")
            # Gamma alone may submit to lookup, so nothing need be said.
            back = bunny("submit lookup find --wait --json", tmp_path, '"it"').json
            assert (back["status"], back["result"]) == ("succeeded", "found it")
            shown = bunny("job show --json", tmp_path, back["token"]).json
            assert (shown["state"], shown["producer"], shown["attempt"]) == ("succeeded", "gamma", 1)


def test_a_job_from_queued_to_its_result(tmp_path: Path) -> None:
    with bridge(tmp_path):
        token = submit(tmp_path, "resize", '{"width": 21}')
        queued = bunny("job show --json", tmp_path, token).json
        assert (queued["state"], queued["kind"], queued["worker"]) == ("queued", "resize", None)
        assert queued["submitted"] < queued["deadline"]
        late = bunny("job wait --timeout 100ms", tmp_path, token, code=5)
        assert "no result in" in late.error
        with working("app:bunny", tmp_path, "--concurrency", "2", "--drain-timeout", "5s"):
            assert json.loads(bunny("job wait", tmp_path, token).out)["width"] == 42
            done = bunny("job show", tmp_path, token).out
            assert "succeeded" in done
            assert "application/json" in done


def test_a_job_with_a_time_and_one_of_high_priority(tmp_path: Path) -> None:
    with bridge(tmp_path):
        later = submit(tmp_path, "resize", '{"width": 2}', "--delay", "1s")
        high = submit(tmp_path, "resize", '{"width": 1}', "--priority", "high")
        assert bunny("queue show thumbs --json", tmp_path).json["delayed"] == 1
        with working("app:bunny", tmp_path):
            assert json.loads(bunny("job wait", tmp_path, high).out)["width"] == 2
            assert json.loads(bunny("job wait", tmp_path, later).out)["width"] == 4
        wrong = bunny("submit thumbs resize 1 --priority urgent --identity .bunny/identities/alpha", tmp_path, code=1)
        assert "say one of high, normal, low" in wrong.error
        both = "submit thumbs resize 1 --delay 1s --priority low --identity .bunny/identities/alpha"
        assert "leave the priority out" in bunny(both, tmp_path, code=1).error


def test_a_job_that_fails_and_one_that_is_late(tmp_path: Path) -> None:
    with bridge(tmp_path):
        late = submit(tmp_path, "resize", '{"width": 1}', "--deadline", "1ms")
        failing = submit(tmp_path, "resize", '{"width": -1}')
        with working("app:bunny", tmp_path):
            failed = bunny("job wait --json", tmp_path, failing, code=5)
            assert failed.json["error"] == "JobFailed"
            assert "\x1b" not in failed.error
            expired = bunny("job wait", tmp_path, late, code=5)
            assert "deadline passed" in expired.error
            assert bunny("job show --json", tmp_path, late).json["state"] == "expired"
            shown = bunny("job show --json", tmp_path, failing).json
            assert shown["state"] == "failed"
            assert shown["error"].startswith("BadWidth: no ")
            # The worker's words are another team's: they must not steer our terminal.
            plain = bunny("job show", tmp_path, failing)
            assert "negative" in plain.out
            assert "\x1b" not in plain.out
            counts = bunny("queue show thumbs --json", tmp_path).json
            assert (counts["pending"], counts["dead"], counts["results"]) == (0, 2, 2)


def test_a_job_that_is_cancelled(tmp_path: Path) -> None:
    with bridge(tmp_path):
        token = submit(tmp_path, "resize", '{"width": 1}')
        asked = bunny("job cancel", tmp_path, token, "--reason", "no \x1b[31mlonger\x07 wanted").out
        assert asked == f"asked; `bunny job wait {token}` says what came of it\n"
        assert bunny("job cancel --json", tmp_path, token).json == {"token": token, "asked": True}
        assert bunny("job show --json", tmp_path, token).json["state"] == "queued"
        with working("app:bunny", tmp_path):
            waited = bunny("job wait --json", tmp_path, token, code=5)
            assert waited.json["error"] == "JobCancelled"
            assert "\x1b" not in waited.err
            shown = bunny("job show --json", tmp_path, token).json
            assert (shown["state"], shown["error"]) == ("cancelled", None)
            assert shown["reason"] == "no \x1b[31mlonger\x07 wanted"
            assert "\x1b" not in bunny("job show", tmp_path, token).out
            assert bunny("job cancel --json", tmp_path, token).json == {"token": token, "asked": False}
            counts = bunny("queue show thumbs --json", tmp_path).json
            assert (counts["pending"], counts["dead"], counts["results"]) == (0, 0, 1)
        gone = bunny("job cancel", tmp_path, token.replace(token.split(".")[2], "0" * 24), code=1)
        assert "not stored: its result is on its way or too old" in gone.error


def test_bytes_files_and_standard_input(tmp_path: Path) -> None:
    data = os.urandom(1000)
    (tmp_path / "data.bin").write_bytes(data)
    (tmp_path / "args.json").write_text('{"width": 4}')
    alpha = ("--identity", ".bunny/identities/alpha")
    with bridge(tmp_path), working("app:bunny", tmp_path):
        token = submit(tmp_path, "probe", "--file", "data.bin")
        said = bunny("job wait --out back.bin --json", tmp_path, token).json
        assert (said["content_type"], said["bytes"]) == ("application/octet-stream", 1000)
        assert (tmp_path / "back.bin").read_bytes() == data[::-1]
        assert (tmp_path / "back.bin").stat().st_mode & 0o077 == 0
        piped = subprocess.run(
            [sys.executable, "-m", "bridge.cli", "job", "wait", token],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        assert piped.stdout == data[::-1]
        measured = bunny(
            "bench thumbs --kind probe --size 100 --jobs 20 --window 1 --window 5 --json", tmp_path, *alpha
        )
        assert [(each["window"], each["jobs"], each["failed"]) for each in measured.json["runs"]] == [
            (1, 20, {}),
            (5, 20, {}),
        ]
        failing = bunny("bench thumbs --kind resize --jobs 2", tmp_path, '{"width": -1}', *alpha, code=5)
        assert failing.error.startswith("BadWidth: ")
        from_file = bunny("submit thumbs resize @args.json --wait --json", tmp_path, *alpha)
        assert from_file.json["result"]["width"] == 8
        read = subprocess.run(
            [sys.executable, "-m", "bridge.cli", "submit", "thumbs", "resize", "-", "--wait", *alpha],
            cwd=tmp_path,
            env=environment(),
            input=b'{"width": 5}',
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        assert json.loads(read.stdout)["width"] == 10


def test_what_cannot_be_submitted_or_followed(tmp_path: Path) -> None:
    outside = bunny("submit thumbs resize 1", tmp_path, code=1)
    assert outside.error.startswith("no bridge runs here: start one with `bunny up`")
    with bridge(tmp_path):
        alpha = ("--identity", ".bunny/identities/alpha")
        secret = bunny("submit thumbs resize", tmp_path, '{"secret": ', *alpha, code=1)
        assert secret.error == "ARGS, line 1, column 12: not JSON; quote it for the shell, or name a file as @FILE"
        assert (
            "no kind 'crop'; bridge.yaml has resize, probe"
            in bunny("submit thumbs crop", tmp_path, *alpha, code=1).error
        )
        assert "may submit to queue 'nosuch'" in bunny("submit nosuch find", tmp_path, code=1).error
        unit = bunny("submit thumbs resize --deadline 5", tmp_path, *alpha, code=1)
        assert unit.error == "--deadline: '5' has no unit; say 5s"
        (tmp_path / "big").write_bytes(bytes(300_000))
        assert "max_payload" in bunny("submit thumbs probe --file big", tmp_path, *alpha, code=1).error
        assert "needs --wait" in bunny("submit thumbs probe --out x", tmp_path, *alpha, code=1).error
        nowhere = bunny("submit thumbs probe --wait --out no/x", tmp_path, *alpha, code=1)
        assert nowhere.error == "no: no such directory; make it, or name a file elsewhere"  # no token: nothing was sent
        assert "not a job token" in bunny("job show nonsense", tmp_path, code=1).error

        token = submit(tmp_path, "resize", '{"width": 1}')
        other = token[:-1] + ("0" if token[-1] != "0" else "1")
        assert "not what the token speaks of" in bunny("job show", tmp_path, other, code=1).error
        beta = bunny("job show --identity .bunny/identities/beta", tmp_path, token, code=1)
        assert beta.error == "the token is of a job of alpha, not of beta"
        with working("app:bunny", tmp_path):
            bunny("job wait", tmp_path, token)
            assert "does not verify (WrongSubject)" in bunny("job show", tmp_path, other, code=5).error
        never = token.replace(token.split(".")[2], "0" * 24)
        assert bunny("job show --json", tmp_path, never).json["state"] == "unknown"


# --- queues ----------------------------------------------------------------------------------------


def test_queues_of_both_clouds_and_what_cannot_be_asked(tmp_path: Path) -> None:
    with bridge(tmp_path):
        for _ in range(2):
            submit(tmp_path, "resize", '{"width": 1}')
        both = {each["queue"]: each for each in bunny("queue ls --json", tmp_path).json["queues"]}
        assert (both["thumbs"]["pending"], both["thumbs"]["in_flight"], both["thumbs"]["dead"]) == (2, 0, 0)
        assert (both["lookup"]["home"], both["lookup"]["pending"]) == ("azure", 0)
        table = bunny("queue show thumbs", tmp_path).out
        assert "thumbs: alpha, beta in aws -> bunny in azure" in table
        assert "JOBS_thumbs" in table

        aws = bunny("queue ls --json --identity .bunny/identities/ops-aws", tmp_path).json
        seen = {each["queue"]: each for each in aws["queues"]}
        assert (seen["thumbs"]["pending"], seen["thumbs"]["dead"]) == (2, None)
        assert seen["lookup"]["pending"] is None
        assert list(aws["unknown"]) == ["azure"]
        plain = bunny("queue ls --identity .bunny/identities/ops-aws", tmp_path).out
        assert "azure: unknown: no inspector of it here" in plain
        assert "is no inspector" in bunny("queue ls --identity .bunny/identities/alpha", tmp_path, code=1).error
        assert "did you mean 'thumbs'?" in bunny("queue show thumb", tmp_path, code=1).error

        hub = json.loads((tmp_path / ".bunny/ready.json").read_text())["clouds"]["aws"]["pid"]
        with frozen(hub):
            silent = bunny("queue ls --json", tmp_path, code=3)
        seen = {each["queue"]: each for each in json.loads(silent.out)["queues"]}
        assert (seen["thumbs"]["pending"], seen["thumbs"]["dead"]) == (None, 0)
        assert (seen["lookup"]["pending"], seen["lookup"]["dead"]) == (0, None)
        assert "aws cannot be asked" in silent.err


# --- work ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("app", "words"),
    [
        ("app", "'app' does not read MODULE:APP"),
        ("nosuch:worker", "no module 'nosuch' in "),
        ("app.below:worker", "no module 'app.below' in "),
        ("app:nosuch", "module 'app' has no 'nosuch'; it has bunny, relay"),
        ("app:not_one", "app:not_one: a dict, not a consumers.Worker"),
        ("needs:worker", "needs: imports 'not_installed', which is not installed here"),
    ],
)
def test_an_application_that_cannot_be_run(tmp_path: Path, app: str, words: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "needs.py").write_text("import not_installed\n")
    assert words in bunny("work", tmp_path, app, code=1).error


def test_a_ledger_of_a_size_that_none_can_have(tmp_path: Path) -> None:
    assert "say 16MiB or more" in bunny("work app:bunny --ledger-limit 1KiB", tmp_path, code=1).error


def test_an_application_with_one_of_our_names(tmp_path: Path) -> None:
    (tmp_path / "bridge.py").write_text("worker = 1\n")
    # As the installed command finds it: our packages come first, the current folder is added later.
    code = "import sys; sys.path.pop(0); from bridge.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "work", "bridge:worker"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"bunny: {tmp_path / 'bridge.py'}: has the name of a package of Bunny Bridge")


def test_a_worker_that_the_policy_does_not_know(tmp_path: Path) -> None:
    with bridge(tmp_path):
        (tmp_path / "other.py").write_text(
            "from consumers import Worker\nworker = Worker()\nnone = Worker()\n"
            "@worker.handler('parcels', 'send')\ndef send(args: str) -> None: ...\n"
        )
        assert "may work parcels" in bunny("work other:worker", tmp_path, code=1).error
        wrong = bunny("work app:bunny --identity .bunny/identities/relay", tmp_path, code=1)
        assert "relay does not work queue 'thumbs'; bridge.yaml lets it work lookup" in wrong.err
        assert "has no handler" in bunny("work other:none", tmp_path, code=1).error
        (tmp_path / "broken.py").write_text("raise RuntimeError('theirs')\n")
        broken = bunny("work broken:worker", tmp_path, code=1).err
        assert broken.splitlines()[-1] == "bunny: broken: cannot be imported: RuntimeError, as above"
        assert "RuntimeError: theirs" in broken
        assert broken.count("File ") == 1
        (tmp_path / ".bunny/identities/bunny/roots.json").unlink()
        missing = bunny("work app:bunny --identity .bunny/identities/bunny", tmp_path, code=1).error
        assert missing == ".bunny/identities/bunny/roots.json: missing; copy what `bunny trust init` writes"
