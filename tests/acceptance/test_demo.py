"""`bunny demo` as a user types it: on real files of every sort, and against workers that must not pass."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bridge.cli.demo import leaks
from bridge.cli.demo.files import count, find
from bridge.job import INLINE_LIMIT
from tests.acceptance.typed import TIMEOUT_S, bunny, environment

WRONG = """\
from dataclasses import replace

from bridge.cli.demo.files import COUNT, Counts, count
from consumers import Worker

worker = Worker.from_env()


@worker.handler(COUNT)
def count_file(data: bytes) -> Counts:
    right = count(data)
    return replace(right, lines=right.lines + 1) if right.size == 6 else right
"""

LEAKY = """\
import secrets

from bridge import subjects
from bridge.cli.demo.files import COUNT, Counts, count
from bridge.member import Member, folder_from_env
from consumers import Worker

worker = Worker.from_env()


@worker.handler(COUNT)
async def count_file(data: bytes) -> Counts:
    # What it was sent sealed, it stores in clear: all that an honest broker lets a careless service do.
    transport = await Member.load(folder_from_env()).connect("leaks")
    await transport.publish("REFUSED_files", subjects.refused("files", secrets.token_hex(12)), data)
    await transport.close()
    return count(data)
"""


def fill(folder: Path) -> None:
    """Files of every sort."""
    folder.mkdir()
    (folder / "empty").write_bytes(b"")
    (folder / "short").write_bytes(b"a b a\n")
    (folder / "text").write_text("one line, and another\n" * 50 + "the last has no end")
    (folder / "binary").write_bytes(os.urandom(100_000))
    (folder / "below").mkdir()
    (folder / "below" / "again").write_bytes(os.urandom(5_000))
    (folder / "large").write_bytes(bytes(INLINE_LIMIT + 1))
    (folder / "just small enough").write_bytes(bytes(INLINE_LIMIT))
    (folder / "link").symlink_to("text")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe")


def test_every_sort_of_file_and_all_the_evidence(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    said = bunny("demo --json in in/short", tmp_path)
    seen = said.json
    assert said.err == ""
    assert (seen["holds"], seen["jobs"], seen["right"], seen["wrong"]) == (True, 6, 6, [])
    assert seen["bytes"] == 6 + 22 * 50 + 19 + 105_000 + INLINE_LIMIT
    assert 0 < seen["p50"] <= seen["p99"]
    assert seen["jobs_per_second"] > 0
    assert seen["first_result"] > 0
    assert all(size > 1 << 20 for size in seen["peak_memory"].values())
    assert len(seen["peak_memory"]) == 4
    reasons = Counter(each["reason"].split(",")[0] for each in seen["skipped"])
    assert reasons == {"above INLINE_LIMIT": 1, "a symbolic link": 2, "not a regular file": 1}

    evidence = seen["evidence"]
    for link in evidence["links"]:
        assert (link["version"], link["group"], link["in_clear"]) == ("TLS 1.3", "X25519MLKEM768", False)
    assert evidence["links"]
    assert [store["cloud"] for store in evidence["stores"]] == ["aws", "azure"]
    for store in evidence["stores"]:
        assert store["samples"] >= 9
        assert (store["found"], store["planted"]) == (0, 1)
    assert evidence["stored_jobs"] == 6
    assert len({attempt["act"] for attempt in evidence["attempts"]}) == 5
    assert all(attempt["refused"] for attempt in evidence["attempts"])
    words = [attempt["words"] for attempt in evidence["attempts"]]
    assert sum("Violation" in each for each in words) == 4
    assert "authentication error" in words[-1]


def test_the_files_of_the_package_where_none_are_named(tmp_path: Path) -> None:
    said = bunny("demo --dir kept", tmp_path)
    assert "all of it holds" in said.out
    for words in ("X25519MLKEM768", "peak memory, worker", "jobs/s", "Publish Violation"):
        assert words in said.out
    assert (tmp_path / "kept/logs/worker.log").is_file()
    again = bunny("demo --dir kept", tmp_path, code=1)
    assert again.error == "kept: an earlier demo or a bridge is there; name another folder with --dir"


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    for number in range(2_000):
        (tmp_path / f"{number}.txt").write_text(f"file number {number}\n" * 100)
    (tmp_path / "tmp").mkdir()
    demo = subprocess.Popen(
        [sys.executable, "-m", "bridge.cli", "demo", tmp_path],
        env=environment(TMPDIR=str(tmp_path / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    assert "both clouds are up" in demo.stdout.readline()
    demo.send_signal(signal.SIGTERM)
    _, said = demo.communicate(timeout=TIMEOUT_S)
    assert (demo.returncode, said) == (130, "")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_worker_that_answers_wrongly_is_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    (tmp_path / "app.py").write_text(WRONG)
    seen = bunny("demo --json --worker app:worker in", tmp_path, code=1).json
    assert (seen["holds"], seen["jobs"], seen["right"]) == (False, 6, 5)
    assert [each["path"] for each in seen["wrong"]] == ["in/short"]
    plain = bunny("demo --worker app:worker in/short", tmp_path, code=1)
    assert "NOT all of it holds" in plain.out
    assert "not all of it holds" in plain.error


def test_a_service_that_stores_in_clear_is_noticed(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    (tmp_path / "app.py").write_text(LEAKY)
    seen = bunny("demo --json --worker app:worker in", tmp_path, code=1).json
    assert (seen["holds"], seen["right"]) == (False, 6)
    hub, leaf = seen["evidence"]["stores"]
    assert hub["found"] == 0
    assert leaf["found"] >= leaf["samples"] - 4  # the text repeats itself, so two of its samples may be one


def test_what_cannot_be_demonstrated(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert "none: no file to make a job of" in bunny("demo none", tmp_path, code=1).error
    assert "nosuch: no such file or folder" in bunny("demo nosuch", tmp_path, code=1).error
    (tmp_path / "file").write_text("a file")
    ended = bunny("demo --worker nosuch:worker file", tmp_path, code=3)
    assert "the worker ended with code 1 (bunny: no module 'nosuch'" in ended.error


# --- its parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "lines", "words", "top"),
    [
        (b"", 0, 0, ("", 0)),
        (b"b a\nb a", 1, 4, ("a", 2)),
        (b"a_1 a_1 \xff\xfe b", 0, 3, ("a_1", 2)),
        (b"\n\n", 2, 0, ("", 0)),
    ],
)
def test_counting(data: bytes, lines: int, words: int, top: tuple[str, int]) -> None:
    counts = count(data)
    assert (counts.size, counts.lines, counts.words) == (len(data), lines, words)
    assert (counts.top_word, counts.top_count) == top


def test_finding_each_file_once(tmp_path: Path) -> None:
    fill(tmp_path / "in")
    os.link(tmp_path / "in/text", tmp_path / "in/text, again")
    taken, _ = find([tmp_path / "in", tmp_path / "in/below", tmp_path])
    assert sorted(path.name for path in taken) == ["again", "binary", "empty", "just small enough", "short", "text"]


def test_the_search_finds_samples_wherever_they_lie(tmp_path: Path) -> None:
    samples = [os.urandom(leaks.SAMPLE) for _ in range(300)]
    data = bytearray(os.urandom((2 << 20) + 5))
    edge = 1 << 20
    places = [0, 1, 15, 16, len(data) - 32, *range(edge - 40, edge + 40, 33), edge * 2 - 16]
    for number, at in enumerate([*places, *range(100, 200_000, 1_001)]):
        data[at : at + 32] = samples[number % len(samples)]
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "1.blk").write_bytes(data)
    (tmp_path / "empty").write_bytes(b"")
    found = leaks.Search(samples).look(tmp_path)
    assert found.bytes_read == len(data)
    assert found.samples == Counter({s: n for s in samples if (n := bytes(data).count(s))})
    assert found.occurrences > 200


def test_samples_say_something(tmp_path: Path) -> None:
    assert leaks.pick(bytes(1000)) == set()
    assert leaks.pick(b"short") == set()
    text = b"The quick brown fox jumps over the lazy dog, and does so 1,234 times."
    picked = leaks.pick(text * 3)
    assert 0 < len(picked) <= leaks.PER_FILE
    assert all(sample in text * 3 for sample in picked)
