"""The commands that need no server: what they write, what they print, and what they refuse in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.typed import CHECKOUT, bunny, environment

EVERYONE = (
    "relay-api",
    "bunny",
    "ops-aws",
    "ops-azure",
    "sys-aws",
    "sys-azure",
    "provisioner-aws",
    "provisioner-azure",
    "azure-link",
)
COMMANDS = (
    *("init", "up", "keys new", "trust init", "trust sign", "trust show", "pki", "render", "provision"),
    *("demo", "submit", "job show", "job wait", "inbox", "queue ls", "queue show", "dead ls", "dead show", "open"),
    *("work", "schedule ls", "explain", "rotate sign", "rotate kem", "rotate nkey", "revoke"),
    *("rotate certs", "rotate ca", "rotate roots", "payload ls", "payload show"),
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first policy and everyone's keys, to be copied."""
    folder = tmp_path_factory.mktemp("keyed")
    bunny("init", folder)
    for name in EVERYONE:
        bunny("keys new", folder, name)
    return folder


@pytest.fixture
def keyed(once: Path, tmp_path: Path) -> Path:
    """A folder with the first policy and everyone's keys."""
    return Path(shutil.copytree(once, tmp_path / "keyed"))


# --- the frame -------------------------------------------------------------------------------------


def test_nothing_asked_shows_the_help_and_is_not_success(tmp_path: Path) -> None:
    said = bunny("", tmp_path, code=2)
    assert "Usage: bunny" in said.out
    assert "Exit codes: 0 done; 1 not done" in said.out
    assert "Usage: bunny trust" in bunny("trust", tmp_path, code=2).out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_and_knows_json(command: str, tmp_path: Path) -> None:
    said = bunny(f"{command} --help", tmp_path)
    assert f"Usage: bunny {command}" in said.out
    assert re.search(rf"Example:\s+(\w+=\S+ )?bunny {command}", said.out), said.out
    assert "--json" in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_the_version(tmp_path: Path) -> None:
    assert re.fullmatch(r"bunny (\d+\.\d+\.\d+|of a checkout .*)\n", bunny("--version", tmp_path).out)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nope", "No such command 'nope'."),
        ("init --nope", "No such option: --nope"),
        ("keys new", "Missing argument 'NAME'."),
        ("render", "Missing option '--out'."),
        ("trust init --roots many", "Invalid value for '--roots': Input should be a valid integer"),
        ("trust init --roots 99", "Invalid value for '--roots': Input should be less than or equal to 16"),
        ("pki --check pki --renew", "--check only describes"),
        ("provision --plan plan.json", "needs --identity FOLDER (or BUNNY_IDENTITY)"),
        ("up --hub-port 99999", "Invalid value for '--hub-port'"),
        ("explain bunny read x", "Invalid value for 'verb': 'read' is not one of 'publish', 'subscribe', 'request'"),
    ],
)
def test_a_command_line_that_is_none_is_one_line_and_2(line: str, words: str, tmp_path: Path) -> None:
    said = bunny(f"{line} --json", tmp_path, code=2)
    assert words in said.error
    assert words in said.json["message"]
    assert said.json["error"] == "UsageError"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("render --out r", "bridge.yaml: there is no such file; let `bunny init` write one"),
        ("render --out r --policy no.yaml", "no.yaml: there is no such file"),
        ("keys new bunny --policy no.yaml", "no.yaml: there is no such file"),
        ("keys new Relay.Api", "'Relay.Api': not a name that NATS and file systems can carry; say 'relay-api'"),
        ("trust init", "bridge.yaml: there is no such file"),
        ("trust show", "trust.json: cannot be read (No such file or directory)"),
        ("pki --check pki", "pki: holds no <cloud>/ca.pem; run `bunny pki`, or name the right folder"),
        ("provision", "no bridge runs here: start one with `bunny up`, or name its folder with --dir"),
        ("provision --dir elsewhere", "no bridge runs in elsewhere: start one with `bunny up`"),
        ("provision --identity me --plan plan.json", "me/connection.yaml: cannot be read (No such file or directory)"),
        ("up --policy no.yaml", "no.yaml: there is no such file"),
    ],
)
def test_what_is_missing_is_one_line_and_1(line: str, words: str, tmp_path: Path) -> None:
    said = bunny(f"{line} --json", tmp_path, code=1)
    assert words in said.error
    assert words in said.json["message"]
    assert not list(tmp_path.iterdir())


