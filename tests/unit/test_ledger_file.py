"""The ledger's file: what SQLite is told, and what comes of a file that is damaged, foreign or another's."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import time
from itertools import count
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from consumers import ledgerfile
from consumers.ledger import LEAST_LIMIT
from consumers.ledgerfile import FILE, LedgerFile, Row


def opened(data: Path, limit: int = LEAST_LIMIT) -> contextlib.closing[LedgerFile]:
    return contextlib.closing(LedgerFile.open(data, limit))


def filled(data: Path, count: int = 2000) -> Path:
    """The file of a ledger that holds so many jobs."""
    with opened(data) as file:
        for n in range(count):
            file.put(f"thumbs.relay.{n}", Row(bytes(32), b"", 1, bytes(2300)), n)
    return data / FILE


def test_what_another_program_or_a_later_release_wrote_is_left_alone(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        db.execute("CREATE TABLE theirs (a)")
    with pytest.raises(ConfigurationError, match="another program's file"):
        LedgerFile.open(tmp_path, LEAST_LIMIT)
    later = filled(tmp_path / "later", 1)
    with contextlib.closing(sqlite3.connect(later)) as db:
        db.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigurationError, match="a ledger of version 2"):
        LedgerFile.open(later.parent, LEAST_LIMIT)


def test_nobody_else_reads_it_and_a_mount_that_opened_it_is_put_right(tmp_path: Path) -> None:
    data = tmp_path / "not" / "there"
    path = filled(data, 1)
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    path.chmod(0o660)
    with opened(data) as file:
        file.put("thumbs.relay.1", Row(bytes(32), b"", 1, b"x"), 1)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in data.iterdir()}
    assert len(modes) == 4
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("place", ["file", "link"])
def test_a_folder_that_cannot_be_used_is_told_in_a_line(place: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    if place == "file":
        data.write_text("")
    else:
        data.mkdir()
        (data / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="data"):
        LedgerFile.open(data, LEAST_LIMIT)
    assert not (tmp_path / "elsewhere").exists()


def test_jobs_are_forgotten_when_they_are_over_and_their_room_is_used_again(tmp_path: Path) -> None:
    path = filled(tmp_path, 2000)
    size = path.stat().st_size
    with opened(tmp_path) as file:
        used = file.used
        assert file.find("thumbs.relay.1000", 999) is not None
        assert file.find("thumbs.relay.1000", 1000) is None
        assert sum(iter(lambda: file.forget(999, 64), 0)) == 1000
        assert file.used < 0.6 * used
        for n in range(1000):
            file.put(f"thumbs.relay.again.{n}", Row(bytes(32), b"", 1, bytes(2300)), 5000)
    assert path.stat().st_size < 1.1 * size


def test_a_log_that_is_written_without_a_pause_does_not_grow_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgerfile, "LONGEST_LOG", 1 << 20)
    monkeypatch.setattr(ledgerfile, "CHECKPOINT", 1 << 19)
    log, size, cut, give_up = tmp_path / f"{FILE}-wal", 0, 0, time.monotonic() + 60
    with opened(tmp_path, 64 << 20) as file:
        for n in count():
            file.put(f"thumbs.relay.{n % 100}", Row(bytes(32), b"", 1, bytes(2300)), n)
            before, size = size, log.stat().st_size
            cut += size < before  # how much was written by then is up to the machine: the thread is one of many
            if cut == 3 and n >= 100:
                break
            assert time.monotonic() < give_up
    with contextlib.closing(sqlite3.connect(tmp_path / FILE)) as db:
        assert db.execute("SELECT count(*) FROM jobs").fetchone() == (100,)
