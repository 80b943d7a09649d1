"""One text for one value: what is written, and what is refused although Python reads it."""

from __future__ import annotations

import pytest

from bridge.strict_json import b64, dump, expect_keys, parse_object, unb64


def test_what_is_written_is_utf_8_and_no_number_that_json_has_not() -> None:
    assert dump({"b": "é", "a": [1, True]}) == '{"b":"é","a":[1,true]}'.encode()
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            dump({"a": number})


@pytest.mark.parametrize("value", [["a"], "a", {"a": 1, "b": 2}, {}, None, 7], ids=repr)
def test_an_object_has_just_its_keys(value: object) -> None:
    expect_keys({"a": 1}, {"a"})
    with pytest.raises(ValueError, match="not the object expected"):
        expect_keys(value, {"a"})


def test_bytes_have_one_text() -> None:
    for data, text in ((b"\x00\x00\x31", "AAAx"), (b"\xfb\xff", "-_8"), (b"", "")):
        assert b64(data) == text
        assert unb64(text) == data


@pytest.mark.parametrize("text", ["A", "-_9", "-_8=", "+/8", "-_ 8", "AAAA=", None, 7], ids=repr)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not base64url"):
        unb64(text)


def test_however_deep_it_is_the_refusal_is_the_same_kind() -> None:
    """Half a surrogate pair is looked for by writing what was read, which may fail where reading just did not."""
    for depth in (*range(1_000), 100_000):
        data = b'{"a":' + b"[" * depth + b'"\\ud800"' + b"]" * depth + b"}"
        with pytest.raises(ValueError, match=r"not (strict JSON|Unicode text)"):
            parse_object(data)
