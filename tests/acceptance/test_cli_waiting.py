"""`bunny submit` where nobody answers: what it says, how long it waits, and what it offers instead."""

from __future__ import annotations

from pathlib import Path

from tests.acceptance.test_cli_jobs import bridge
from tests.acceptance.typed import bunny


def test_a_queue_that_is_none_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with bridge(tmp_path):
        said = bunny("submit thumbnails resize", tmp_path, "1", code=1)
        assert said.error.endswith("may submit to queue 'thumbnails'; there is lookup, thumbs")


def test_waiting_is_said_and_ends_soon_after_the_deadline(tmp_path: Path) -> None:
    with bridge(tmp_path):
        said = bunny("submit lookup find --deadline 1s --wait", tmp_path, '"it"', code=None)
        token, waiting, error = said.err.splitlines()
        assert token.startswith("lookup.gamma.")
        assert waiting == "waiting for its result, 6 s at most; ^C ends the waiting"
        assert "no result in 6 s" in error
        assert said.code == bunny("job wait --timeout 100ms", tmp_path, token, code=None).code != 0
