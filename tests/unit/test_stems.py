"""Cores and preludes that are read and written in one step are what the long way makes of them, whatever they say."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import core as cores
from bridge import prelude, stems, strict_json
from bridge.core import Core
from bridge.errors import BadFrame, BadPrelude, BridgeError
from bridge.job import INLINE_LIMIT, Content, Status
from tests.vectors.test_own import mutated
from tests.world import SESSION, World

WORLD = World()
JOB = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)
CORES = (
    JOB.core,
    WORLD.sealer("bunny").seal(WORLD.result(JOB), WORLD.now).core,
    WORLD.sealer("bunny").seal(WORLD.start(JOB), WORLD.now).core,
)
TAILS = st.fixed_dictionaries(
    {
        "job": st.from_regex(rf"\A{SESSION}\.([1-9][0-9]{{0,16}}|0|01)\Z") | st.text(max_size=30),
        "issued": st.integers(-1, 2**53),
        "expires": st.integers(0, 2**53) | st.integers(WORLD.now, WORLD.now + 32 * 24 * 3600 * 1000),
        "job_digest": st.binary(min_size=31, max_size=33) | st.just(b""),
    }
)


def outcome(act: Callable[[], Any]) -> object:
    try:
        return act()
    except BridgeError as error:
        return type(error), str(error)


@given(core=st.sampled_from(CORES), tail=TAILS)
def test_a_core_with_a_known_stem_is_written_as_one_without(core: Core, tail: dict[str, Any]) -> None:
    core.encode()
    other = dataclasses.replace(core, **tail)
    assert outcome(other.encode) == outcome(other._encoded)


@given(core=st.sampled_from(CORES), tail=TAILS)
def test_a_core_with_a_known_stem_is_read_as_one_without(core: Core, tail: dict[str, Any]) -> None:
    cores.decode(core.encode())
    fields = json.loads(core.encode()) | tail
    fields["job_digest"] = tail["job_digest"].hex()
    if not tail["job_digest"]:
        del fields["job_digest"]
    for ascii_alone in (True, False):  # with escapes, and without
        text = json.dumps(fields, separators=(",", ":"), ensure_ascii=ascii_alone)
        data = text.encode("utf-8", "surrogatepass")
        assert outcome(partial(cores.decode, data)) == outcome(partial(cores._decoded, data))


@given(draw=st.data(), core=st.sampled_from(CORES))
def test_a_core_that_is_a_little_different_is_read_the_long_way_or_alike(draw: st.DataObject, core: Core) -> None:
    cores.decode(core.encode())
    data = draw.draw(mutated(core.encode()))
    assert outcome(lambda: cores.decode(data)) == outcome(lambda: cores._decoded(data))


@given(draw=st.data(), core=st.sampled_from(CORES))
def test_a_core_of_another_order_is_read_the_long_way_or_alike(draw: st.DataObject, core: Core) -> None:
    written = core.encode()[1:-1].split(b",")
    often = st.lists(st.sampled_from(written), max_size=2)
    for _ in range(3):  # what was accepted of one must not let another pass
        fields = draw.draw(st.permutations(written[:-4])) + draw.draw(st.permutations(written[-4:])) + draw.draw(often)
        data = b"{" + b",".join(fields) + b"}"
        assert outcome(partial(cores.decode, data)) == outcome(partial(cores._decoded, data))


def test_a_digest_that_stands_before_the_tail_does_not_stand_in_it_again() -> None:
    before, _, rest = CORES[1].encode().partition(b',"job":')
    rest, _, digest = rest.partition(b',"job_digest":')
    moved = before + b',"job_digest":' + digest.rstrip(b"}") + b',"job":' + rest
    assert cores.decode(moved + b"}") == CORES[1]
    with pytest.raises(BadFrame):
        cores.decode(moved + b',"job_digest":' + digest)


@pytest.mark.parametrize(
    "data",
    [
        JOB.core.encode().replace(b'"kind":"resize"', b'"kind":"resi\\u007ae"'),
        JOB.core.encode().replace(b'{"v":1', b'{"v":1,"x":{"y\\":":1').replace(b',"job":', b'},"job":'),
    ],
    ids=["in a name", "that hides a quote"],
)
def test_no_core_with_an_escape_has_a_stem(data: bytes) -> None:
    assert stems.part(data) is None


def test_a_stem_is_no_more_than_what_one_core_was_accepted_with() -> None:
    cores.decode(CORES[0].encode())
    with pytest.raises(BadFrame):  # a job speaks of no other
        cores.decode(CORES[0].encode()[:-1] + b',"job_digest":"' + b"0" * 64 + b'"}')
    cores.decode(CORES[1].encode())
    with pytest.raises(BadFrame):  # and a result of one
        cores.decode(CORES[1].encode().partition(b',"job_digest"')[0] + b"}")


def test_what_is_remembered_of_stems_is_bounded() -> None:
    for n in range(3 * stems.MOST):
        cores.decode(dataclasses.replace(CORES[0], kind=f"k{n}").encode())
        assert len(cores._READ) <= stems.MOST
        assert len(cores._WRITTEN) <= stems.MOST
    before = dict(cores._READ)
    cores.decode(b" " * stems.MAX_LEN + CORES[0].encode())
    assert before == cores._READ


# --- preludes --------------------------------------------------------------------------------------


@given(st.sampled_from([None, *Status]), st.text(min_size=1, max_size=60), st.binary(max_size=40))
def test_a_prelude_is_json_as_any_other_writer_has_it(status: Status | None, content_type: str, body: bytes) -> None:
    core = CORES[0] if status is None else CORES[1]
    data = prelude.write(core, Content(content_type, body), status, None, None)
    said = data[2 : 2 + int.from_bytes(data[:2])]
    assert strict_json.dump(strict_json.parse_object(said)) == said
    inside = prelude.read(core, data)
    assert inside == prelude._read(core, data) == prelude.Inside(Content(content_type, body), status, None)


@given(st.data(), st.sampled_from([None, *Status]))
def test_a_prelude_that_is_a_little_different_is_read_the_long_way_or_alike(
    draw: st.DataObject, status: Status | None
) -> None:
    core = CORES[0] if status is None else CORES[1]
    data = draw.draw(mutated(prelude.write(core, Content("application/json", b"{}"), status, None, None)))
    assert outcome(lambda: prelude.read(core, data)) == outcome(lambda: prelude._read(core, data))


@pytest.mark.parametrize("other", [*CORES], ids=lambda core: core.type)
@pytest.mark.parametrize("status", [None, Status.FAILED], ids=str)
def test_a_prelude_has_a_status_where_its_core_is_of_a_result(other: Core, status: Status | None) -> None:
    data = prelude.write(CORES[0] if status is None else CORES[1], Content("a/b", b"x"), status, None, None)
    assert outcome(lambda: prelude.read(other, data)) == outcome(lambda: prelude._read(other, data))


def test_a_prelude_that_is_cut_short_is_none() -> None:
    data = prelude.write(JOB.core, Content("a/b", b""), None, None, None)
    longer = (int.from_bytes(data[:2]) + 1).to_bytes(2) + data[2:]
    assert outcome(lambda: prelude.read(JOB.core, longer)) == outcome(lambda: prelude._read(JOB.core, longer))
    assert isinstance(outcome(lambda: prelude.read(JOB.core, longer)), tuple)


def test_a_prelude_of_another_length_is_of_another_body() -> None:
    data = prelude.write(JOB.core, Content("a/b", b"123"), None, None, None)
    with pytest.raises(BadPrelude):
        prelude.read(JOB.core, data.replace(b'"length":3', b'"length":4'))


def test_a_prelude_of_a_long_body_is_read_as_of_any() -> None:
    content = Content("application/octet-stream", bytes(INLINE_LIMIT))
    assert prelude.read(JOB.core, prelude.write(JOB.core, content, None, None, None)).content == content
