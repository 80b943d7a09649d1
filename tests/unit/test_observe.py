"""Nothing of a payload or a key reaches a log, whatever is passed to it."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from bridge import observe
from bridge.errors import ConfigurationError, JobFailed, QueueFull

CANARY = "SUAKEYKEYKEY payload äöü ünïque"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = structlog.get_config()
    libraries = [
        (log, list(log.handlers), log.propagate, log.level) for log in map(logging.getLogger, ("nats", "asyncio"))
    ]
    yield
    structlog.configure(**before)
    for log, handlers, propagate, level in libraries:
        log.handlers, log.propagate, log.filters = handlers, propagate, []
        log.setLevel(level)


def deep(secret: str) -> None:
    local = {"payload": secret}
    raise ValueError(f"cannot read {local}")


def raised(act: Callable[[], object]) -> BaseException:
    try:
        act()
    except Exception as error:
        return error
    raise AssertionError


def every_way(log: structlog.typing.FilteringBoundLogger) -> None:
    """Log the canary by each road a careless caller could take."""
    log.debug(f"got {CANARY}")
    log.info("job_received", payload=CANARY, nkey_seed=CANARY)
    for field in observe.FIELDS:
        if field not in {"reason", "timestamp"}:  # free words, which only we write
            log.info("job_received", **{field: CANARY})
        log.info("job_received", **{field: CANARY.encode()})
        log.info("job_received", **{field: [CANARY]})
        log.info("job_received", **{field: {"a": CANARY}})
    log.info("job_received %s", CANARY)
    log.info("job_received", **{CANARY: 1, "frames": CANARY, "stack_info": CANARY, "exception": CANARY})
    log.info("job_received", exc_info=raised(lambda: deep(CANARY)))
    log.info("job_received", exc_info=JobFailed("ValueError", CANARY, 1))
    try:
        deep(CANARY)
    except ValueError:
        log.exception("handler_failed")
    with structlog.contextvars.bound_contextvars(args=CANARY):
        log.error("job_failed")
    log.bind(body=CANARY).warning("job_failed", event_dict=CANARY)


@pytest.mark.parametrize("as_json", [True, False])
def test_h42_no_road_leads_a_canary_into_the_log(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    observe.configure(json=as_json, level="debug")
    every_way(structlog.get_logger("worker"))
    for name in ("nats.aio.client", "asyncio"):
        logging.getLogger(name).error("task failed: %r", CANARY, exc_info=raised(lambda: deep(CANARY)))
        logging.getLogger(name).warning("message " + CANARY)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("job_received") > len(observe.FIELDS)
    assert "handler_failed" in err
    for piece in (CANARY, "SUAKEY", "ünïque", "cannot read", CANARY.encode().hex()):
        assert piece not in err


async def test_an_orphan_exception_of_asyncio_shows_its_class_alone(capsys: pytest.CaptureFixture[str]) -> None:
    observe.configure(json=True)
    loop = asyncio.get_running_loop()
    seen = asyncio.Event()
    loop.call_soon(deep, CANARY)
    loop.call_soon(seen.set)
    await seen.wait()
    [line] = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["error"], told["logger"]) == ("library_message", "ValueError", "asyncio")
    assert CANARY not in line


def test_known_fields_and_our_own_exceptions_are_written(capsys: pytest.CaptureFixture[str]) -> None:
    observe.configure(json=True)
    log = structlog.get_logger().bind(queue="thumbs")
    log.debug("too_low")
    try:
        raise QueueFull("JOBS_thumbs is full")
    except QueueFull:
        log.exception("submit_failed", attempt=2, job=f"{'a' * 24}.7", unheard_of=1)
    [line] = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told.pop("timestamp").endswith("Z")
    assert told.pop("frames")[-1].startswith("test_observe.py:")
    assert told == {
        "event": "submit_failed",
        "level": "error",
        "queue": "thumbs",
        "attempt": 2,
        "job": f"{'a' * 24}.7",
        "error": "QueueFull",
        "reason": "JOBS_thumbs is full",
        "dropped": 1,
    }


def test_a_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    observe.configure(json=False)
    structlog.get_logger().warning("connect_failed", reason="first\nsecond\x1b[2J" + "x" * 5000)
    [line] = capsys.readouterr().err.splitlines()
    assert len(line) < 400
    assert "first?second" in line


def test_a_producer_in_somebodys_program_warns_on_stderr_and_is_quiet_otherwise(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    structlog.reset_defaults()
    observe.quiet()
    log = structlog.get_logger()
    log.info("connected", server="tls://here:1")
    log.warning("connect_failed", server="tls://here:1", args=CANARY)
    logging.getLogger("asyncio").warning("returning true from eof_received() has no effect when using ssl")
    logging.getLogger("asyncio").warning("the program's own")
    out, err = capsys.readouterr()
    assert out == ""
    assert "connect_failed" in err
    assert "connected" not in err
    assert CANARY not in err
    assert caplog.messages == ["the program's own"]


def test_logging_that_a_program_set_up_is_left_to_it() -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    before = structlog.get_config()
    observe.quiet()
    assert structlog.get_config() == before


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="not one of debug, info"):
        observe.configure(level="loud")


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a log method in the three packages."""
    for package in ("bridge", "producers", "consumers"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = ast.unparse(node.func.value).split(".")[-1]
                    if owner in {"log", "_log"} and node.func.attr in {*observe.LEVELS, "exception", "bind"}:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_every_log_call_of_ours_would_be_written_whole() -> None:
    wrong = []
    for where, call in _calls():
        if call.args and not observe._EVENT.fullmatch(str(getattr(call.args[0], "value", ""))):
            wrong.append(f"{where}: the event is not a snake_case word")
        wrong += [
            f"{where}: the field {keyword.arg} is not in observe.FIELDS"
            for keyword in call.keywords
            if keyword.arg not in observe.FIELDS and keyword.arg != "exc_info"
        ]
    assert wrong == []
