"""compose.yaml, as it is: brought up, used, attacked, cut, killed, and taken down."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from testcontainers.compose import DockerCompose

from tests import nats_cli
from tests.containers.engine import ROOT, Images, build, docker, health, inspect, until

SERVERS = {"hub", "leaf"}
SERVICES = {*SERVERS, "bunny", "provision-aws", "provision-azure"}
EVERYONE = {"relay", "bunny", *(f"{who}-{cloud}" for who in ("ops", "provisioner") for cloud in ("aws", "azure"))}
EVERYONE |= {"azure-link"}
NOTICED_S = 60
"""A silent link is noticed after two pings without an answer, 10 s apart, and three looks of the health check."""


@dataclass
class Clouds:
    """Both clouds, running."""

    project: str
    folder: Path
    compose: DockerCompose
    command: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.command = [*self.compose.docker_compose_command(), "--progress", "quiet"]

    def container(self, service: str) -> str:
        return f"{self.project}-{service}-1"

    def network(self, name: str) -> str:
        return f"{self.project}_{name}"

    def address(self, service: str, network: str) -> str:
        networks = inspect(self.container(service))["NetworkSettings"]["Networks"]
        return str(networks[self.network(network)]["IPAddress"])

    def run(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        """A Compose command."""
        return subprocess.run(
            [*self.command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )

    def bunny(self, *arguments: str) -> str:
        """What a command of the producer's prints; it must succeed."""
        done = self.run("run", "--rm", "--no-TTY", "--no-deps", "--entrypoint", "bunny", "producer", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def clouds(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    folder = tmp_path_factory.mktemp("compose") / "clouds"
    prepare(folder)
    environment, project = folder.parent / "env", f"bunny-test-{os.getpid()}"
    files = folder.parent / "files"
    files.mkdir()
    for n in range(20):
        (files / f"{n}.txt").write_text("to be or not to be\n" * (n + 1))
    environment.write_text(f"{(folder / 'env').read_text()}COMPOSE_PROJECT_NAME={project}\nBUNNY_DEMO_FILES={files}\n")
    compose = DockerCompose(ROOT, env_file=[str(environment)], docker_command_path="docker", wait=True)
    try:
        compose.start()
        yield Clouds(project, folder, compose)
    finally:
        compose.stop()


def prepare(folder: Path) -> None:
    subprocess.run(
        [sys.executable, "deploy/compose/prepare.py", "deploy/compose/bridge.yaml", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )


def test_the_demo_answers_every_file_and_crosses_nowhere(clouds: Clouds) -> None:
    done = subprocess.run(
        ["deploy/compose/demo"],
        cwd=ROOT,
        env={**os.environ, "COMPOSE": " ".join(clouds.compose.docker_compose_command())},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 jobs, 20 answered rightly" in done.stdout
    assert re.search(r"first result after \d+ ms", done.stdout)
    assert "CROSSED" not in done.stdout
    for place in ("azure", "aws"):
        attempts = re.search(rf"from {place}: (\d+) attempts, (\d+) refused", done.stdout)
        assert attempts is not None
        assert attempts[1] == attempts[2] == "19"


def test_the_attack_tells_where_it_could_cross(clouds: Clouds) -> None:
    """On the link's network the hub answers: what was refused elsewhere was not so because the attack is lame."""
    hub = clouds.address("hub", "link")
    place = ("--network", clouds.network("link"), "--dns-option", "timeout:1", "--dns-option", "attempts:1")
    attack = (Images().demo, "attack.py", "azure", f"link={hub}")
    done = subprocess.run(
        ["docker", "run", "--rm", *place, "--entrypoint", "python3", *attack],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    crossed = {line.split()[2] for line in done.stdout.splitlines() if line.startswith("CROSSED  dial")}
    assert crossed == {f"{hub}:7422"}  # not 4222: for clients it listens on its own cloud's address alone


def test_only_the_servers_stand_on_the_link(clouds: Clouds) -> None:
    for name, members in {"link": SERVERS, "aws": {"hub"}, "azure": {"leaf", "bunny"}}.items():
        network = inspect(clouds.network(name))
        assert network["Internal"] is True
        assert {each["Name"] for each in network["Containers"].values()} == {clouds.container(m) for m in members}


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_containers_may_do_nothing_but_their_work(clouds: Clouds, service: str) -> None:
    container = inspect(clouds.container(service))
    host = container["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Privileged"] is False
    assert min(host["Memory"], host["NanoCpus"], host["PidsLimit"]) > 0
    assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}
    assert container["Config"]["User"].startswith("10001:")
    assert not host["PortBindings"]
    for path in clouds.folder.glob("identities/*/identity.json"):
        assert json.loads(path.read_text())["nkey_seed"] not in json.dumps(container)


@pytest.mark.parametrize("service", sorted(SERVERS | {"bunny"}))
def test_what_runs_has_no_privilege(clouds: Clouds, service: str) -> None:
    """As the kernel says, whatever the file asks for."""
    name = clouds.container(service)
    found = docker("exec", name, "grep", "-E", "^(Uid|Gid|CapEff|CapBnd|NoNewPrivs|Seccomp):", "/proc/1/status")
    status = {line.split(":")[0]: line.split()[1:] for line in found.splitlines()}
    assert set(status["Uid"]) == {"10001"}
    assert "0" not in status["Gid"]
    assert int(status["CapEff"][0], 16) == int(status["CapBnd"][0], 16) == 0
    assert status["NoNewPrivs"] == ["1"]
    assert status["Seccomp"] == ["2"]
    written = subprocess.run(
        ["docker", "exec", name, "sh", "-c", "echo > /etc/written"], capture_output=True, text=True, check=False
    )
    assert written.returncode != 0
    assert "Read-only file system" in written.stderr


def test_what_is_prepared_again_replaces_no_container(clouds: Clouds) -> None:
    before = docker("ps", "--quiet", "--no-trunc", "--filter", f"name={clouds.project}-")
    prepare(clouds.folder)
    assert clouds.run("up", "--detach", "--wait").returncode == 0
    assert docker("ps", "--quiet", "--no-trunc", "--filter", f"name={clouds.project}-") == before


def test_everything_is_as_the_policy_says(clouds: Clouds) -> None:
    proved = clouds.run("run", "--rm", "--no-TTY", "--no-deps", "prove", "--json")
    assert proved.returncode == 0, proved.stdout + proved.stderr
    found = json.loads(proved.stdout)
    assert {each["identity"] for each in found["identities"]} == {*EVERYONE, "(anyone)"}
    assert not any(each["differing"] for each in found["identities"])
    assert (found["not_run"], found["acts"] > 7_000) == ([], True)


def test_a_cut_link_is_unhealthy_and_loses_no_job(clouds: Clouds) -> None:
    hub, leaf, link = clouds.container("hub"), clouds.container("leaf"), clouds.network("link")
    docker("network", "disconnect", link, leaf)
    try:
        producer = subprocess.Popen(
            [*clouds.command, "run", "--rm", "--no-TTY", "--no-deps", "producer"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        until(lambda: health(leaf) == "unhealthy", NOTICED_S, "the leaf knows that its link is cut")
        assert health(hub) == "healthy"  # producers can go on storing jobs
        assert producer.poll() is None
    finally:
        docker("network", "connect", link, leaf)
    until(lambda: health(leaf) == "healthy", NOTICED_S, "the link is up again")
    answered, _ = producer.communicate(timeout=60)
    assert "20 jobs, 20 answered rightly" in answered
    assert producer.returncode == 0


def test_a_job_outlives_both_servers(clouds: Clouds) -> None:
    assert clouds.run("stop", "bunny").returncode == 0
    token = clouds.bunny("submit", "files", "count", "--file", "/files/3.txt")
    assert clouds.run("kill", "--signal", "KILL", "hub", "leaf").returncode == 0
    up = clouds.run("up", "--detach", "--wait")
    assert up.returncode == 0, up.stderr
    answer = json.loads(clouds.bunny("job", "wait", token))
    assert answer["sha256"] == sha256(b"to be or not to be\n" * 4).hexdigest()


def test_an_inspector_sees_the_streams_and_changes_none(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    nats_cli.binary()
    build("box")
    monkeypatch.setenv("BUNNY_BOX_IMAGE", Images().box)
    for service in ("inspect-aws", "inspect-azure"):
        inspector = ("run", "--rm", "--no-TTY", "--no-deps", service)
        seen = clouds.run(*inspector, "stream", "ls", "--names")
        assert seen.returncode == 0, seen.stderr
        assert "RESULTS_files" in seen.stdout
        purged = clouds.run(*inspector, "--timeout", "2s", "stream", "purge", "RESULTS_files", "--force")
        assert purged.returncode != 0
        assert "Permissions Violation" in purged.stdout + purged.stderr


def test_the_bill_of_materials_is_in_the_image_and_its_digest_in_the_label(images: Images) -> None:
    for image in (images.service, images.demo):
        config = inspect(image)["Config"]
        labels = config["Labels"]
        bill = docker("run", "--rm", "--network", "none", "--entrypoint", "cat", image, labels["org.bunny-bridge.sbom"])
        assert sha256(bill.encode()).hexdigest() == labels["org.bunny-bridge.sbom.sha256"]
        components = {each["name"] for each in json.loads(bill)["components"]}
        assert {"cryptography", "nats-py", "pydantic"} <= components
        assert not {"pytest", "testcontainers", "setuptools"} & components
        assert config["User"].startswith("10001")
