"""The programs in `bench/`: nothing else runs them, so that they begin at all is seen here."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pytest

import bench
from bench import waiting
from bench.policy import bench_policy


@pytest.mark.parametrize("name", sorted(each.name for each in pkgutil.iter_modules(bench.__path__)))
def test_a_program_finds_what_it_imports(name: str) -> None:
    importlib.import_module(f"bench.{name}")


def test_the_queue_has_room_for_as_many_jobs_as_are_to_wait(tmp_path: Path) -> None:
    assert bench_policy(tmp_path).queues["bench"].max_pending < 10_000_000
    assert bench_policy(tmp_path, room=waiting.ROOM).queues["bench"].max_pending == 10_000_000
