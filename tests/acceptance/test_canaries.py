"""H42: canaries for payloads and private keys, through commands, failures and crashes at DEBUG, found nowhere."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import structlog

from bridge import observe, subjects
from bridge.devserver import monitor
from bridge.devserver.ports import free_port
from bridge.errors import OutcomeUnknown
from bridge.identity import CA_FILE, Connection, Identity
from bridge.jetstream import connect
from bridge.subjects import JobKey
from producers import JobCancelled, JobFailed, Producer
from tests.acceptance.typed import TIMEOUT_S, Said, bunny, environment, up
from tests.support import POLICY, write_policy

CANARY = "canary9c41e7"
"""In all that is nobody's business but the producer's and the worker's."""
HOSTILE = "hostile9c41e7"
"""In headers, which brokers store as they are: not in anything that is told."""
PARTS = (CANARY.encode() * 50_000)[:400_000]
QUEUE = """\
    kinds: [resize, probe]
    max_payload: 1MiB
    concurrency_per_key: 2
    inbox: [alpha]
    backoff: {initial: 10ms, factor: 1, max: 10ms, jitter: 0}
    max_attempts: 2
"""
CANARIES = POLICY.replace("    kinds: [resize, probe]\n", QUEUE).replace(
    "  link-azure:",
    "  boss-azure: {cloud: azure, role: operator}\n  agent-aws: {cloud: aws, role: agent}\n  link-azure:",
)

APP = """\
import ctypes
from pathlib import Path

import structlog

from bridge import observe
from consumers import Job, Payload, Reject, Worker

worker = Worker()
log = structlog.get_logger()
observe.configure(json=True, level="debug")


@worker.on_startup
def ready() -> None:
    print("ready", flush=True)


@worker.handler("thumbs", "resize", isolation="process")
def resize(args: dict[str, str], job: Job) -> dict[str, str]:
    picture = args["picture"]
    log.info("drawing", args=args, picture=picture, reason=args)
    match args["how"]:
        case "raise":
            raise ValueError(f"cannot draw {picture}")
        case "reject":
            raise Reject(picture, type="NotFound")
        case "crash":
            ctypes.string_at(0)
    return args


@worker.handler("thumbs", "probe")
async def probe(data: Payload, job: Job) -> Payload:
    await job.progress(0.5, "CANARY")
    async for chunk in data:
        if chunk[:3] == b"die":
            Path("dying").touch()
            await __import__("asyncio").sleep(60)
        log.info(f"read {chunk!r}", data=chunk)
    return data
""".replace("CANARY", CANARY)


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def private(folder: Path) -> set[str]:
    """Every private value of an identity folder, as it stands in the file and in hexadecimal."""
    value = json.loads((folder / "identity.json").read_text())
    seeds = [key["seed"] for key in (*value["sign"], *value["kem"])] + [value["dedup_secret"]]
    return {value["nkey_seed"], *seeds, *(base64.urlsafe_b64decode(seed + "==").hex() for seed in seeds)}


def forms(secret: str) -> list[bytes]:
    """A secret as it might be written: plain, in hexadecimal, wide, and in base64 at each of its three offsets."""
    data = secret.encode()
    shifted = [base64.b64encode(bytes(n) + data)[4 if n else 0 : -4] for n in range(3)]
    return [data, data.hex().encode(), secret.encode("utf-16-le"), *shifted]


