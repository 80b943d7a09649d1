"""What is fuzzed: readers of bytes from outside. Each takes any, and fails if they are not read as they must be."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bridge import core as cores
from bridge import dsse, receipt, strict_json
from bridge import frame as frames
from bridge.audit import verify
from bridge.errors import ConfigurationError, PolicyError, Refusal
from bridge.policy import load_policy
from bridge.policy.scaffold import SCAFFOLD
from bridge.render.streams import plan
from tests.support import POLICY
from tests.vectors import independent, independent_receipts, labels, receipts
from tests.vectors.refused_envelopes import job
from tests.vectors.strictness import Refused, read
from tests.vectors.test_own import BUNDLE, BUNDLES, ENVELOPES, TRUST, agreed, bundle_by_bridge, bundle_by_specification


def _json(data: bytes) -> None:
    """Ours, the specification's and Python's readings of strict JSON."""
    try:
        ours: Any = strict_json.parse_object(data)
    except ValueError:
        ours = None
    try:
        theirs: Any = read(data, "BadFrame")
    except Refused:
        theirs = None
    assert ours == theirs
    if ours is not None:
        assert json.loads(data) == ours
        assert strict_json.parse_object(strict_json.dump(ours)) == ours


def _core(data: bytes) -> None:
    """A core that is read is written again with the same meaning."""
    try:
        core = cores.decode(data)
    except Refusal:
        return
    assert cores.decode(core.encode()) == core


def _frame(data: bytes) -> None:
    """The two parsers of frames agree on where everything is."""
    try:
        found = frames.parse(data)
    except Refusal as refusal:
        ours: Any = type(refusal).__name__
    else:
        ours = (bytes(found.head), found.kid, found.size, found.index, list(found.path), found.signature)
        ours += (list(found.wraps), bytes(found.ciphertext), found.ciphertext_digest)
    try:
        told = independent.parse(data)
    except Refused as refused:
        theirs: Any = refused.name
    else:
        theirs = (told.head, told.kid, told.size, told.index, told.path, told.signature)
        theirs += (told.wraps, told.ciphertext, told.ct_sha256)
    assert ours == theirs


def _envelope(data: bytes) -> None:
    """The whole way of a message to its reader, by the bridge and by the specification."""
    agreed(data, "bunny")


def _bundle(data: bytes) -> None:
    """A trust bundle, by both."""
    ours, theirs = bundle_by_bridge(data, labels.roots()), bundle_by_specification(data, labels.roots())
    # Of several things wrong in one row of the specification's table, any may be named.
    assert ours == theirs or {*ours.values(), *theirs.values()} == {"WeakKey", "BadBundle"}


def _sealed(data: bytes) -> None:
    """What an author with true keys may have sealed."""
    agreed(job().with_(plain=data).encode(), "bunny")


def _receipts(data: bytes) -> None:
    """What a producer with a true key may have signed as a page, beside what its workers say, by both."""
    key = labels.IDENTITIES["relay"].sign[-1]
    signature = key.sign(dsse.signed_bytes(data, receipt.PAYLOAD_TYPE))
    lines = [dsse.encode(data, [(key.kid, signature)], receipt.PAYLOAD_TYPE), *receipts.THEIRS]
    account = verify([("page", line) for line in lines], [TRUST], labels.NOW)
    ours = not account.problems and not account.unended
    assert ours == independent_receipts.whole(lines, BUNDLE, labels.BRIDGE, labels.NOW)


_FOLDER: Final = TemporaryDirectory(prefix="bunny-fuzz-")


def _policy(data: bytes) -> None:
    """A policy is read, and then can be rendered; or is refused in printable lines that say where."""
    path = Path(_FOLDER.name) / "bridge.yaml"
    path.write_bytes(data)
    try:
        policy = load_policy(path)
    except (ConfigurationError, PolicyError) as error:
        text = str(error)
        assert text
        assert all(character.isprintable() or character == "\n" for character in text)
        assert len(text) < 20_000
        return
    for cloud in policy.clouds:
        plan(policy, cloud)
    assert policy.digest == load_policy(path).digest


def _envelopes() -> list[bytes]:
    return [base64.b64decode(vector["envelope"]) for vector in ENVELOPES["vectors"]]


def _cores() -> list[bytes]:
    return [data[6 : 6 + int.from_bytes(data[4:6])] for data in _envelopes()]


def _bundles() -> list[bytes]:
    return [base64.b64decode(vector["trust"]) for vector in BUNDLES["vectors"]]


def _pages() -> list[bytes]:
    found = [receipts.chain("relay", receipts.YOURS[:1] + receipts.MINE)[0], *receipts.OURS]
    return [receipt.read(line).payload for line in found]


TARGETS: Final[dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]]] = {
    "json": (
        _json,
        lambda: [b'{"a":[1,{"b":null}],"c":"\\u00e9"}', b'{"a":1e5}', b'{"a":"\\ud800"}', b'{"a":1,"a":2}'],
    ),
    "core": (_core, _cores),
    "frame": (_frame, _envelopes),
    "envelope": (_envelope, _envelopes),
    "sealed": (_sealed, lambda: [b"\0\2{}", b'\0\x20{"content_type":"a/b","length":0}']),
    "bundle": (_bundle, _bundles),
    "receipts": (_receipts, _pages),
    "policy": (_policy, lambda: [POLICY.encode(), SCAFFOLD.encode()]),
}
"""By name: the function, and the bytes to begin with."""
