"""A program that submits: what goes wrong with the bridge ends it with a line and an exit code, and no traceback."""

from __future__ import annotations

import pytest

from bridge.errors import BridgeError, ConfigurationError, JobFailed, NotAuthorised, NotConnected
from producers import run


async def raising(error: BaseException) -> None:
    raise error


async def answer() -> int:
    return 42


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigurationError("BUNNY_IDENTITY is not set; name a folder"), 1, "BUNNY_IDENTITY is not set; name a folder"),
        (NotConnected("the server at 127.0.0.1 is gone"), 3, "the server at 127.0.0.1 is gone"),
        (NotAuthorised("not yours\x1b[2J"), 4, "not yours?[2J"),
        (JobFailed("OSError", "first\nsecond", 1), 5, "OSError: first\n       second (attempt 1)"),
        (BridgeError(), 1, "BridgeError"),
    ],
)
def test_an_error_of_the_bridge_is_told_with_its_exit_code(
    error: BridgeError, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(raising(error))
    assert (ended.value.code, capsys.readouterr().err) == (code, f"bunny: {line}\n")


def test_anything_else_is_as_with_asyncio(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(answer()) == 42
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))
    with pytest.raises(SystemExit) as ended:
        run(raising(KeyboardInterrupt()))
    assert (ended.value.code, capsys.readouterr().err) == (130, "")
