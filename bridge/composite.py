"""A value with payloads among its fields: a document, and the bytes that its places stand for. No I/O.

::

    head   table_len u16 | table
    rest   document | payload 0 | payload 1 | …

The table has the length of the document, and content type and length of every payload, in order. The head is in the
message; the rest follows it there, or is the message's payload in parts where it is too long. In the document, which is
JSON, ``{"$payload": n}`` stands where a payload is declared to be; anywhere else it is what it looks like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bridge import strict_json
from bridge.core import MAX_PAYLOAD
from bridge.errors import BadPrelude

COMPOSITE: Final = "application/vnd.bunny-bridge.composite"
"""The content type; nothing that is not framed as above may have it."""
PLACE: Final = "$payload"
MAX_FIELDS: Final = 64
"""Payloads of one value: each is a row of the table, and at its author's a file that waits to be read."""
MAX_TABLE: Final = 32_768
"""Bytes; none that holds `MAX_FIELDS` of the longest types is longer."""
MAX_TYPE: Final = 257
"""Characters of a payload's content type: the longest that a sender takes."""


@dataclass(frozen=True, slots=True)
class Field:
    """A payload as the table has it."""

    content_type: str
    length: int


@dataclass(frozen=True, slots=True)
class Table:
    """Where everything is in the rest."""

    document: int
    """Bytes of the document."""
    fields: tuple[Field, ...]

    @property
    def length(self) -> int:
        """Bytes of the rest."""
        return self.document + sum(field.length for field in self.fields)

    def places(self) -> list[tuple[int, Field]]:
        """The fields, each after where it begins in the rest."""
        at, found = self.document, []
        for field in self.fields:
            found.append((at, field))
            at += field.length
        return found

    def encode(self) -> bytes:
        """The head."""
        rows = [{"content_type": field.content_type, "length": field.length} for field in self.fields]
        data = strict_json.dump({"document": self.document, "payloads": rows})
        return len(data).to_bytes(2) + data


def decode(body: bytes) -> tuple[Table, bytes]:
    """The table, and what follows it in the message: all of the rest, or nothing where that is in parts.

    Raises:
        BadPrelude: It is not as specified.
    """
    end = 2 + int.from_bytes(body[:2])
    try:
        if not 2 < end <= min(len(body), 2 + MAX_TABLE):
            raise ValueError
        value = strict_json.parse_object(body[2:end])
        strict_json.expect_keys(value, {"document", "payloads"})
        rows = value["payloads"]
        if type(rows) is not list or not 0 < len(rows) <= MAX_FIELDS:
            raise ValueError
        table = Table(_length(value["document"]), tuple(_field(row) for row in rows))
    except ValueError:
        raise BadPrelude("the table of a value's payloads is not as specified") from None
    return table, body[end:]


def check_apart(follows: bytes) -> None:
    """Check what follows the table in a message whose rest is in parts.

    Raises:
        BadPrelude: There is something.
    """
    if follows:
        raise BadPrelude("a body beside a payload in parts")


def check_length(table: Table, length: int) -> None:
    """Check that a table speaks of the rest that is there.

    Raises:
        BadPrelude: It speaks of another.
    """
    if table.length != length:
        raise BadPrelude("the table of a value's payloads speaks of other bytes than are there")


def _field(row: Any) -> Field:  # noqa: ANN401  a JSON value
    strict_json.expect_keys(row, {"content_type", "length"})
    content_type = row["content_type"]
    if type(content_type) is not str or not 0 < len(content_type) <= MAX_TYPE:
        raise ValueError
    return Field(content_type, _length(row["length"]))


def _length(value: object) -> int:
    if type(value) is int and 0 <= value <= MAX_PAYLOAD:
        return value
    raise ValueError
