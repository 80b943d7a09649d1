"""What the transport makes of the words of servers, none of which it may trust."""

from __future__ import annotations

import pytest

from bridge import subjects
from bridge.errors import PayloadTooLarge, QueueFull, SubjectTaken, TransportError
from bridge.jetstream.connection import _addresses
from bridge.jetstream.publish import read_puback
from bridge.jetstream.settle import delivered, is_ack_subject
from bridge.subjects import JobKey
from bridge.transport import PubAck

SUBJECT = "jobs.thumbs.normal.alpha.0123456789abcdef01234567.1"


def read(data: bytes, headers: dict[str, str] | None = None) -> PubAck | None:
    return read_puback(data, headers or {}, "JOBS_thumbs", SUBJECT)


def refusal(code: int, number: int, words: str) -> bytes:
    return b'{"error":{"code":%d,"err_code":%d,"description":"%s"},"stream":"JOBS_thumbs","seq":0}' % (
        code,
        number,
        words.encode(),
    )


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (refusal(503, 10077, "maximum messages per subject exceeded"), SubjectTaken),
        (refusal(503, 10077, "maximum messages exceeded"), QueueFull),
        (refusal(503, 10077, "maximum bytes exceeded"), QueueFull),
        (refusal(503, 10077, "words of a later version"), QueueFull),  # never a fence that nobody is known to hold
        (refusal(500, 10047, "insufficient storage resources available"), QueueFull),
        (refusal(503, 10023, "insufficient resources"), QueueFull),
        (refusal(400, 10054, "message size exceeds maximum allowed"), PayloadTooLarge),
        (refusal(400, 10060, "expected stream does not match"), TransportError),
        (b'{"stream":"JOBS_other","seq":1}', TransportError),
        (b'{"stream":"JOBS_thumbs"}', TransportError),
        (b'{"stream":"JOBS_thumbs","seq":"one"}', TransportError),
        (b'{"error":"no"}', TransportError),
        (b"[]", TransportError),
        (b"\xff", TransportError),
        (b"", TransportError),
        (b"[" * 100_000, TransportError),
    ],
)
def test_a_refusal_has_its_name(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as raised:
        read(answer)
    assert raised.type is error


def test_a_refusal_repeats_no_control_characters() -> None:
    with pytest.raises(TransportError) as raised:
        read(refusal(400, 99, "\\u001b[2J\\n" + "x" * 1000))
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("answer", [refusal(503, 10008, "JetStream system temporarily unavailable")])
def test_what_may_pass_is_tried_again(answer: bytes) -> None:
    assert read(answer) is None
    assert read(b"", {"Status": "503"}) is None


def test_a_puback() -> None:
    assert read(b'{"stream":"JOBS_thumbs","seq":7,"domain":"aws"}') == PubAck("JOBS_thumbs", 7, False)
    assert read(b'{"stream":"JOBS_thumbs","seq":7,"duplicate":true}') == PubAck("JOBS_thumbs", 7, True)


@pytest.mark.parametrize(
    "subject",
    [
        subjects.result(JobKey("thumbs", "alpha", "0123456789abcdef01234567", 1)),
        "",
        "$JS.API.STREAM.DELETE.JOBS_thumbs",
        "$JS.ACKX.JOBS_thumbs.bunny-normal.1.1.1.1.0",
        "$JS.ACK.a b.c",
        "$JS.ACK.a\r\nPUB x 0",
        "$JS.ACK.>",
    ],
)
def test_an_ack_is_sent_nowhere_else(subject: str) -> None:
    assert not is_ack_subject(subject)


@pytest.mark.parametrize(
    ("subject", "times"),
    [
        ("$JS.ACK.JOBS_thumbs.bunny-normal.3.10.11.1795419822676489545.0", 3),
        ("$JS.ACK.aws.hAsH.JOBS_thumbs.bunny-normal.4.10.11.1795419822676489545.0", 4),
        ("$JS.ACK.aws.hAsH.JOBS_thumbs.bunny-normal.4.10.11.1795419822676489545.0.token", 4),
        ("$JS.ACK.JOBS_thumbs.bunny-normal.x.10.11.1795419822676489545.0", 2),
        ("$JS.ACK.JOBS_thumbs.bunny-normal.-1.10.11.1795419822676489545.0", 2),
        ("$JS.ACK.JOBS_thumbs", 2),
    ],
)
def test_the_count_of_deliveries_is_read_or_taken_for_more_than_one(subject: str, times: int) -> None:
    assert is_ack_subject(subject)
    assert delivered(subject) == times


def test_a_trailing_dot_is_for_the_resolver_and_not_for_the_certificate() -> None:
    assert _addresses("tls://nats.svc.:4222") == (["tls://nats.svc.:4222"], "nats.svc")
    assert _addresses("tls://a.svc.:1, tls://b.svc:2") == (["tls://a.svc:1", "tls://b.svc:2"], None)
