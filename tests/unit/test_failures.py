"""What a producer is told of a handler's exception is what its queue's policy says, and brokers are told the type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.job import Errors
from consumers import Reject, Retry, Worker
from consumers.failures import MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS
from producers import JobFailed
from tests import isolated
from tests.fleet import Fleet, policy

WORDS = "the holder is Müller"
EVERY = pytest.mark.parametrize("errors", ["type", "message", "traceback"])


class Unreadable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


async def failure(worker: Worker, errors: Errors, **terms: Any) -> JobFailed:  # noqa: ANN401  fields of Queue
    fleet = Fleet.make(policy(**{"max_attempts": 1, "errors": errors, **terms}))
    async with fleet.working(worker), fleet.producer() as relay:
        with pytest.raises(JobFailed) as failed:
            await (await relay.submit("thumbs", "resize", "canary")).result(timeout=60)
    (letter,) = fleet.held("azure", "DEAD_thumbs")
    assert letter.headers["Bunny-Cause"] == failed.value.type
    assert not any(WORDS in value or "canary" in value for value in letter.headers.values())
    return failed.value


@EVERY
@pytest.mark.parametrize("final", [(), (ValueError,)], ids=["last attempt", "final"])
async def test_an_exception(errors: Errors, final: tuple[type[Exception], ...]) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize", final=final)
    async def resize(_: str) -> None:
        card = WORDS
        raise ValueError(f"refused {card}") from KeyError("of the bank")

    told = await failure(worker, errors)
    assert told.type == "ValueError"
    match errors:
        case "type":
            assert told.message == ""
            assert str(told) == "ValueError (attempt 1)"
        case "message":
            assert told.message == f"refused {WORDS}"
        case "traceback":
            assert told.message.startswith("KeyError: 'of the bank'")
            assert told.message.endswith(f"ValueError: refused {WORDS}\n")
            assert 'raise ValueError(f"refused {card}")' in told.message


@EVERY
async def test_an_exception_in_a_process(errors: Errors) -> None:
    worker = Worker()
    worker.handler("thumbs", "resize", isolation="process")(isolated.raises)
    told = await failure(worker, errors)
    assert told.type == "LookupError"
    assert ("canary" in told.message, "isolated.py" in told.message) == (errors != "type", errors == "traceback")


@EVERY
async def test_a_file_that_is_returned_and_is_not_there(errors: Errors, tmp_path: Path) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(_: str) -> Path:
        return tmp_path / WORDS

    told = await failure(worker, errors)
    assert told.type == "InvalidResult"
    assert (WORDS in told.message, told.message == "") == (errors != "type", errors == "type")


@EVERY
async def test_a_process_that_cannot_start(errors: Errors) -> None:
    worker = Worker()
    worker.handler("thumbs", "resize", isolation="process", memory=64 << 20)(isolated.raises)
    told = await failure(worker, errors)
    assert told.message.startswith("it cannot start: MemoryError")
    assert ("leaves nothing" in told.message) == (errors != "type")


@EVERY
@pytest.mark.parametrize("chosen", [Reject("no such picture", type="NotFound"), Retry(0, "no such picture")])
async def test_what_a_handler_chose_to_say_is_told(errors: Errors, chosen: Exception) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(_: str) -> None:
        raise chosen

    assert (await failure(worker, errors)).message == "no such picture"


@pytest.mark.parametrize(("errors", "most"), [("message", MAX_MESSAGE_CHARS), ("traceback", MAX_TRACEBACK_CHARS)])
async def test_it_has_an_end(errors: Errors, most: int) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(_: str) -> None:
        raise ValueError("x" * 20_000)

    assert len((await failure(worker, errors)).message) == most


@EVERY
async def test_a_class_whose_message_cannot_be_read(errors: Errors) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(_: str) -> None:
        raise Unreadable

    told = await failure(worker, errors)
    assert told.type == "Unreadable"
    assert ("exception str() failed" in told.message) == (errors == "traceback")


@EVERY
async def test_a_failure_is_answered_where_no_result_of_its_length_would_be(errors: Errors) -> None:
    worker = Worker()

    @worker.handler("thumbs", "resize")
    async def resize(_: str) -> None:
        raise ValueError("of ten words and more, which are longer than the payloads of this queue may be")

    assert (await failure(worker, errors, max_payload=16)).type == "ValueError"
