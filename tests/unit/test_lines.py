"""What is read without nats-py is what nats-py would have made of it, wherever a read ends, but where that misreads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from bridge.jetstream.client import TolerantClient
from bridge.jetstream.lines import LineParser

HEADERS = b"NATS/1.0\r\nBunny-Kind: resize\r\nNats-Msg-Id: 12\r\n\r\n"
STATUS = b"NATS/1.0 503\r\n\r\n"


def msg(subject: bytes, data: bytes, reply: bytes = b"") -> bytes:
    return b" ".join(filter(None, (b"MSG", subject, b"7", reply, b"%d\r\n%s\r\n" % (len(data), data))))


def hmsg(subject: bytes, headers: bytes, data: bytes, reply: bytes = b"") -> bytes:
    sizes = b"%d %d\r\n%s%s\r\n" % (len(headers), len(headers + data), headers, data)
    return b" ".join(filter(None, (b"HMSG", subject, b"8", reply, sizes)))


STREAM = b"".join(
    (
        msg(b"a.b", b"12"),
        msg(b"a.1", b"MSG a 7 2\r\n12\r\n", b"12"),
        hmsg(b"jobs.q", HEADERS, b"\r\n\0" * 7, b"$JS.ACK.x"),
        b"PING\r\n",
        hmsg(b"inbox.1", STATUS, b""),
        b"+OK\r\n",
        msg(b"a", b""),
        b"MSG\ta 7  3\r\nabc\r\n",
        b"PONG\r\n",
        msg("ü".encode(), b"x" * 40),
        hmsg(b"b", HEADERS, b"y" * 300),
    )
)


class Heard:
    """What a parser tells its client."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.told.append((sid, subject, reply, data, headers))

    async def _process_ping(self) -> None:
        self.told.append(("ping",))

    async def _process_pong(self) -> None:
        self.told.append(("pong",))


def parsed(kind: type[Parser], *reads: bytes) -> list[tuple[Any, ...]]:
    async def read() -> list[tuple[Any, ...]]:
        heard = Heard()
        parser = kind(heard)
        for each in reads:
            await parser.parse(each)
        return [*heard.told, ("left", bytes(parser.buf), parser.state)]

    return asyncio.run(read())


def test_a_stream_is_read_as_nats_py_reads_it_wherever_a_read_ends() -> None:
    expected = parsed(Parser, STREAM)
    assert len(expected) == 11
    assert parsed(LineParser, STREAM) == expected
    for at in range(len(STREAM)):
        assert parsed(LineParser, STREAM[:at], STREAM[at:]) == expected
    assert parsed(LineParser, *(STREAM[i : i + 1] for i in range(len(STREAM)))) == expected
    assert parsed(LineParser, *(STREAM[i : i + 9] for i in range(0, len(STREAM), 9))) == expected


def test_what_is_not_whole_is_left_as_nats_py_leaves_it() -> None:
    for at in range(len(STREAM)):
        assert parsed(LineParser, STREAM[:at]) == parsed(Parser, STREAM[:at])


@pytest.mark.parametrize("line", [b"MSG a 7 -1\r\n", b"MSG a x 1\r\n", b"HMSG a 8 9\r\n", b"MSSG a 8 9\r\n", b"\r\n"])
def test_nonsense_is_refused_as_nats_py_refuses_it(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed(Parser, msg(b"a", b"1") + line)
    with pytest.raises(ProtocolError):
        parsed(LineParser, msg(b"a", b"1") + line)


@pytest.mark.parametrize(
    "line",
    [
        b"HMSG a 8 30 20\r\n" + b"x" * 60,  # more headers than message
        b"MSG a 8 1234567890\r\n",
        b"MSG a b 8 2\r\n12\r\n",
        b"+NO " + b"x" * 5000 + b"\r\n",
    ],
)
def test_what_nats_py_would_wait_at_or_misread_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed(LineParser, line)


ODD = [b"jobs.q.\xff.1", b"jobs.q.a\x0bb.1", b"jobs.q.a\x0c7.1", b"jobs.q.\0.1", b"jobs.q.\x1c\x85\xa0"]


@pytest.mark.parametrize("subject", ODD)
def test_a_subject_may_have_any_bytes_that_end_none_wherever_a_read_ends(subject: bytes) -> None:
    stream = msg(subject, b"12", b"reply\x0b") + b"PING\r\n" + hmsg(subject, HEADERS, b"3") + msg(b"a", b"4")
    expected = [
        (7, subject, b"reply\x0b", b"12", None),
        ("ping",),
        (8, subject, b"", b"3", HEADERS),
        (7, b"a", b"", b"4", None),
        ("left", b"", 1),
    ]
    for at in range(len(stream)):
        assert parsed(LineParser, stream[:at], stream[at:]) == expected


def test_no_digits_after_headers_that_are_an_end_of_a_line_are_a_size() -> None:
    stream = hmsg(b"a", b"\r\n", b"7") + b"PING\r\n"
    assert ("ping",) not in parsed(Parser, stream)
    assert parsed(LineParser, stream) == [(8, b"a", b"", b"7", b"\r\n"), ("ping",), ("left", b"", 1)]


def test_nothing_that_follows_is_read_of_a_connection_that_was_given_up() -> None:
    class GivesUp(Heard):
        async def _process_err(self, said: str) -> None:
            self.told.append((said,))
            parser.reset()

    heard = GivesUp()
    parser = LineParser(heard)
    asyncio.run(parser.parse(msg(b"a", b"1") + b"-ERR 'Stale'\r\n" + msg(b"a", b"2")))
    assert heard.told == [(7, b"a", b"", b"1", None), ("'stale'",)]
    assert not parser.buf


def test_a_callback_hears_the_same_message_from_both() -> None:
    async def heard(kind: type[Client]) -> list[tuple[Any, ...]]:
        client: Any = kind()
        client._flush_queue = asyncio.Queue()
        told: list[tuple[Any, ...]] = []
        done = asyncio.Event()

        async def hear(message: Msg) -> None:
            told.append((message.subject, message.reply, message.data, message.headers, message.sid))
            if message.data == b"end":
                done.set()

        subscription = await client.subscribe("a.>", cb=hear, pending_bytes_limit=200)
        sid = b"%d" % subscription._id
        blocks = (HEADERS, STATUS, b"NATS/1.0 408 Request Timeout\r\nA: b\r\n\r\n", b"NATS/1.0\r\nno colon\r\n\r\n")
        messages = [hmsg(b"a.1", block, b"12", b"c").replace(b" 8 ", b" %s " % sid, 1) for block in blocks]
        messages += [b"MSG a.2 %s 2\r\n12\r\n" % sid, b"MSG a.3 %s 250\r\n%s\r\n" % (sid, b"x" * 250)]  # too much
        messages += [b"MSG a.4 99 2\r\n12\r\n", b"MSG a.5 %s 3\r\nend\r\n" % sid]
        for each in messages:
            await client._ps.parse(each)
            await asyncio.sleep(0)
        await done.wait()
        return [*told, client.stats]

    assert asyncio.run(heard(TolerantClient)) == asyncio.run(heard(Client))
