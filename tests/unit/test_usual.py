"""What is read and written without nats-py is what nats-py would have made of it, wherever a read ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from bridge.jetstream import usual
from bridge.jetstream.client import TolerantClient

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
    assert parsed(usual.UsualParser, STREAM) == expected
    for at in range(len(STREAM)):
        assert parsed(usual.UsualParser, STREAM[:at], STREAM[at:]) == expected
    assert parsed(usual.UsualParser, *(STREAM[i : i + 1] for i in range(len(STREAM)))) == expected
    assert parsed(usual.UsualParser, *(STREAM[i : i + 9] for i in range(0, len(STREAM), 9))) == expected


def test_what_is_not_whole_is_left_as_nats_py_leaves_it() -> None:
    for at in range(len(STREAM)):
        assert parsed(usual.UsualParser, STREAM[:at]) == parsed(Parser, STREAM[:at])


@pytest.mark.parametrize("line", [b"MSG a 7 -1\r\n", b"MSG a x 1\r\n", b"HMSG a 8 9\r\n", b"MSSG a 8 9\r\n", b"\r\n"])
def test_nonsense_is_refused_as_nats_py_refuses_it(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parsed(Parser, msg(b"a", b"1") + line)
    with pytest.raises(ProtocolError):
        parsed(usual.UsualParser, msg(b"a", b"1") + line)


def test_headers_that_are_longer_than_their_message_are_left_to_nats_py() -> None:
    line = b"HMSG a 8 30 20\r\n" + b"x" * 60
    assert parsed(usual.UsualParser, line) == parsed(Parser, line)


def written(
    kind: type[Client], subject: str, payload: bytes, reply: str, headers: dict[str, str] | None
) -> tuple[bytes, dict[str, int]]:
    async def write() -> tuple[bytes, dict[str, int]]:
        client: Any = kind()
        client._status, client._max_payload, client._max_pending_size = Client.CONNECTED, 1000, 10_000
        client._flush_queue = asyncio.Queue()
        client._flush_queue.put_nowait(None)  # so that nothing is flushed
        await client.publish(subject, payload, reply, headers)
        return b"".join(client._pending), client.stats

    return asyncio.run(write())


@pytest.mark.parametrize("payload", [b"", b"\r\n", b"x" * 999])
@pytest.mark.parametrize("reply", ["", "_INBOX.relay.1"])
@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"Bunny-Kind": "resize", "Nats-Msg-Id": "0" * 32},
        {"traceparent": ""},
        {"a": " padded "},
        {"a": "two\r\nNats-Rollup: all"},
        {"a": "tab\tin it", "b": "ü"},
        {" a ": "b"},
        {"": "b"},
        {"a_b": "c"},
    ],
)
def test_a_command_is_what_nats_py_writes(payload: bytes, reply: str, headers: dict[str, str] | None) -> None:
    expected = written(Client, "jobs.thumbs.1", payload, reply, headers)
    assert written(TolerantClient, "jobs.thumbs.1", payload, reply, headers) == expected


@pytest.mark.parametrize(
    ("subject", "reply", "headers"),
    [
        ("", "", None),
        ("a b", "", None),
        ("a\r\nPUB b 0", "", None),
        ("a", "b\r\nPUB c 0", None),
        ("a", "\tb", None),
        ("a", "", {"a: b\r\nc": "d"}),
        ("a", "", {"ü": "d"}),
    ],
)
def test_what_would_be_another_command_is_refused(subject: str, reply: str, headers: dict[str, str] | None) -> None:
    refusals = []
    for kind in (Client, TolerantClient):
        with pytest.raises(Exception) as refused:  # noqa: PT011  # nats-py's own, whatever it is
            written(kind, subject, b"", reply, headers)
        refusals.append(type(refused.value))
    assert refusals[0] is refusals[1]


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
