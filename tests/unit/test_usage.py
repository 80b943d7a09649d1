"""What a caller gets wrong is said before anything is sent, in words that tell what to pass."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridge import subjects
from bridge.devserver import Folder, prepare
from bridge.durations import seconds
from bridge.errors import ConfigurationError, FencePoisoned, InvalidArguments, NotConnected, UsageError
from bridge.files import write_file
from bridge.identity import CONNECTION_FILE, Identity, load_keys
from bridge.job import Kind
from consumers import Job, Worker
from producers import Handle, Producer
from tests.fleet import Fleet, policy
from tests.support import write_policy


@dataclass
class Resize:
    width: int


RESIZE = Kind("thumbs", "resize", Resize, int)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"deadline": "5m"}, "deadline is str; pass seconds, such as deadline=300, or a timedelta"),
        ({"deadline": float("nan")}, "deadline is nan; pass seconds"),
        ({"deadline": True}, "deadline is True; pass seconds"),
        ({"delay": "1s"}, "delay is str; pass seconds"),
        ({"timeout": "10"}, "timeout is str; pass seconds"),
        ({"at": "2026-01-01"}, "at is str; pass a datetime"),
        ({"priority": 3}, "priority 3; say one of high, normal, low"),
    ],
)
async def test_a_term_of_the_wrong_type_is_named_with_what_to_pass(wrong: dict[str, Any], words: str) -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        with pytest.raises(UsageError, match=re.escape(words)):
            await relay.submit("thumbs", "resize", 1, **wrong)
        with pytest.raises(UsageError, match=re.escape(words)):
            await relay.submit_many("thumbs", "resize", [1], **wrong)
    assert not fleet.held("aws", "JOBS_thumbs")


async def test_durations_are_seconds_or_timedeltas_everywhere() -> None:
    assert seconds("timeout", timedelta(minutes=2)) == seconds("timeout", 120) == 120.0
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1, deadline=timedelta(minutes=1), at=datetime.now(UTC))
        with pytest.raises(UsageError, match="timeout is str"):
            await handle.result(timeout="1m")  # type: ignore[call-overload]  # what is refused
    worker: Any = Worker
    for make in (partial(worker, drain_timeout="30s"), partial(worker().handler, "thumbs", "resize", timeout="30s")):
        with pytest.raises(UsageError, match="timeout is str; pass seconds"):
            make()
    for wrong in ({"concurrency": "8"}, {"concurrency": 0}, {"prefetch": -1}, {"prefetch": 1.5}):
        with pytest.raises(UsageError, match="pass a whole number from"):
            worker(**wrong)


async def test_what_is_no_queue_no_batch_and_no_token_is_refused() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        submit: Any = relay.submit
        for arguments in ((1, "resize", 2), ("thumbs", 1, 2)):
            with pytest.raises(UsageError, match=r"submit\(queue, kind, args\)"):
                await submit(*arguments)
        many: Any = relay.submit_many
        for batch in ("abc", b"abc", {"width": 1}, 7):
            with pytest.raises(UsageError, match="pass a list or an iterator"):
                await many("thumbs", "resize", batch)
        with pytest.raises(UsageError, match="window=0"):
            await many("thumbs", "resize", [1], window=0)
        with pytest.raises(UsageError, match=r"pass handle\.token"):
            await relay.attach(object())  # type: ignore[arg-type]  # what is refused
    assert not fleet.held("aws", "JOBS_thumbs")


async def test_arguments_that_do_not_fit_their_kind_are_not_sent() -> None:
    fleet = Fleet.make(policy())
    async with fleet.producer() as relay:
        submit: Any = relay.submit
        with pytest.raises(InvalidArguments, match="does not fit Resize: width"):
            await submit(RESIZE, {"width": "320"})
        many: Any = relay.submit_many
        good, bad, same = await many(RESIZE, [Resize(1), "no", {"width": 3}])
        assert isinstance(good, Handle)
        assert isinstance(bad, InvalidArguments)
        assert isinstance(same, Handle)  # written as a Resize would be
    assert len(fleet.held("aws", "JOBS_thumbs")) == 2


def test_a_second_parameter_that_is_no_job_is_refused() -> None:
    def height(width: int, height: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"second parameter is annotated int, but what it gets is the Job"):
        Worker().handler("thumbs", "resize")(height)

    def job(width: int, job: Job) -> None: ...
    def bare(width: int, job) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001  # what is taken
    def anything(width: int, job: Any) -> None: ...  # noqa: ANN401

    for function in (job, bare, anything):
        Worker().handler("thumbs", "resize")(function)


async def test_a_token_whose_digest_was_changed_is_told_apart_from_a_forgery() -> None:
    fleet = Fleet.make(policy())
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(args: int) -> int:
        return args

    async with fleet.working(worker), fleet.producer() as relay:
        handle = await relay.submit("thumbs", "resize", 1)
        assert await handle.result(int) == 1
        mistyped = handle.token._replace(digest=f"{int(handle.token.digest, 16) ^ 1:064x}")
        other = await relay.attach(mistyped)
        with pytest.raises(UsageError, match="the token's digest does not match"):
            await other.result()
        async with fleet.transport("bunny") as there:
            forged = handle.token._replace(n=999)
            await there.publish("RESULTS_thumbs", subjects.result(forged.key), b"forged")
        standing = await relay.attach(forged)
        with pytest.raises(FencePoisoned):
            await standing.result(timeout=1)


def test_every_key_that_is_missing_is_named(tmp_path: Path) -> None:
    write_file(tmp_path / "relay.json", Identity.generate("relay").public().to_json())
    with pytest.raises(
        ConfigurationError, match=r"ann\.json, bob\.json are missing; make each with `bunny keys new NAME`"
    ):
        load_keys(tmp_path, ["relay", "bob", "ann"])
    with pytest.raises(ConfigurationError, match=r"bob\.json: missing; make it with `bunny keys new bob`"):
        load_keys(tmp_path, ["relay", "bob"])


async def test_a_producer_that_cannot_connect_gives_up_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder.at(tmp_path / ".bunny")
    prepare(write_policy(tmp_path), folder)
    place = folder.identity("alpha")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        rendered = json.loads((folder.rendered / "aws/connections/alpha.yaml").read_text())
        write_file(place / CONNECTION_FILE, json.dumps(rendered | {"server": f"tls://127.0.0.1:{port}"}))
        monkeypatch.setenv("BUNNY_IDENTITY", str(place))
        for opening in (Producer.open(place, timeout=0.2), Producer.from_env(timeout=timedelta(seconds=0.2))):
            with pytest.raises(NotConnected):
                async with opening:
                    pass
