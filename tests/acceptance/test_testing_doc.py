"""The examples of docs/testing.md, run as they stand there, on the policy that `bunny init` writes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge.policy import SCAFFOLD

ROOT = Path(__file__).resolve().parents[2]


def example(maker: str) -> Callable[[], Awaitable[None]]:
    """The test in the example that uses ``maker``."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if f"import {maker}\n" in block]
    names: dict[str, Callable[[], Awaitable[None]]] = {}
    exec(compile(block, f"docs/testing.md: {maker}", "exec"), names)  # noqa: S102 - the document is ours
    (test,) = [names[name] for name in names if name.startswith("test_")]
    return test


@pytest.mark.parametrize("maker", ["memory_bridge", "embedded_bridge"])
async def test_the_example_passes(maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bridge.yaml").write_text(SCAFFOLD)
    monkeypatch.chdir(tmp_path)
    await example(maker)()