def test_a_reader_that_leaves_early_is_no_matter(keyed: Path) -> None:
    command = [sys.executable, "-m", "bridge.cli", "render", "--out", "r", "--json"]
    process = subprocess.Popen(
        command, cwd=keyed, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() == 1


def test_a_file_that_cannot_be_written_is_one_line(keyed: Path) -> None:
    (keyed / "r").write_text("a file where a folder must be")
    assert bunny("render --out r", keyed, code=1).error.startswith("r/aws/")


# --- init, and mistakes in what it wrote -----------------------------------------------------------


def test_init_writes_a_policy_that_works_and_never_over_another(tmp_path: Path) -> None:
    assert "wrote bridge.yaml" in bunny("init", tmp_path).out
    (tmp_path / "bridge.yaml").write_text("mine")
    assert bunny("init", tmp_path, code=1).error.startswith("bridge.yaml: exists already")
    assert (tmp_path / "bridge.yaml").read_text() == "mine"
    assert bunny("init --force --json", tmp_path).json == {"policy": "bridge.yaml"}
    bunny("pki", tmp_path)


def test_every_mistake_of_the_policy_is_a_line_and_nothing_is_written(keyed: Path) -> None:
    policy = keyed / "bridge.yaml"
    text = policy.read_text()
    policy.write_text(text.replace("workers: bunny", "workers: buny").replace("max_attempts: 5", "max_attempts: 0"))
    said = bunny("render --out r", keyed, code=1)
    lines = said.err.splitlines()
    assert len(lines) == 2
    assert all(re.match(r"bunny: bridge\.yaml:\d+: ", line) for line in lines)
    assert "did you mean 'bunny'?" in lines[0]
    problems = bunny("render --out r --json", keyed, code=1).json
    assert problems["error"] == "PolicyError"
    assert [sorted(each) for each in problems["problems"]] == [["file", "line", "problem", "remedy"]] * 2
    assert not (keyed / "r").exists()


def test_the_policy_is_found_from_a_folder_below(keyed: Path) -> None:
    below = keyed / "services" / "api"
    below.mkdir(parents=True)
    bunny("trust init", below)
    assert (keyed / "roots.json").exists()
    assert not list(below.iterdir())


# --- keys ------------------------------------------------------------------------------------------


def test_keys_are_private_where_they_run_and_public_where_they_are_reviewed(tmp_path: Path) -> None:
    bunny("init", tmp_path)
    said = bunny("keys new relay-api", tmp_path)
    private, public = tmp_path / "identities/relay-api/identity.json", tmp_path / "keys/relay-api.json"
    assert mode(private) == 0o600
    assert mode(private.parent) == mode(private.parent.parent) == 0o700
    assert (tmp_path / "identities/.gitignore").read_text() == "*\n"
    secret = json.loads(private.read_text())
    half = json.loads(public.read_text())
    for shown in ("identities/relay-api/identity.json", "keys/relay-api.json", half["nkey"], half["sign"][0]["kid"]):
        assert shown in said.out
    hidden = [secret["nkey_seed"], secret["dedup_secret"], secret["sign"][0]["seed"], secret["kem"][0]["seed"]]
    for text in (said.out, said.err, public.read_text()):
        assert not [each for each in hidden if each in text]


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    bunny("init", tmp_path)
    bunny("keys new bunny", tmp_path)
    before = (tmp_path / "identities/bunny/identity.json").read_bytes()
    assert "identity.json: exists already" in bunny("keys new bunny", tmp_path, code=1).error
    assert "keys/bunny.json: exists already" in bunny("keys new bunny --dir elsewhere", tmp_path, code=1).error
    assert (tmp_path / "identities/bunny/identity.json").read_bytes() == before
    assert not (tmp_path / "elsewhere").exists()


def test_a_name_that_the_policy_has_not_is_refused_with_the_nearest(tmp_path: Path) -> None:
    bunny("init", tmp_path)
    error = bunny("keys new relay-apo", tmp_path, code=1).error
    assert error == "'relay-apo' is not an identity of bridge.yaml; did you mean 'relay-api'?"


def test_a_service_without_the_policy_makes_its_keys_all_the_same(tmp_path: Path) -> None:
    said = bunny("keys new relay-api --dir mine --keys out", tmp_path)
    assert "There is no bridge.yaml here, so the name was not checked" in said.out
    assert (tmp_path / "mine/relay-api/identity.json").exists()
    assert (tmp_path / "out/relay-api.json").exists()
    link = bunny("keys new azure-link --link --json", tmp_path).json
    assert link["sign"] == link["kem"] == []


def test_the_link_gets_the_file_that_its_server_includes(keyed: Path) -> None:
    seed = keyed / "identities/azure-link/leaf-seed.conf"
    assert mode(seed) == 0o600
    assert re.fullmatch(r'LEAF_NKEY_SEED: "SU[A-Z2-7]+"\n', seed.read_text())


# --- trust -----------------------------------------------------------------------------------------


def test_two_of_three_holders_sign_one_after_the_other(keyed: Path) -> None:
    made = bunny("trust init --roots 3 --threshold 2 --json", keyed).json
    one, two, three = made["private"]
    assert {mode(keyed / each) for each in made["private"]} == {0o600}
    said = bunny("trust sign --root", keyed, one)
    assert "1 of 2 signatures: hand it to the next holder, for `bunny trust sign --add`" in said.out
    shown = bunny("trust show", keyed, code=4)
    assert "REFUSED  trust.json: BelowThreshold" in shown.out
    assert "What it claims, NOT verified:" in shown.out
    assert "1 of the roots in roots.json signed it, 2 must" in shown.error
    assert "has signed it already" in bunny("trust sign --add --root", keyed, one, code=4).error
    assert bunny("trust sign --add --json --root", keyed, two).json["complete"] is True
    shown = bunny("trust show", keyed)
    assert shown.out.startswith("VALID    trust.json\n")
    assert re.search(r"^relay-api +aws +service +[0-9a-f]{16} +[0-9a-f]{16}$", shown.out, re.MULTILINE)
    assert re.search(r"^thumbnails +relay-api +bunny +probe, resize", shown.out, re.MULTILINE)
    bunny("trust sign --add --root", keyed, three)
    says = bunny("trust show --json", keyed).json
    assert says["valid"] is True
    assert [each["valid"] for each in says["signatures"]] == [True, True, True]
    assert "every root key here has signed it already" in bunny("trust sign --add", keyed, code=1).error


def test_holders_on_different_machines_join_one_roots_file(keyed: Path) -> None:
    policy = keyed / "bridge.yaml"
    policy.write_text(policy.read_text().replace("threshold: 1", "threshold: 2"))
    assert "Root keys still needed: 1." in bunny("trust init --join --dir usb-a", keyed).out
    assert "not a roots file" in bunny("trust sign --root", keyed, *(keyed / "usb-a").glob("*.json"), code=4).error
    assert bunny("trust init --join --dir usb-b --json", keyed).json["keys"] == 2
    bunny("trust sign --root", keyed, *(keyed / "usb-a").glob("*.json"))
    bunny("trust sign --add --root", keyed, *(keyed / "usb-b").glob("*.json"))
    bunny("trust show", keyed)
    assert "has signed a bundle already" in bunny("trust init --join --dir usb-c", keyed, code=1).error


def test_whoever_adds_signs_what_their_own_policy_says(keyed: Path) -> None:
    one, two = bunny("trust init --roots 2 --threshold 2 --json", keyed).json["private"]
    bunny("trust sign --root", keyed, one)
    policy = keyed / "bridge.yaml"
    policy.write_text(policy.read_text().replace("kinds: [resize, probe]", "kinds: [resize]"))
    error = bunny("trust sign --add --root", keyed, two, code=1).error
    assert "trust.json: says something else than bridge.yaml and keys/ here" in error


def test_versions_only_grow(keyed: Path) -> None:
    bunny("trust init", keyed)
    assert bunny("trust sign --json", keyed).json["version"] == 1
    assert bunny("trust sign --json", keyed).json["version"] == 2
    assert bunny("trust sign --version 7 --json", keyed).json["version"] == 7
    assert "trust.json is version 7 already" in bunny("trust sign --version 7", keyed, code=1).error


def test_roots_are_never_overwritten_and_others_never_sign(keyed: Path) -> None:
    bunny("trust init", keyed)
    assert "roots.json: exists already" in bunny("trust init", keyed, code=1).error
    (keyed / "roots.json").unlink()
    bunny("trust init --dir other", keyed)
    assert "not in roots.json" in bunny("trust sign", keyed, code=1).error


def test_a_bundle_that_was_changed_or_is_signed_by_others_is_refused_by_name(keyed: Path) -> None:
    bunny("trust init", keyed)
    bunny("trust sign", keyed)
    bundle = json.loads((keyed / "trust.json").read_text())
    bundle["signatures"][0]["sig"] = "A" * 86 + "=="
    (keyed / "bad.json").write_text(json.dumps(bundle))
    said = bunny("trust show bad.json", keyed, code=4)
    assert "REFUSED  bad.json: BelowThreshold" in said.out
    assert "a root, DOES NOT verify" in said.out
    (keyed / "bad.json").write_text("{}")
    said = bunny("trust show bad.json --json", keyed, code=4)
    assert said.json["error"] == "BadBundle"
    assert said.json["valid"] is False


def test_a_bundle_older_than_what_a_service_accepted_is_refused(keyed: Path) -> None:
    bunny("trust init", keyed)
    bunny("trust sign", keyed)
    assert bunny("trust show --json", keyed, code=4, BUNNY_TRUST_MIN_VERSION="2").json["error"] == "BundleRolledBack"


def test_a_key_that_others_can_read_is_refused(keyed: Path) -> None:
    [root] = bunny("trust init --json", keyed).json["private"]
    os.chmod(keyed / root, 0o644)
    assert "lets others read a private key; run chmod 600 on it" in bunny("trust sign", keyed, code=1).error


def test_a_missing_public_half_is_named(keyed: Path) -> None:
    (keyed / "keys/bunny.json").unlink()
    for line in ("trust sign", "render --out r"):
        if line == "trust sign":
            bunny("trust init", keyed)
        assert "keys/bunny.json: missing; make it with `bunny keys new bunny`" in bunny(line, keyed, code=1).error


# --- certificates ----------------------------------------------------------------------------------


def test_certificates_are_issued_checked_and_renewed(tmp_path: Path) -> None:
    bunny("init", tmp_path)
    said = bunny("pki --host 127.0.0.1", tmp_path)
    assert re.search(r"^aws/leafnodes.pem +link +\S+ \(7 d\) +relay-leaf.bridge.internal, 127.0.0.1 *$", said.out, re.M)
    assert "private  pki/azure/root.key" in said.out
    assert {mode(key) for key in (tmp_path / "pki").glob("*/*.key")} == {0o600}
    assert "exists and is not overwritten" in bunny("pki", tmp_path, code=1).error
    root, leaf = tmp_path / "pki/aws/ca.pem", tmp_path / "pki/aws/clients.pem"
    before = root.read_bytes(), leaf.read_bytes()
    renewed = bunny("pki --renew --cloud aws --json", tmp_path).json
    assert "pki/aws/clients.pem" in renewed["written"]
    assert all("127.0.0.1" in each["names"] for each in renewed["certificates"])
    assert root.read_bytes() == before[0]
    assert leaf.read_bytes() != before[1]
    said = bunny("pki --check pki", tmp_path)
    named = [line.rstrip() for line in said.out.splitlines() if ".pem" in line and ", 127.0.0.1" not in line]
    assert max(map(len, named)) <= 80
    (tmp_path / "pki/azure/link.pem").write_bytes(leaf.read_bytes())
    said = bunny("pki --check pki", tmp_path, code=1)
    assert "pki/azure/link.pem: its extended key usage must be clientAuth" in said.err
    assert "pki/azure/link.pem: it does not chain to pki/azure/ca.pem" in said.err
    assert "no cloud of the policy; it has aws, azure" in bunny("pki --cloud gcp --out p", tmp_path, code=1).error


# --- rendering -------------------------------------------------------------------------------------


def test_rendering_is_the_same_each_time_and_says_what_changed(keyed: Path) -> None:
    said = bunny("render --out r", keyed)
    assert "new       r/aws/accounts.conf" in said.out
    assert "21 files, 21 of them written, in r" in said.out
    assert bunny("render --out r --json", keyed).json["files"]["azure/leaf.conf"] == "unchanged"
    assert bunny("render --out r --check", keyed).out == "21 files, 0 of them not up to date, in r\n"
    assert (keyed / "r/aws/hub.conf").read_bytes() == (CHECKOUT / "nats/hub.conf").read_bytes()
    (keyed / "r/azure/link.conf").write_text("HUB_LEAF_URLS: elsewhere\n")
    (keyed / "r/aws/connections/old.yaml").write_text("")
    said = bunny("render --out r --check", keyed, code=1)
    assert "changed   r/azure/link.conf" in said.out
    assert said.error == "r/azure/link.conf: is not what bridge.yaml says; run `bunny render --out r`"
    assert bunny("render --out r --check --json", keyed, code=1).json["written"] is False
    said = bunny("render --out r", keyed)
    assert "left      r/aws/connections/old.yaml (not of this policy" in said.out
    assert (keyed / "r/aws/connections/old.yaml").exists()
    bunny("render --out r --check", keyed)


def test_rendering_needs_no_private_key_and_shows_none(keyed: Path) -> None:
    (keyed / "identities").rename(keyed / "gone")
    bunny("render --out r", keyed)
    rendered = "".join(path.read_text() for path in (keyed / "r").rglob("*") if path.is_file())
    for folder in (keyed / "gone").iterdir():
        if folder.is_dir():
            assert json.loads((folder / "identity.json").read_text())["nkey_seed"] not in rendered


def test_schedules_are_shown_in_their_zones(tmp_path: Path) -> None:
    bunny("init", tmp_path)
    assert "no schedules" in bunny("schedule ls", tmp_path).out
    policy = tmp_path / "bridge.yaml"
    shown = re.sub(r"(?m)^# (schedules:|  nightly:)", r"\1", policy.read_text().replace("  # agent-aws", "  agent-aws"))
    policy.write_text(shown.replace('"30 2 * * *", timezone: UTC', '"30 2 * * *", timezone: Asia/Tokyo'))
    said = bunny("schedule ls --next 2", tmp_path).out
    assert said.count("02:30:00 +0900") == 2
    (nightly,) = bunny("schedule ls --next 5 --json", tmp_path).json["schedules"]
    assert (nightly["name"], nightly["agent"], nightly["timezone"]) == ("nightly", "agent-aws", "Asia/Tokyo")
    assert [time[10:] for time in (nightly["last"], *nightly["next"])] == ["T17:30:00Z"] * 6
