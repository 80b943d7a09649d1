"""Container tests run where an engine answers; where none does they are skipped by name, which CI does not allow."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.containers import engine


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[engine.Images]:
    """The images of this checkout, with an engine to run them and ``docker compose``."""
    if reason := engine.missing():
        pytest.skip(f"{reason}, so the container tests are not run: see docs/compose.md")
    variables = {
        # Its reaper is an image of its own, which may not be there; every test removes what it made.
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        **engine.compose_plugin(tmp_path_factory.mktemp("docker")),
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    yield engine.build()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
