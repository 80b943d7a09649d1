"""`bunny receipts` as a user types it: exported from both clouds, looked at, and verified with no server near."""

from __future__ import annotations

import json
from pathlib import Path

from bridge.job import JobToken
from tests.acceptance.test_cli_jobs import APP, submit, working
from tests.acceptance.typed import bunny, up
from tests.support import POLICY, write_policy

RECEIPTS = POLICY.replace("kinds: [resize, probe]", "kinds: [resize, probe]\n    receipts: on")


def test_what_was_done_is_exported_shown_and_verified(tmp_path: Path) -> None:
    write_policy(tmp_path, RECEIPTS)
    (tmp_path / "app.py").write_text(APP)
    with up("up --json", tmp_path) as running:
        running.until("version")
        none = bunny("receipts export lookup --out x", tmp_path, code=1)
        assert none.error == "queue 'lookup' leaves no receipts; say receipts: on in bridge.yaml"
        with working("app:bunny", tmp_path):
            submit(tmp_path, "resize", '{"width": 1}', "--wait")
            bunny("submit thumbs resize --identity .bunny/identities/alpha --wait", tmp_path, '{"width": -1}', code=5)
        told = bunny("receipts export thumbs --out all.jsonl --json", tmp_path).json
        assert told["pages"].keys() == {"aws", "azure"}
        assert told["pages"]["aws"] >= 2  # a session for each command
        bunny("receipts export thumbs --cloud azure --out azure.jsonl", tmp_path)
        shown = bunny("receipts show thumbs --json", tmp_path).json
        assert [run["outcome"] for run in shown["runs"]] == ["failed", "succeeded"]
        token = JobToken.parse(submit(tmp_path, "resize", '{"width": 2}'))
        bunny("receipts export thumbs --out more.jsonl", tmp_path)

    whole = bunny("receipts verify all.jsonl --json", tmp_path).json  # the bundle of .bunny; no server runs
    assert (whole["whole"], whole["runs"], whole["sessions"]) == (True, 2, 3)
    assert "whole" in bunny("receipts verify all.jsonl azure.jsonl --bundle .bunny/trust.json", tmp_path).out
    table = bunny("receipts show all.jsonl", tmp_path).out
    assert "alpha > bunny" in table
    assert "not verified" in table

    waiting = bunny("receipts verify more.jsonl", tmp_path, code=3)
    assert f"thumbs alpha {token.key.job_id}: not accepted" in waiting.out
    assert waiting.error == "not whole: 1 thing is missing or wrong"
    half = bunny("receipts verify azure.jsonl --json", tmp_path, code=3).json
    assert [line.rpartition(": ")[2] for line in half["problems"]] == ["not submitted"] * 2

    lines = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)
    page = json.loads(lines[0])
    page["payload"] = page["payload"][:-8] + "AAAA" + page["payload"][-4:]
    (tmp_path / "altered.jsonl").write_bytes(b"".join([json.dumps(page).encode() + b"\n", *lines[1:]]))
    altered = bunny("receipts verify altered.jsonl", tmp_path, code=3)
    assert "altered.jsonl:1: " in altered.out
    missing = bunny("receipts verify none.jsonl", tmp_path, code=1)
    assert missing.error == "none.jsonl: cannot be read (No such file or directory)"
    (tmp_path / "empty.jsonl").touch()
    nothing = bunny("receipts verify empty.jsonl --json", tmp_path, code=3)
    assert (nothing.error, nothing.json["whole"]) == ("no receipts: nothing is proven", False)
