"""Receipts: the bridge and what was written from the specification say the same."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.audit import verify
from tests.vectors.independent_receipts import whole
from tests.vectors.labels import BRIDGE, NOW
from tests.vectors.receipts import CASES, vectors
from tests.vectors.test_own import BUNDLE, TRUST

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "receipts.json").read_text())


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["name"])
def test_published(vector: dict[str, Any]) -> None:
    lines = [base64.b64decode(each) for each in vector["pages"]]
    account = verify([(vector["name"], each) for each in lines], [TRUST], NOW)
    assert (not account.problems and not account.unended) == vector["expect"]["whole"], account.problems
    assert whole(lines, BUNDLE, BRIDGE, NOW) == vector["expect"]["whole"]


def test_they_are_what_is_made() -> None:
    assert VECTORS["vectors"] == vectors()
    assert {name for name, (good, _) in CASES.items() if good} >= {"one-job", "retried", "replayed", "conflict"}
