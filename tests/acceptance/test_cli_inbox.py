"""`bunny inbox` against a running bridge: what is unread is shown, and taken."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.acceptance.test_cli_jobs import APP, submit, working
from tests.acceptance.typed import TIMEOUT_S, bunny, up
from tests.support import POLICY, write_policy

BOXED = POLICY.replace("    kinds: [resize, probe]\n", "    kinds: [resize, probe]\n    inbox: [alpha]\n")


def test_an_inbox_from_the_first_look_to_the_last_ack(tmp_path: Path) -> None:
    write_policy(tmp_path, BOXED)
    (tmp_path / "app.py").write_text(APP)
    with up("up --json", tmp_path, 3 * TIMEOUT_S) as running:
        running.until("version")
        with working("app:bunny", tmp_path):
            good = submit(tmp_path, "resize", '{"width": 1}')
            bad = submit(tmp_path, "resize", '{"width": -1}')
            table = bunny("inbox thumbs --limit 2 --wait 20s", tmp_path).out
        assert good in table
        assert "failed" in table
        seen = bunny("inbox thumbs --json --wait 5s", tmp_path).json  # a look takes nothing
        assert (seen["acked"], seen["refused"]) == (False, 0)
        by_token = {each["token"]: each for each in seen["results"]}
        assert set(by_token) == {good, bad}
        assert (by_token[good]["status"], by_token[good]["result"]["width"]) == ("succeeded", 2)
        assert (by_token[bad]["status"], by_token[bad]["error"]["type"]) == ("failed", "BadWidth")
        unread = bunny("queue show thumbs --json", tmp_path).json["inboxes"]["alpha"]
        assert unread["unread"] == 2
        assert 0 < unread["oldest_ms"] < 600_000

        assert len(bunny("inbox thumbs --ack --limit 1 --wait 20s --json", tmp_path).json["results"]) == 1
        with up("inbox thumbs --ack --follow --json", tmp_path) as following:
            line = json.loads(following.until("token"))
            assert line["token"] in (good, bad)
            for _ in range(20):  # it acks what it has written, unless it is ended before that
                if not bunny("queue show thumbs --json", tmp_path).json["inboxes"]["alpha"]["unread"]:
                    break
        shown = bunny("queue show thumbs", tmp_path).out
        assert re.search(r"alpha +0 +0 +0s +1d", shown)

        assert "say --ack too" in bunny("inbox thumbs --follow", tmp_path, code=1).error
        assert "may read an inbox on queue 'lookup'; there is thumbs" in bunny("inbox lookup", tmp_path, code=1).error
