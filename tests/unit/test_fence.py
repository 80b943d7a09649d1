"""What counts as a worker's word about one job, and what is another's, another word, or about another job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from bridge.envelope import Draft
from bridge.errors import KeyConflict, NotAuthorised, WrongSubject
from bridge.fence import OtherBytes, Tag, authenticate_answer, tag_of
from tests.world import World

WORLD = World()
JOB = WORLD.sealer("relay").seal(WORLD.job(), WORLD.now)
TAG = Tag("resize", bytes(31) + b"\x01")


def answered(data: bytes, **changes: Any) -> bytes:  # noqa: ANN401
    """What is found of an answer to the job: the digest of what it answers."""
    about: dict[str, Any] = {"type": "result", "key": JOB.core.key, "job_digest": JOB.digest, "workers": "bunny"}
    about |= changes
    return authenticate_answer(WORLD.opener("relay"), data, now=WORLD.now, **about).core.job_digest


def said(draft: Draft, **changes: Any) -> bytes:  # noqa: ANN401
    draft = replace(draft, core=replace(draft.core, **changes))
    return WORLD.sealer("bunny").seal(draft, WORLD.now).data


RESULT = said(WORLD.result(JOB))


def test_the_workers_word_about_the_job_is_taken() -> None:
    assert answered(RESULT) == answered(RESULT, job_digest=None) == JOB.digest
    assert answered(said(WORLD.start(JOB)), type="start") == JOB.digest


@pytest.mark.parametrize("type_", ["start", "event", "segment"])
def test_a_result_is_no_other_word(type_: Literal["start", "event", "segment"]) -> None:
    with pytest.raises(WrongSubject, match="of another type"):
        answered(RESULT, type=type_)


@pytest.mark.parametrize(
    "field", [{"queue": "lookup"}, {"producer": "other"}, {"session": "0" * 24}, {"n": 2}, {"generation": 1}], ids=str
)
def test_a_word_about_another_job_is_none_about_this(field: dict[str, Any]) -> None:
    with pytest.raises(WrongSubject, match="of another job"):
        answered(RESULT, key=JOB.core.key._replace(**field))


def test_who_may_answer_somewhere_does_not_answer_for_these_workers() -> None:
    with pytest.raises(NotAuthorised, match="not signed by the queue's workers"):
        answered(RESULT, workers="stranger")


def test_an_answer_to_other_bytes_is_known_as_one() -> None:
    with pytest.raises(OtherBytes) as refused:
        answered(said(WORLD.result(JOB), job_digest=bytes(32)))
    assert refused.value.name == "WrongSubject"
    assert answered(said(WORLD.result(JOB), job_digest=bytes(32)), job_digest=None) == bytes(32)


def test_of_a_keyed_job_kind_and_arguments_count_and_not_the_bytes() -> None:
    keyed = said(WORLD.result(JOB), args_tag=TAG.args_tag, job_digest=bytes(32))
    assert answered(keyed, tag=TAG) == bytes(32)
    for other in (Tag("probe", TAG.args_tag), Tag("resize", bytes(32))):
        with pytest.raises(KeyConflict, match="another kind or arguments"):
            answered(keyed, tag=other)
    with pytest.raises(KeyConflict, match="for another submit"):
        answered(keyed)
    with pytest.raises(OtherBytes):  # it answers no keyed job, whatever is known of this one
        answered(said(WORLD.result(JOB), job_digest=bytes(32)), tag=TAG)
    assert answered(RESULT, tag=TAG) == JOB.digest


def test_only_keyed_jobs_have_a_tag() -> None:
    assert tag_of(JOB.core) is None
    assert tag_of(replace(JOB.core, args_tag=TAG.args_tag)) == TAG
