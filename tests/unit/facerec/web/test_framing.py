"""Requests as bytes: what a client may send, and what it costs the loop that serves everybody."""

import pytest
from waitress.adjustments import Adjustments

from facerec.web.chunks import CHUNK_OVERHEAD_BYTES, CONTROL_BYTES
from facerec.web.framing import Parser

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
LIMIT = 1_000_000


def welcoming(adjustments: Adjustments) -> Parser:
    """A parser that turns nobody away for what the head says."""
    return Parser(adjustments, preview=lambda _: None, address="127.0.0.1")


def parsed(*pieces: bytes) -> Parser:
    """A parser that has taken the pieces, one after the other, until the request was complete."""
    parser = welcoming(Adjustments(max_request_body_size=LIMIT, inbuf_overflow=2 * LIMIT))
    for piece in pieces:
        rest = piece
        while rest and not parser.completed:
            rest = rest[parser.received(rest) :]
    return parser


@pytest.mark.parametrize("size", [1, 7, 1024, 65_536])
@pytest.mark.parametrize("chunk", [200, 5_000])
def test_chunks_are_put_together_however_they_arrive(size: int, chunk: int) -> None:
    """And what follows them belongs to the next request."""
    body = bytes(range(256)) * 80
    chunks = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in pieces(body, chunk)) + b"0\r\nX: y\r\n\r\n"
    message = CHUNKED + chunks
    parser = parsed(*pieces(message, size))
    assert parser.completed
    assert parser.error is None
    assert parser.headers["CONTENT_LENGTH"] == str(len(body))
    assert parser.get_body_stream().read() == body
    parser = parsed(CHUNKED)
    assert parser.received(chunks + b"GET") == len(chunks)


def pieces(data: bytes, size: int) -> list[bytes]:
    """The bytes cut in pieces of a size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"1;" + b"a" * 3 * CONTROL_BYTES, "too long"),
        (b"0" * 3 * CONTROL_BYTES, "too long"),
        (b"0\r\n" + b"a: b\r\n" * CONTROL_BYTES, "too long"),
        (b"1\r\nx\r\n" * CHUNK_OVERHEAD_BYTES, "too small"),
        (b"5\n\r\nabcde\r\n0\r\n\r\n", "without CR"),
        (b"5;a\n\r\nabcde\r\n0\r\n\r\n", "without CR"),
        (b"5;a=\r\r\nabcde\r\n0\r\n\r\n", "extension"),
        (b"\r\n5\r\nabcde\r\n0\r\n\r\n", "chunk size"),
        (b"5 \r\nabcde\r\n0\r\n\r\n", "chunk size"),
        (b"5\r\nabcdef\r\n0\r\n\r\n", "not properly terminated"),
        (b"0\r\nX: y\n\r\n\r\n", "without CR"),
        (b"0\r\nno trailer\r\n\r\n", "trailer"),
    ],
)
@pytest.mark.parametrize("size", [1, 100, 65_536])
def test_chunks_are_read_to_the_letter_and_have_an_end(body: bytes, reason: str, size: int) -> None:
    """Another server may read what is not to the letter differently, and an end there must be to what is no body."""
    parser = parsed(CHUNKED, *pieces(body, size))
    assert parser.completed
    assert parser.error is not None
    assert parser.error.code == 400
    assert reason in parser.error.body


def test_a_body_that_is_refused_is_read_and_not_kept() -> None:
    """Its end is found nevertheless, so that the client listens when it is answered."""
    message = CHUNKED + b"%x\r\n" % (3 * LIMIT) + bytes(3 * LIMIT) + b"\r\n0\r\n\r\n"
    *most, last = pieces(message, 65_536)
    parser = parsed(*most)
    assert not parser.completed
    assert parser.error is not None
    assert parser.error.code == 413
    assert parser.held_bytes == 0
    parser.received(last)
    assert parser.completed


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: ,\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding:\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/2.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST http://[ HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_refused(head: bytes) -> None:
    """And nothing behind it is looked at."""
    message = head + b"abcde" * 100
    parser = welcoming(Adjustments())
    assert parser.received(message) == len(message)
    assert parser.completed
    assert parser.error is not None
    assert parser.error.code == 400


def test_a_blank_line_before_a_request_is_forgiven() -> None:
    """As RFC 9112, section 2.2, asks."""
    parser = parsed(b"\r\nGET /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert parser.error is None
    assert parser.path == "/x"
