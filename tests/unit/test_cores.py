"""Every field of every type of core, at the ends of what the specification allows of it and one beyond; both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import combinations
from typing import Any, Final

import pytest

from bridge import core as cores
from bridge import strict_json
from bridge.core import Core, decode, spell_time
from bridge.corefields import read_job_id
from bridge.errors import BadFrame, UnknownVersion
from tests.vectors.labels import NOW, SESSION
from tests.vectors.refused_envelopes import IN_PARTS, TRACE, core

DAYS_31: Final = 31 * 24 * 3600 * 1000
SAMPLES: Final[dict[str, dict[str, Any]]] = {
    "job": core("job", "relay", "bunny"),
    "result": core("result", "bunny", "relay"),
    "start": core("start", "bunny", "relay"),
    "event": core("event", "bunny", "relay"),
    "segment": core("segment", "bunny", "relay"),
    "control": core("control", "relay", "bunny"),
    "replay": core("replay", "relay", "bunny"),
}
KEYED: Final = {"job": f"{SESSION}.0", "args_tag": "ef" * 32}
LATER: Final = {"not_before": NOW, "concurrency_key": "ab" * 32}
MORE: Final[dict[str, dict[str, Any]]] = {
    "job": {"traceparent": TRACE, **LATER, **KEYED, **IN_PARTS},
    "result": {"traceparent": TRACE, **KEYED, **IN_PARTS},
    "segment": KEYED,
}
"""What may be left out."""
FULL: Final = {type_: value | MORE.get(type_, {}) for type_, value in SAMPLES.items()}
NUMBERS: Final = {
    "generation": (0, 2**31),
    "attempt": (0, 2**31),
    "length": (1, 2**34),
    "run": (1, 2**31),
    "segment": (0, 2**31),
    "records": (1, 2**53 - 1),
    "bytes": (0, 2**34),
}
BYTES: Final = {
    "from_kid": 32,
    "wrap_id": 16,
    "job_digest": 32,
    "concurrency_key": 32,
    "args_tag": 32,
    "transfer": 16,
    "index": 32,
    "previous": 32,
}
HELD: Final = {"from": "sender", "from_kid": "sender_kid", "to": "recipient", "bytes": "size"}
"""Where a core has a field under another name."""


def read(type_: str, **fields: object) -> Core:
    return decode(strict_json.dump(FULL[type_] | fields))


def held_as(name: str, said: Any) -> Any:  # noqa: ANN401  any field
    """What a core has where JSON has this."""
    return bytes.fromhex(said) if name in BYTES and type(said) is str else said


def but(core_: Core, fields: dict[str, Any]) -> Core:
    """The same with other fields, as JSON has them."""
    return dataclasses.replace(core_, **{HELD.get(name, name): held_as(name, said) for name, said in fields.items()})


def refused(type_: str, name: str, value: object) -> None:
    """Neither read nor, if it is of the type that a core has there, written."""
    with pytest.raises(BadFrame):
        read(type_, **{name: value})
    if type(value) is type(FULL[type_][name]):
        with pytest.raises(BadFrame):
            but(read(type_), {name: value}).encode()


def having(names: Iterable[str]) -> list[tuple[str, str]]:
    return [(type_, name) for type_, value in FULL.items() for name in names if name in value]


@pytest.mark.parametrize("type_", SAMPLES)
def test_a_core_is_written_as_it_was_read_with_and_without_what_may_be_left_out(type_: str) -> None:
    for value in (SAMPLES[type_], FULL[type_]):
        held = decode(strict_json.dump(value))
        assert strict_json.parse_object(held.encode()) == value
        assert decode(held.encode()) == decode(held._encoded()) == held
        for name, said in value.items():
            if name != "v":
                assert getattr(held, HELD.get(name, name)) == held_as(name, said)
        said_of = {HELD.get(name, name) for name in value}
        assert not any(getattr(held, each.name) for each in dataclasses.fields(Core) if each.name not in said_of)


@pytest.mark.parametrize("type_", SAMPLES)
def test_a_core_has_every_field_of_its_type_and_none_of_another(type_: str) -> None:
    for name in SAMPLES[type_].keys() - {"v", "type"}:
        with pytest.raises(BadFrame):
            decode(strict_json.dump({each: said for each, said in SAMPLES[type_].items() if each != name}))
    theirs = {name: said for each in FULL.values() for name, said in each.items() if name not in FULL[type_]}
    for name, said in theirs.items():
        with pytest.raises(BadFrame):
            decode(strict_json.dump(SAMPLES[type_] | {name: said}))
        with pytest.raises(BadFrame):
            but(decode(strict_json.dump(SAMPLES[type_])), {name: said or 1}).encode()
    with pytest.raises(BadFrame):
        decode(strict_json.dump(SAMPLES[type_] | {"unheard_of": 1}))


@pytest.mark.parametrize(("type_", "name"), having(NUMBERS))
def test_a_number_has_its_range_both_ends_included(type_: str, name: str) -> None:
    least, most = NUMBERS[name]
    for number in (least, most):
        held = read(type_, **{name: number})
        assert getattr(held, HELD.get(name, name)) == number
        assert strict_json.parse_object(held.encode())[name] == number
    for wrong in (least - 1, most + 1, True, str(most), None, [most]):
        refused(type_, name, wrong)


@pytest.mark.parametrize(("type_", "name"), having(BYTES))
def test_bytes_are_so_many_in_lower_case_hex(type_: str, name: str) -> None:
    assert read(type_, **{name: "0f" * BYTES[name]}).encode().count(b"0f" * BYTES[name]) == 1
    for length in (BYTES[name] - 1, BYTES[name] + 1):
        refused(type_, name, "0f" * length)
    for wrong in ("0F" * BYTES[name], "0f " + "0f" * (BYTES[name] - 2) + "0", "0g" * BYTES[name], 1, None, ["0f"]):
        with pytest.raises(BadFrame):
            read(type_, **{name: wrong})


@pytest.mark.parametrize(("type_", "name"), having(("queue", "kind", "from", "to", "producer", "job")))
def test_names_are_names(type_: str, name: str) -> None:
    for wrong in ("", "A", "a.b", "a" * 64, 1, None, ["a"]):
        refused(type_, name, wrong)


@pytest.mark.parametrize(("type_", "name"), having(["worker"]))
def test_a_worker_is_named_in_128_characters(type_: str, name: str) -> None:
    for right in ("0", "a" * 128, "A._-z9"):
        assert read(type_, worker=right).worker == right
    for wrong in ("", "a" * 129, "-a", ".a", "_a", "a b", "a\n", 1, None, ["a"]):
        refused(type_, name, wrong)


def test_a_priority_and_an_action_are_words_of_the_specification() -> None:
    for priority in ("high", "normal", "low"):
        assert read("job", priority=priority).priority == priority
    for wrong in ("", "urgent", "cancel", 1, None, ["low"]):
        refused("job", "priority", wrong)
        if wrong != "cancel":
            refused("control", "action", wrong)


def test_times_are_in_order_and_below_two_to_the_53rd() -> None:
    last = 2**53 - 1
    for issued, expires in ((NOW, NOW + 1), (NOW, NOW + DAYS_31), (0, 1), (last - 1, last)):
        held = read("event", issued=issued, expires=expires)
        assert (held.issued, held.expires) == (issued, expires)
        assert decode(held._encoded()) == decode(held.encode()) == held
    for issued, expires in ((NOW, NOW), (NOW + 1, NOW), (NOW, NOW + DAYS_31 + 1), (-1, 1), (last, last + 1)):
        with pytest.raises(BadFrame):
            read("event", issued=issued, expires=expires)
        with pytest.raises(BadFrame):
            dataclasses.replace(read("event"), issued=issued, expires=expires).encode()
    for wrong in (True, "1", None, [1]):
        refused("event", "issued", wrong)
        refused("event", "expires", wrong)


def test_a_job_may_start_from_when_it_was_issued_to_before_it_expires() -> None:
    expires = NOW + 60_000
    for right in (NOW, expires - 1):
        assert read("job", not_before=right).not_before == right
    for wrong in (NOW - 1, expires, 2**53, -1, True, "1", None, [NOW]):
        refused("job", "not_before", wrong)
    with pytest.raises(BadFrame):  # where there is none it is left out
        read("job", not_before=0)
    first = read("job", issued=0, expires=10, not_before=1)
    assert first.not_before == 1
    assert decode(first.encode()) == first


def test_a_job_is_keyed_if_its_number_is_0_and_what_answers_it_need_not_be() -> None:
    del (tagged := dict(FULL["job"]))["args_tag"]
    with pytest.raises(BadFrame):
        decode(strict_json.dump(tagged))
    refused("job", "job", f"{SESSION}.10")
    assert read("result", job=f"{SESSION}.10").job == f"{SESSION}.10"
    assert decode(strict_json.dump(SAMPLES["event"] | {"job": f"{SESSION}.0"})).args_tag == b""


@pytest.mark.parametrize("type_", ["job", "result"])
def test_a_payload_in_parts_has_all_three_of_its_fields(type_: str) -> None:
    for several in (1, 2):
        for names in combinations(IN_PARTS, several):
            some = {name: IN_PARTS[name] for name in names}
            with pytest.raises(BadFrame):
                decode(strict_json.dump(SAMPLES[type_] | some))
            with pytest.raises(BadFrame):
                but(decode(strict_json.dump(SAMPLES[type_])), some).encode()


def test_an_empty_value_of_another_type_is_not_left_out_for_nothing() -> None:
    for name in ("traceparent", "args_tag", "transfer", "not_before"):
        plain = decode(strict_json.dump(SAMPLES["job"]))
        with pytest.raises(BadFrame):
            dataclasses.replace(plain, **{name: ""}).encode()  # type: ignore[arg-type]


def test_what_is_no_bytes_is_not_written_as_such() -> None:
    for name in ("sender_kid", "wrap_id", "job_digest"):
        for wrong in (None, "00", 1):
            with pytest.raises(BadFrame):
                dataclasses.replace(read("result"), **{name: wrong})._encoded()  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [0, 2, True, "1", None, [1]])
def test_another_version_is_told_before_all_else(version: object) -> None:
    with pytest.raises(UnknownVersion):
        decode(strict_json.dump({"v": version, "type": "unheard of"}))
    with pytest.raises(UnknownVersion):
        decode(strict_json.dump(SAMPLES["job"] | {"v": version}))


@pytest.mark.parametrize("type_", ["", "jobs", 1, None, ["job"], {"job": 1}])
def test_another_type_is_none(type_: object) -> None:
    with pytest.raises(BadFrame):
        decode(strict_json.dump(SAMPLES["job"] | {"type": type_}))


def test_a_core_has_4096_bytes_at_most() -> None:
    data = strict_json.dump(SAMPLES["job"])
    assert decode(data + b" " * (4096 - len(data))) == decode(data)
    with pytest.raises(BadFrame, match="4096"):
        decode(data + b" " * (4097 - len(data)))


def test_an_identifier_of_a_job_is_a_session_and_a_number() -> None:
    assert read_job_id(f"{SESSION}.1") == f"{SESSION}.1"
    for wrong in (f"{SESSION}.1\n", f"{SESSION}x1", SESSION, f"x{SESSION}.1", f"{SESSION}.1.1", 1, None, [1]):
        with pytest.raises((ValueError, TypeError)):
            read_job_id(wrong)


def test_the_second_of_its_kind_is_read_and_written_without_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_READ", {})
    monkeypatch.setattr(cores, "_WRITTEN", {})
    first = {type_: decode(strict_json.dump(SAMPLES[type_])) for type_ in ("job", "result", "start", "event")}
    written = {type_: held.encode() for type_, held in first.items()}
    assert [decode(data) for data in written.values()] == list(first.values())

    def long_way(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Core, "_encoded", long_way)
    monkeypatch.setattr(cores, "_decoded", long_way)
    for type_, held in first.items():
        digest = held.job_digest and bytes(32)  # a job has none
        another = dataclasses.replace(held, job=f"{SESSION}.2", issued=NOW + 1, expires=NOW + 2, job_digest=digest)
        assert decode(another.encode()) == another
        assert held.encode() == written[type_]


@pytest.mark.parametrize(
    ("type_", "producer"),
    [("job", "relay"), ("control", "relay"), ("replay", "other"), ("result", "relay"), ("segment", "relay")],
)
def test_a_core_names_its_job_by_the_producer_whoever_signs(type_: str, producer: str) -> None:
    fields = {"producer": "other"} if type_ == "replay" else {}
    held = read(type_, generation=3, **fields)
    session, n = held.job.split(".")
    assert held.key == (held.queue, producer, session, int(n), 3)
    assert held.key is held.key
    assert (held, repr(held)) == (read(type_, generation=3, **fields), repr(read(type_, generation=3, **fields)))
    assert dataclasses.replace(held, generation=4).key.generation == 4  # and nothing of it is kept for another


def test_people_who_hold_no_key_are_told_of_a_job() -> None:
    held = decode(strict_json.dump(SAMPLES["job"] | {"issued": 0, "expires": 61_999}))
    assert held.hints() == {
        "Bunny-Queue": "thumbs",
        "Bunny-Kind": "resize",
        "Bunny-Producer": "relay",
        "Bunny-Deadline": "1970-01-01T00:01:01+00:00",
    }


def test_a_time_that_no_calendar_has_is_the_last_that_it_has() -> None:
    assert spell_time(253_402_300_798_999) == "9999-12-31T23:59:58+00:00"
    for last in (253_402_300_799_000, 253_402_300_799_999, 253_402_300_800_000, 2**53 - 1):
        assert spell_time(last) == "9999-12-31T23:59:59+00:00"
