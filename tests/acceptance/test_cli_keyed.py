"""`bunny submit --key`: the same job, as often as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

from bridge.job import JobToken
from tests.acceptance.test_cli_jobs import bridge, submit, working
from tests.acceptance.typed import bunny


def test_a_key_is_one_job(tmp_path: Path) -> None:
    good, bad = json.dumps({"width": 1}), json.dumps({"width": -1})
    with bridge(tmp_path):
        token = submit(tmp_path, "resize", good, "--key", "order-42")
        assert submit(tmp_path, "resize", good, "--key", "order-42") == token
        assert bunny("job show --json", tmp_path, token).json["state"] == "queued"
        other = "submit thumbs resize --key order-42 --identity .bunny/identities/alpha"
        assert "order-42" in bunny(other, tmp_path, bad, code=1).error
        failed = submit(tmp_path, "resize", bad, "--key", "order-43")
        with working("app:bunny", tmp_path):
            assert bunny("job wait --json", tmp_path, token).json["result"]["width"] == 2
            assert "BadWidth" in bunny("job wait", tmp_path, failed, code=5).error
            assert submit(tmp_path, "resize", bad, "--key", "order-43") == failed
            again = JobToken.parse(submit(tmp_path, "resize", bad, "--key", "order-43", "--retry-failed"))
            assert (again.session, again.generation) == (JobToken.parse(failed).session, 1)
            assert "BadWidth" in bunny("job wait", tmp_path, str(again), code=5).error
        assert bunny("job show --json", tmp_path, failed).json["generation"] == 1