class Processes(threading.Thread):
    """Looks at the command line of every process and the environment of ours, as `ps` does, again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen = set[bytes]()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.1):
            for place in Path("/proc").glob("[0-9]*"):
                for name in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        self.seen.add((place / name).read_bytes())

    def stop(self) -> bytes:
        self._over.set()
        self.join()
        return b"\n".join(self.seen)


class Told:
    """All that was told to whoever is neither the producer nor the worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.texts = folder, dict[str, bytes]()

    def bunny(self, line: str, *more: str | Path, code: int | None = 0, secret: bool = True) -> Said:
        """Run a command; with ``secret=False`` its standard output is the content that was asked for."""
        said = bunny(line, self.folder, *more, code=code, PYTHONASYNCIODEBUG="1", TMPDIR=str(self.folder / "tmp"))
        self.texts[f"bunny {line}, standard error"] = said.err.encode()
        if secret:
            self.texts[f"bunny {line}, standard output"] = said.out.encode()
        return said

    def page(self, name: str, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            self.texts[f"metrics of {name}"] = answer.read()

    def files(self, *places: Path) -> None:
        for place in places:
            for path in (place, *place.rglob("*")):
                if path.is_file():
                    self.texts[str(path.relative_to(self.folder))] = path.read_bytes()

    def holding(self, secret: str) -> list[str]:
        wanted = forms(secret)
        return [name for name, text in self.texts.items() if any(form in text for form in wanted)]


@contextlib.contextmanager
def running(told: Told, name: str, *words: str, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs until the block ends; what it wrote is kept."""
    err = (told.folder / f"{name}.log").open("w+")
    with (
        err,
        subprocess.Popen(
            [sys.executable, "-m", "bridge.cli", *words],
            cwd=told.folder,
            env=environment(PYTHONASYNCIODEBUG="1", TMPDIR=str(told.folder / "tmp"), **more),
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            process.stdout.readline()  # that it is ready
            yield process
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)
            told.files(told.folder / f"{name}.log")


async def produce(alpha: Path, outbox: Path, worker: subprocess.Popen[str], dying: Path) -> list[str]:
    """Every end that a job can come to; the tokens of those that failed."""
    failed = []
    await forge(alpha)
    async with Producer.open(alpha, outbox=outbox) as relay:
        for how in ("return", "raise", "reject", "crash"):
            args = {"how": how, "picture": CANARY}
            job = await relay.submit("thumbs", "resize", args, key=f"{CANARY}-{how}")
            if how == "return":
                assert await job.result(dict, timeout=60) == args
                continue
            with pytest.raises(JobFailed) as error:
                await job.result(timeout=60)
            failed.append(str(job.token))
            assert (CANARY in str(error.value)) == (how == "reject")  # its handler chose to say so
        kept = await relay.submit("thumbs", "probe", PARTS, concurrency_key=CANARY)
        assert await kept.result(bytes, timeout=60) == PARTS
        unfit = await relay.submit("thumbs", "resize", [CANARY])
        with pytest.raises(JobFailed, match="InvalidArguments"):
            await unfit.result(timeout=60)
        late = await relay.submit("thumbs", "resize", {"how": "return", "picture": CANARY}, delay=60)
        await late.cancel(CANARY)
        with contextlib.suppress(OutcomeUnknown, JobCancelled):
            await late.result(timeout=0.1)
        await relay.submit("thumbs", "probe", b"die" + PARTS, deadline=600)
        await monitor.until(partial(asyncio.to_thread, dying.exists), 60, "the job that its worker dies of")
        worker.send_signal(signal.SIGKILL)
    return failed


async def forge(alpha: Path) -> None:
    """A message with canaries in headers and in a name, and nothing behind them."""
    connection, seed = Connection.load(alpha), Identity.load(alpha).nkey_seed
    async with await connect(connection, seed, alpha / CA_FILE, name="alpha", timeout=10.0) as transport:
        subject = subjects.job(JobKey("thumbs", "alpha", "5" * 24, 1), "normal")
        headers = {"Bunny-Kind": HOSTILE, "Bunny-Deadline": HOSTILE, "traceparent": HOSTILE, HOSTILE: HOSTILE}
        await transport.publish("JOBS_thumbs", subject, b"RB1\0" + HOSTILE.encode(), headers)


def test_h42_no_canary_is_found_in_what_commands_failures_and_crashes_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    told, processes, metrics = Told(tmp_path), Processes(), [free_port(set()), free_port(set())]
    for name in ("tmp", "spool"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("BUNNY_SPOOL", str(tmp_path / "spool"))
    write_policy(tmp_path, CANARIES)
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "args.json").write_text(json.dumps({"how": "return", "picture": CANARY}))
    (tmp_path / "broken.json").write_text(f'{{"picture": "{CANARY}"')
    home = tmp_path / ".bunny"
    alpha = home / "identities" / "alpha"
    serving = ("work", "app:worker", "--data", "ledger", "--json", "--identity", ".bunny/identities/bunny")
    environ = {"BUNNY_METRICS": f"127.0.0.1:{metrics[0]}", "BUNNY_SPOOL": str(tmp_path / "spool")}
    observe.configure(json=True, level="debug")
    processes.start()
    with up("up --json", tmp_path, 6 * TIMEOUT_S) as servers:
        servers.until("version")
        keys = set().union(*(private(path.parent) for path in home.glob("identities/*/identity.json")))
        with running(told, "killed", *serving, **environ) as worker:
            failed = asyncio.run(produce(alpha, tmp_path / "outbox", worker, tmp_path / "dying"))
        agent = ("agent", "--identity", ".bunny/identities/agent-aws", "--listen", f"127.0.0.1:{metrics[1]}", "--json")
        with running(told, "worker", *serving, **environ), running(told, "agent", *agent):
            shown = told.bunny("submit thumbs resize @args.json --wait --identity", alpha, secret=False).out
            told.page("the worker", metrics[0])
            told.page("the agent", metrics[1])
        told.bunny("submit thumbs resize @broken.json --identity", alpha, code=1)
        told.bunny("job wait", failed[0], code=5)
        told.bunny("job show --json", failed[0])
        told.bunny("queue show thumbs --json")
        told.bunny("dead ls --json")
        told.bunny("dead show --json", failed[0])
        told.bunny("top --json")
        told.bunny("doctor --json", code=None)
        told.bunny("inbox thumbs --json", code=None, secret=False)
        told.files(home / "store", home / "logs", home / "rendered", tmp_path / "tmp", tmp_path / "spool")
        told.files(tmp_path / "ledger", tmp_path / "outbox")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for path in alpha.iterdir():
        (damaged / path.name).write_bytes(path.read_bytes())
    (damaged / "identity.json").write_text((alpha / "identity.json").read_text()[:-40] + CANARY)
    (damaged / "identity.json").chmod(0o600)
    told.bunny("submit thumbs resize null --identity", damaged, code=1)
    told.bunny("submit thumbs resize @args.json --identity", alpha, code=None)  # nobody is there any more
    mine = capfd.readouterr()
    told.texts |= {"this process": (mine.out + mine.err).encode(), "the process list": processes.stop()}

    # What is looked for can be found: the one who asked was given it, and the stores hold the rest.
    assert CANARY in shown
    assert len(failed) == 3
    assert len(keys) > 20
    stores = b"".join(text for name, text in told.texts.items() if "/store/" in name)
    assert all(name in stores for name in (b"jobs.thumbs.normal.alpha", b"Bunny-Cause", HOSTILE.encode()))
    logs = told.texts["killed.log"] + told.texts["worker.log"]
    assert all(event in logs for event in (b'"drawing"', b'"unnamed_event"', b'"attempt_failed"', b"message_refused"))
    assert b"asyncio" in told.texts["the process list"].lower()

    assert told.holding(CANARY) == []
    assert [name for name in told.holding(HOSTILE) if "/store/" not in name] == []
    # The leaf's server needs the link's seed: in a file of its own, which nobody else may read.
    seed = home / "rendered" / "azure" / "leaf-seed.conf"
    assert {name for key in keys for name in told.holding(key)} == {str(seed.relative_to(tmp_path))}
    assert seed.stat().st_mode & 0o077 == 0
