"""Files that someone else wrote: keys, bundles, connections, folders; and results on their way to a terminal."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.bundle import sign_payload
from bridge.cli.out import Out, when
from bridge.cli.results import Arrived, print_result
from bridge.cli.where import find_bridge, find_policy
from bridge.errors import ConfigurationError
from bridge.files import write_file
from bridge.identity import Connection, Identity, PublicIdentity
from bridge.job import Content
from bridge.policy import load_policy
from bridge.render.conf import write
from bridge.trust import Trust
from consumers import process
from tests.acceptance.typed import bunny, environment
from tests.world import World

PLAIN: dict[str, Any] = {
    "version": 1,
    "bridge": "acme",
    "identity": "relay",
    "cloud": "aws",
    "role": "service",
    "server": "tls://localhost:4222",
    "queues": {
        "thumbs": {
            "home": "aws",
            "work": "azure",
            "producers": ["relay"],
            "workers": "bunny",
            "kinds": ["resize"],
            "ack_wait_ms": 1,
            "max_attempts": 1,
            "backoff_initial_ms": 1,
            "backoff_factor": 1.0,
            "backoff_max_ms": 1,
            "backoff_jitter": 0.0,
            "deadline_ms": 1,
            "result_ttl_ms": 1,
            "max_payload": 1,
        }
    },
}
BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        "server: 2026-99-99",
        "server: " + "9" * 5000,
        "server: !!int x",
        "server: !!bool x",
        "server: !!timestamp x",
        "server: &a [*a]",
        "[" * 3000,
        '"\\ud800": 1',
        BOMB,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_a_hostile_connection_file_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "connection.yaml").write_text(text)
    with pytest.raises(ConfigurationError) as refusal:
        Connection.load(tmp_path)
    assert str(refusal.value).isprintable()


def test_an_unknown_key_of_a_connection_file_cannot_drive_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "connection.yaml").write_text(json.dumps({**PLAIN, "\x1b]0;mine\x07": 1}))
    with pytest.raises(ConfigurationError, match="extra_forbidden") as refusal:
        Connection.load(tmp_path)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "a b", "a\r\nPUB x 1", "A", "a" * 64, "../a"], ids=repr)
@pytest.mark.parametrize("field", ["bridge", "identity", "cloud", "role", "home", "work", "producers", "kinds"])
def test_a_name_of_a_connection_file_is_a_token_of_subjects_and_nothing_else(
    name: str, field: str, tmp_path: Path
) -> None:
    value = json.loads(json.dumps(PLAIN))
    there = value if field in value else value["queues"]["thumbs"]
    there[field] = [name] if isinstance(there[field], list) else name
    (tmp_path / "connection.yaml").write_text(json.dumps(PLAIN))
    Connection.load(tmp_path)
    (tmp_path / "connection.yaml").write_text(json.dumps(value))
    with pytest.raises(ConfigurationError, match=field):
        Connection.load(tmp_path)


@pytest.mark.parametrize("epoch", ["0", [0], True, -1, 2**53, None], ids=repr)
def test_an_epoch_that_no_bundle_could_hold_is_refused_before_it_is_signed(epoch: object, tmp_path: Path) -> None:
    _refused_public(lambda value: value["kem"][0].update(epoch=epoch), tmp_path)


@pytest.mark.parametrize("kind", ["sign", "kem"])
def test_a_public_half_holds_nothing_that_is_not_public(kind: str, tmp_path: Path) -> None:
    _refused_public(lambda value: value[kind][0].update(seed="AAAA"), tmp_path)


def _refused_public(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    value = json.loads(Identity.generate("relay").public().to_json())
    change(value)
    (tmp_path / "relay.json").write_text(json.dumps(value))
    with pytest.raises(ConfigurationError, match="not a public identity"):
        PublicIdentity.load(tmp_path / "relay.json")


@pytest.mark.parametrize("text", ['a"', "a\\", "a\n", "a\r", "a\0", "a\u2028", "a\x1b"], ids=repr)
def test_no_string_ends_its_quotes_in_a_configuration(text: str) -> None:
    for entries in ({"key": text}, {"key": [text]}, {"key": {"inner": text}}, {text: "value"}):
        with pytest.raises(ValueError, match="not a string"):
            write(entries)


def test_h38_the_highest_version_there_can_be_does_not_lock_its_folder(tmp_path: Path) -> None:
    world = World()
    (tmp_path / "trust.json").write_bytes(sign_payload(world.payload(2**53 - 1), world.roots))
    (tmp_path / "roots.json").write_bytes(world.roots_json())
    for _ in range(2):
        assert Trust.load(tmp_path, world.now).version == 2**53 - 1


def test_h38_a_bundle_signed_ahead_of_time_gets_no_further_signature(tmp_path: Path) -> None:
    bunny("init", tmp_path)
    policy = tmp_path / "bridge.yaml"
    policy.write_text(policy.read_text().replace("threshold: 1", "threshold: 3"))
    for name in load_policy(policy).identities:
        bunny(f"keys new {name}", tmp_path)
    bunny("trust init --roots 3", tmp_path)
    one, two, _ = sorted((tmp_path / "roots").glob("*.json"))
    # The first holder's clock is years ahead: so would the expiry be that the others sign.
    ahead = (
        "import time; now = time.time_ns; time.time_ns = lambda: now() + 10**17\nfrom bridge.cli import main; main()"
    )
    command = [sys.executable, "-c", ahead, "trust", "sign", "--root", str(one)]
    subprocess.run(command, cwd=tmp_path, env=environment(), check=True, capture_output=True)
    said = bunny("trust sign --add --root", tmp_path, two, code=4)
    assert "signed in the future" in said.error


@pytest.mark.parametrize("find", [lambda: find_policy(None), lambda: find_bridge(None)], ids=["policy", "bridge"])
def test_what_another_user_left_in_a_folder_above_is_not_taken_for_ours(
    find: Callable[[], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "mine"
    here.mkdir()
    (tmp_path / ".bunny").mkdir()
    for file in (tmp_path / "bridge.yaml", tmp_path / ".bunny" / "ready.json"):
        file.write_text(json.dumps({"version": 1, "pid": 1, "clouds": {}, "link": {}, "identities": {}}))
    monkeypatch.chdir(here)
    find()
    if os.geteuid() == 0:  # what root owns is as good as ours, so let it be someone else's
        for file in (tmp_path / "bridge.yaml", tmp_path / ".bunny" / "ready.json"):
            os.chown(file, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        find()


def test_writing_a_file_changes_nothing_that_a_link_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, folder = tmp_path / "shadow", tmp_path / "theirs"
    secret.write_text("secret")
    secret.chmod(0o600)
    folder.mkdir()
    (folder / "target").symlink_to(secret)
    write_file(folder / "target", "harmless")
    assert not (folder / "target").is_symlink()
    real = os.fsync

    def swap(handle: int) -> None:
        """What the owner of the folder may do at any moment."""
        real(handle)
        (temporary,) = (path for path in folder.iterdir() if path.name.startswith(".target."))
        temporary.unlink()
        temporary.symlink_to(secret)

    monkeypatch.setattr(os, "fsync", swap)
    write_file(folder / "target", "harmless")
    assert secret.read_text() == "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


# --- on the way to a terminal -----------------------------------------------------------------------


def test_a_result_is_printed_as_it_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"text": ":smile: [red]x[/red] [link=x]y[/link]"}
    content = Content("application/json", json.dumps(value).encode())
    print_result(Out(False), "token", Arrived(content, len(content.body), None))
    assert json.loads(capsys.readouterr().out) == value


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b"NaN", b"\xff", b'"\\ud800"'], ids=lambda b: repr(b[:8]))
@pytest.mark.parametrize("as_json", [False, True])
def test_a_result_that_is_not_the_json_it_says_it_is_ends_no_command(
    body: bytes, as_json: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    print_result(Out(as_json), "token", Arrived(Content("application/json", body), len(body), None))
    out = capfdbinary.readouterr().out
    if as_json:
        assert "base64" in json.loads(out, parse_constant=lambda word: pytest.fail(word))
    else:
        assert out == body


def test_a_time_beyond_every_calendar_is_printed_all_the_same() -> None:
    assert when(2**53 - 1) == "9999-12-31 23:59 UTC"


def test_an_error_of_a_worker_cannot_drive_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        serving = False

        async def run(self) -> None:
            raise ConfigurationError("\x1b]0;mine\x07 and \u202e and\nbunny: all is well")

        def stop(self) -> None:
            """Never serving."""

    with pytest.raises(SystemExit):
        process.main(Broken())
    err = capsys.readouterr().err
    first, second = err.splitlines()
    assert first.isprintable()
    assert second == "       bunny: all is well", "and no line of ours"
