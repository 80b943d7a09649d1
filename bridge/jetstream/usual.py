"""What passes thousands of times a second, read and written in fewer steps than nats-py's; it does the rest.

nats-py reads each message by two expressions and out of a buffer that it shortens each time, and writes each header by
itself. Here a message that is there whole is taken out of the bytes as they came, and a command is written at once.
What is unusual, or not there whole, is left to nats-py. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from nats.protocol.parser import AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

_MSG: Final = re.compile(rb"MSG ([!-~]+) ([0-9]{1,9}) (?:([!-~]+) )?([0-9]{1,9})\r\n")
_HMSG: Final = re.compile(rb"HMSG ([!-~]+) ([0-9]{1,9}) (?:([!-~]+) )?([0-9]{1,9}) ([0-9]{1,9})\r\n")
_H: Final = ord("H")
_PLAIN: Final = b"NATS/1.0\r\n"
_END: Final = b"\r\n\r\n"
_NAME: Final = re.compile(r"[A-Za-z0-9-]+")
_UNSAFE: Final = re.compile(r"[ \t\r\n]")
"""What could end a subject, and begin a command of somebody else's."""


class UsualParser(Parser):
    """nats-py's parser, which is handed what is not a whole message."""

    async def parse(self, data: bytes = b"") -> None:
        """Take messages out of what was read; a part of one waits for the rest, as in nats-py."""
        if self.state == AWAITING_MSG_PAYLOAD:
            rest = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:rest])
            data = data[rest:]
        elif self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
        at, length = 0, len(data)
        while at < length:
            has_headers = data[at] == _H
            found = (_HMSG if has_headers else _MSG).match(data, at)
            if found is None:
                break
            begin = middle = found.end()
            if has_headers:
                subject, sid, reply, before, size = found.groups()
                middle += int(before)
            else:
                subject, sid, reply, size = found.groups()
            end = begin + int(size)
            if not middle <= end <= length - CRLF_SIZE:
                break
            headers = data[begin:middle] if has_headers else None
            await self.nc._process_msg(int(sid), subject, reply or b"", data[middle:end], headers)
            at = end + CRLF_SIZE
        if at < length:
            await super().parse(data[at:])


def read_headers(block: bytes) -> dict[str, str] | None:
    """The headers of a message, as of all but the server's own; None where nats-py is to read them."""
    if not (block.startswith(_PLAIN) and block.endswith(_END)):
        return None
    try:
        lines = block[len(_PLAIN) : -len(_END)].decode("ascii").split("\r\n")
        return dict([line.split(": ", 1) for line in lines])  # a line without a value is a ValueError
    except ValueError:
        return None


def write(subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> bytes | None:
    """A command to publish; None where nats-py is to write it, or to refuse it."""
    if not subject or _UNSAFE.search(subject) or _UNSAFE.search(reply):
        return None
    if headers is None:
        return b"".join((f"PUB {subject} {reply} {len(payload)}\r\n".encode(), payload, b"\r\n"))
    if not "".join(headers.values()).isprintable() or not all(map(_is_name, headers)):
        return None
    lines = "".join([f"{name}: {value.strip()}\r\n" for name, value in headers.items()])
    block = f"NATS/1.0\r\n{lines}\r\n".encode()
    sizes = f"HPUB {subject} {reply} {len(block)} {len(block) + len(payload)}\r\n"
    return b"".join((sizes.encode(), block, payload, b"\r\n"))


@lru_cache(64)
def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None
