"""Encoding of arguments and results, and tokens: what goes in comes out, and errors tell no secrets."""

from __future__ import annotations

import contextlib
import logging
import math
import string
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from bridge.errors import ConfigurationError, InvalidArguments, UsageError
from bridge.job import BYTES, JSON, Content, JobToken, Kind, Status, decode, encode

SECRET = "canary-7f3a"


class Size(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int
    scale: float = 1.0
    mode: Literal["fit", "fill"] = "fit"
    when: datetime | None = None
    labels: dict[str, int] = {}


@dataclass
class Point:
    x: float
    y: int
    tags: list[str] = field(default_factory=list)


class Aliased(BaseModel):
    width: int = Field(alias="w")

    @computed_field  # type: ignore[prop-decorator]  # pydantic's documented use
    @property
    def double(self) -> int:
        return 2 * self.width


class Tree(BaseModel):
    children: list[Tree] = []


class Picky(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def check(cls, name: str) -> str:
        raise KeyError(name)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_a_json_value_comes_back(value: object) -> None:
    content = encode(value)
    assert content.content_type == JSON
    assert decode(content, Any) == value


@given(st.binary())
def test_bytes_come_back(value: bytes) -> None:
    content = encode(value)
    assert content == Content(BYTES, value)
    assert decode(content, bytes) == value


@pytest.mark.parametrize(
    "value",
    [
        Size(width=320, when=datetime(2026, 1, 2, tzinfo=UTC), labels={"a": 1}),
        Point(1.5, 2, ["é"]),
        Aliased(w=3),
        [Size(width=1), Size(width=2)],
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_typed_value_comes_back(value: object) -> None:
    type_: Any = list[Size] if isinstance(value, list) else type(value)
    assert decode(encode(value), type_) == value


def test_content_of_any_type_passes_through() -> None:
    content = Content("application/xml", b"<a/>")
    assert encode(content) is content
    assert decode(content, Content) is content
    assert decode(content, bytes) == b"<a/>"
    with pytest.raises(InvalidArguments, match="content type"):
        decode(content, Size)
    with pytest.raises(InvalidArguments, match="media type"):
        encode(Content("Text\r\nX: 1", b""))


def test_content_shows_no_body() -> None:
    assert SECRET not in repr(Content(BYTES, SECRET.encode()))


def test_annotated_types_with_unhashable_metadata_work() -> None:
    assert decode(encode(3), Annotated[int, Field(json_schema_extra={"a": []})]) == 3  # type: ignore[arg-type]  # a type form


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        [1, {"a": math.inf}],
        Size(width=1, scale=-math.inf),
        Point(math.nan, 1),
        Point("1", 1),  # type: ignore[arg-type]  # the mistake under test
        object(),
        {"f": print},
        {"raw": b"\xff"},
        "\ud800",
        deep(202),
        {"none": None, "list": [(1.0, {math.inf})]},
        deep(100_000),
        LOOP,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_other_side_would_read_differently_is_refused(value: object) -> None:
    with pytest.raises(InvalidArguments):
        encode(value)


def test_the_deepest_value_that_is_written_is_read() -> None:
    returned: object = decode(encode(deep(200)), Any)
    assert returned == deep(200)


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        (b"", Size),
        (b"{", Size),
        (b"\xff", Size),
        (b'\xef\xbb\xbf{"width":1}', Size),
        (b'{"width":"1"}', Size),
        (b'{"width":true}', Size),
        (b'{"width":1.0e400}', Size),
        (b'{"width":1,"scale":NaN}', Size),
        (b'{"width":1,"scale":Infinity}', Size),
        (b'{"width":1,"scale":-Infinity}', Size),
        (b'{"width":1,"scale":1e400}', Size),
        (b'{"width":' + b"9" * 5000 + b"}", Size),
        (b"[1e999]", Any),
        (b"[" * 100_000, Any),
        (b"[" * 100_000 + b"]" * 100_000, Any),
        (b'{"children":[' * 50_000, Tree),
        (b"null", Size),
        (b"1 2", int),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else str(value),
)
def test_bodies_that_do_not_fit_are_invalid_arguments(body: bytes, type_: type[Any]) -> None:
    with pytest.raises(InvalidArguments) as caught:
        decode(Content(JSON, body), type_)
    assert "\n" not in str(caught.value)


@given(st.binary() | st.text(alphabet='{}[]":,0123456789eE+-.truefalsn ').map(str.encode))
def test_arbitrary_bodies_never_raise_anything_else(body: bytes) -> None:
    for type_ in (Size, Point, Tree, Any):
        with contextlib.suppress(InvalidArguments):
            decode(Content(JSON, body), type_)


@pytest.mark.parametrize(
    ("body", "type_", "expected"),
    [
        (f'{{"width":"{SECRET}"}}', Size, "width: int_type"),
        (f'{{"width":1,"mode":"{SECRET}"}}', Size, "mode: literal_error"),
        (f'{{"width":1,"{SECRET}":1}}', Size, "extra_forbidden"),
        (f'{{"width":1,"labels":{{"{SECRET}":"x"}}}}', Size, "labels.*: int_type"),
        (f'{{"name":"{SECRET}"}}', Picky, "KeyError"),
        (f'["{SECRET}"]', list[int], "0: int_type"),
        (f'"{SECRET}', Any, "not JSON"),
    ],
)
def test_errors_name_fields_and_never_values(body: str, type_: type[Any], expected: str) -> None:
    with pytest.raises(InvalidArguments) as caught:
        decode(Content(JSON, body.encode()), type_)
    assert expected in str(caught.value)
    assert SECRET not in _everything(caught.value)


def test_errors_of_encoding_never_hold_the_value() -> None:
    with pytest.raises(InvalidArguments) as caught:
        encode(Point(SECRET, 1))  # type: ignore[arg-type]  # the mistake under test
    assert SECRET not in _everything(caught.value)


def _everything(error: BaseException) -> str:
    """What the most talkative logger would write of the error and its causes."""
    seen: list[str] = []
    at: BaseException | None = error
    while at is not None:
        seen += [str(at), repr(at), repr(at.args), *traceback.format_exception_only(at)]
        at = at.__cause__ or at.__context__
    logging.getLogger(__name__).debug("%s", seen)
    return " ".join(seen)


def test_many_errors_are_counted_not_listed() -> None:
    with pytest.raises(InvalidArguments, match=r"and 995 more$"):
        decode(encode(["x"] * 1000), list[int])


def test_a_type_that_pydantic_cannot_validate_is_a_configuration_error() -> None:
    class Opaque: ...

    with pytest.raises(ConfigurationError, match="Opaque"):
        decode(Content(JSON, b"1"), Opaque)


def test_a_kind_is_a_value_with_names_that_nats_can_carry() -> None:
    assert Kind("thumbnails", "resize", Size, Point) == Kind("thumbnails", "resize", Size, Point)
    for queue, name in (("thumb.nails", "resize"), ("thumbnails", "*"), ("thumbnails", "")):
        with pytest.raises(ConfigurationError, match="cannot name"):
            Kind(queue, name, Size, Point)


def test_a_status_is_its_wire_word() -> None:
    assert [Status(str(status)) for status in Status] == list(Status)


TOKEN = JobToken("thumbnails", "relay-api", "0123456789abcdef01234567", 42, 0, "ab" * 32)


def test_a_token_comes_back() -> None:
    assert JobToken.parse(str(TOKEN)) == TOKEN
    assert TOKEN.key.job_id == "0123456789abcdef01234567.42"


@given(st.text(alphabet=string.ascii_letters + string.digits + ".-_*> \n"))
def test_a_token_is_read_strictly(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        JobToken.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".42.", ".042."),
        (".42.", ".-1."),
        (".0.", ".00."),
        ("ab", "AB"),
        ("0123", "012"),
        ("relay", "*"),
        (".42.", ".٤."),
    ],
)
def test_other_spellings_of_a_token_are_refused(old: str, new: str) -> None:
    with pytest.raises(UsageError):
        JobToken.parse(str(TOKEN).replace(old, new))
    with pytest.raises(UsageError):
        JobToken.parse(str(TOKEN) + "\n")
