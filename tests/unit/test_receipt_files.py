"""Files of receipts, and brokers that give them, that have no end: each is looked at up to a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from bridge.cli import receipts
from bridge.cli.queuestate import Clouds
from bridge.errors import TransportError, UsageError
from bridge.jetstream import JetStreamTransport
from bridge.memory import MemoryTransport
from bridge.transport import Message
from tests.fleet import Fleet, policy

LINES = 16


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "MAX_LEN", LINES * receipts.LEAST)


def test_lines_of_files_are_numbered_and_empty_ones_passed_over(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"a\n\nb")
    lines = receipts._Lines()
    lines.read([tmp_path / "one", tmp_path / "two"])
    one, two = tmp_path / "one", tmp_path / "two"
    assert lines.found == [(f"{one}:1", b"a"), (f"{one}:3", b"b"), (f"{two}:1", b"a"), (f"{two}:3", b"b")]


@pytest.mark.parametrize(
    "held", [b"\n", b"x\n", b"x" * receipts.LEAST], ids=["of nothing", "short", "one that is long"]
)
def test_a_file_of_too_many_lines_is_not_read_to_its_end(tmp_path: Path, held: bytes) -> None:
    file = tmp_path / "receipts.jsonl"
    file.write_bytes(held * LINES)
    receipts._Lines().read([file])
    file.write_bytes(held * 1000 * LINES)
    lines = receipts._Lines()
    with pytest.raises(UsageError, match="look at fewer at once"):
        lines.read([file])
    assert len(lines.found) <= LINES


class Repeating(MemoryTransport):
    """Its broker gives what it gave before, whatever is asked for."""

    asked = 0

    async def read(self, stream: str, pattern: str, *, first: int, **how: Any) -> list[Message]:  # noqa: ANN401  as there
        self.asked += 1
        assert self.asked < 10, "it would be asked for ever"
        return await super().read(stream, pattern, first=1, **how)


async def test_a_broker_that_repeats_its_pages_is_asked_no_more() -> None:
    bridge, given = Fleet.make(policy(receipts_bytes=1024 * 1024)), list[bytes]()
    async with bridge.producer() as relay:
        await relay.submit("thumbs", "resize", "x")
    taken = receipts._Taken("thumbs", lambda _, page: given.append(page))
    async with bridge.transport("relay") as inner:
        broker = cast(JetStreamTransport, Repeating(inner._bridge, inner._cloud))
        with pytest.raises(TransportError, match="what was not asked for"):
            await taken._look(Clouds(), broker, bridge.connection("relay"))
    assert len(given) == 1
