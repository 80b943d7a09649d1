"""The example of docs/testing.md that needs an engine, run as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.policy import SCAFFOLD
from tests.acceptance.test_testing_doc import example
from tests.containers.engine import Images


async def test_the_example_passes(images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bridge.yaml").write_text(SCAFFOLD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUNNY_NATS_IMAGE", images.nats)
    await example("containers_bridge")()
