"""`bunny dead` against a running bridge: what died is listed, shown, replayed and dropped by an operator."""

from __future__ import annotations

import json
from pathlib import Path

from bridge.job import JobToken
from tests.acceptance.test_cli_jobs import APP, submit, working
from tests.acceptance.typed import bunny, up
from tests.support import POLICY, write_policy

OPERATED = POLICY.replace("  link-azure:", "  boss-azure: {cloud: azure, role: operator}\n  link-azure:")


def test_dead_letters_from_the_list_to_the_replay(tmp_path: Path) -> None:
    write_policy(tmp_path, OPERATED)
    (tmp_path / "app.py").write_text(APP)
    with up("up --json", tmp_path) as running:
        running.until("version")
        assert bunny("dead ls --json", tmp_path).json == {"letters": [], "more": {}}
        with working("app:bunny", tmp_path):
            tokens = [submit(tmp_path, "resize", json.dumps({"width": -width})) for width in (1, 2, 3)]
            for token in tokens:
                assert "BadWidth" in bunny("job wait", tmp_path, token, code=5).error

        listed = bunny("dead ls thumbs --cause BadWidth --kind resize --producer alpha --since 1h --json", tmp_path)
        letters = listed.json["letters"]
        assert [letter["token"] for letter in letters] == tokens
        assert {(letter["cause"], letter["attempt"], letter["generation"]) for letter in letters} == {
            ("BadWidth", "1", 0)
        }
        assert bunny("dead ls --cause Expired --json", tmp_path).json["letters"] == []
        first, second, third = (letter["letter"] for letter in letters)
        table = bunny("dead ls thumbs", tmp_path).out
        assert first in table
        assert "BadWidth" in table
        page = bunny("dead ls thumbs --limit 2 --json", tmp_path).json
        assert [letter["letter"] for letter in page["letters"]] == [first, second]
        rest = bunny(f"dead ls thumbs --after {page['more']['thumbs']} --json", tmp_path).json
        assert [letter["letter"] for letter in rest["letters"]] == [third]

        shown = bunny("dead show --json", tmp_path, tokens[1]).json
        assert (shown["letter"], shown["verified"]) == (second, "yes, signed by alpha")
        assert "yes, signed by alpha" in bunny("dead show", tmp_path, second).out

        ordered = bunny("dead replay --json", tmp_path, tokens[0]).json
        (replayed,) = ordered["replayed"]
        assert replayed["letter"] == first
        assert "ordered already" in bunny("dead replay", tmp_path, first, code=1).error
        assert "say --yes" in bunny("dead replay --all --queue thumbs", tmp_path, code=1).error
        some = bunny("dead replay --all --queue thumbs --yes --json", tmp_path, code=1).json
        assert [letter["letter"] for letter in some["replayed"]] == [second, third]
        assert [letter["letter"] for letter in some["failed"]] == [first]

        (tmp_path / "app.py").write_text(APP.replace("args.width < 0", "args.width < -2"))
        with working("app:bunny", tmp_path):
            again = bunny("job wait --json", tmp_path, replayed["token"]).json
            assert again["result"] == {"width": -2, "name": "Blåbär"}
            newest = bunny("job wait --json --generation 1", tmp_path, tokens[1]).json
            assert newest["result"]["width"] == -4
            assert "BadWidth" in bunny("job wait --generation 1", tmp_path, tokens[2], code=5).error
        shown = bunny("job show --json", tmp_path, tokens[0]).json
        assert (shown["state"], shown["generation"]) == ("succeeded", 1)
        assert bunny("job show --json --generation 0", tmp_path, tokens[0]).json["state"] == "failed"

        (left,) = bunny("dead ls --json", tmp_path).json["letters"]
        assert left["token"] == str(JobToken.parse(tokens[2])._replace(generation=1))
        assert left["history"] == "0 BadWidth 1"
        assert bunny("dead drop --json", tmp_path, left["letter"]).json["dropped"] == [{"letter": left["letter"]}]
        assert bunny("dead ls --json", tmp_path).json["letters"] == []
        assert "no such dead letter" in bunny("dead drop", tmp_path, left["letter"], code=1).error


def test_dead_says_what_it_needs(tmp_path: Path) -> None:
    for line in ("replay", "replay --all", "drop thumbs/1 --queue thumbs", "drop thumbs/1 --kind resize"):
        assert "say which" in bunny(f"dead {line}", tmp_path, code=1).error
    for reference in ("thumbs/x", "thumbs/0", "*/1"):
        assert "QUEUE/NUMBER" in bunny("dead show", tmp_path, reference, code=1).error
    assert "job token" in bunny("dead show", tmp_path, "thumbs", code=1).error
