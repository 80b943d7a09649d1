"""What a server says of a message in one line, read as the server means it. No I/O.

nats-py takes every white space for the end of a subject, and the end of a line for white space. A server takes and
stores subjects with form feeds, and headers that are but an end of a line: whoever is sent one of those reads nonsense,
or waits for bytes that never come, gives its connection up, and is sent it again.
"""

from __future__ import annotations

import re
from typing import Final

from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

_TOKEN: Final = rb"([^ \t\r\n]++)[ \t]++"
"""A server ends one at these bytes alone. Nothing is tried twice: a line may have 60 KiB, and come in many reads."""
_NUMBER: Final = rb"([0-9]{1,9})"
_BEGIN: Final = rb"MSG[ \t]++" + _TOKEN + _NUMBER + rb"[ \t]++(?:" + _TOKEN + rb")?"
_MSG: Final = re.compile(_BEGIN + _NUMBER + rb"\r\n")
_HMSG: Final = re.compile(b"H" + _BEGIN + _NUMBER + rb"[ \t]++" + _NUMBER + rb"\r\n")
_H: Final = ord("H")


class LineParser(Parser):
    """nats-py's parser, which is handed the rest of a message that is not there whole, and lines that begin none."""

    async def parse(self, data: bytes = b"") -> None:
        """Take messages out of what was read; a part of one waits for the rest, as in nats-py.

        Raises:
            ProtocolError: It is not what a server says.
        """
        if self.state == AWAITING_MSG_PAYLOAD:
            rest = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:rest])
            data = data[rest:]
        elif self.buf:
            if b"\n" not in data:  # the same line still
                self.buf.extend(data)
                return
            data = bytes(self.buf) + data
            self.buf.clear()
        at, length = 0, len(data)
        while at < length:
            has_headers = data[at] == _H
            found = (_HMSG if has_headers else _MSG).match(data, at)
            if found is None:
                at = await self._other(data, at)
                continue
            begin = middle = found.end()
            if has_headers:
                subject, sid, reply, before, size = found.groups()
                middle += int(before)
            else:
                subject, sid, reply, size = found.groups()
            end = begin + int(size)
            at = end + CRLF_SIZE
            if middle > end:
                raise ProtocolError("nats: more headers than message")
            if at <= length:
                headers = data[begin:middle] if has_headers else None
                await self.nc._process_msg(int(sid), subject, reply or b"", data[middle:end], headers)
            else:
                self.msg_arg = {"subject": subject, "sid": int(sid), "reply": reply or b""}
                self.needed, self.header_needed, self.state = end - begin, middle - begin, AWAITING_MSG_PAYLOAD
                await super().parse(data[begin:at])

    async def _other(self, data: bytes, at: int) -> int:
        """Have nats-py read a line that begins no message, or keep what there is of it; where the next one begins."""
        end = data.find(b"\n", at) + 1
        if not end:
            self.buf.extend(data[at:])
            return len(data)
        if data.startswith((b"MSG", b"HMSG"), at):
            raise ProtocolError("nats: malformed MSG")
        before = self.buf
        await super().parse(data[at:end])
        if self.buf is not before:  # the connection was given up, and all that it said
            return len(data)
        if self.buf:
            raise ProtocolError("nats: unknown protocol")
        return end
