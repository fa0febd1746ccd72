"""Hostile requests: damaged forms, header injections and ambiguous lengths."""

import random
from io import BytesIO

from PIL import Image

BOUNDARY = b"hostile-boundary"


def _picture() -> bytes:
    stream = BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 30)).save(stream, "JPEG")
    return stream.getvalue()


PICTURE = _picture()


def form(body: bytes, disposition: bytes = b'form-data; name="inputFile"; filename="a.jpg"') -> bytes:
    """A form with one file."""
    head = b"--%s\r\nContent-Disposition: %s\r\nContent-Type: image/jpeg\r\n\r\n" % (BOUNDARY, disposition)
    return head + body + b"\r\n--%s--\r\n" % BOUNDARY


def request(body: bytes, *headers: bytes, content_type: bytes | None = None) -> bytes:
    """A request with this body, on a connection that ends with it."""
    kind = content_type or b"multipart/form-data; boundary=" + BOUNDARY
    lines = (b"POST / HTTP/1.1", b"Host: localhost", b"Connection: close", b"Content-Type: " + kind, *headers)
    return b"\r\n".join((*lines, b"Content-Length: %d" % len(body), b"", body))


def malformed(dice: random.Random) -> bytes:
    """A request whose form has been damaged in one to four places, at times with another header than it needs."""
    body = bytearray(form(PICTURE))
    for _ in range(dice.randint(1, 4)):
        _damage(body, dice)
    kinds = (None, None, None, b"multipart/form-data", b"multipart/form-data; boundary=", b"multipart/mixed", b"\xff")
    return request(bytes(body), content_type=dice.choice(kinds))


def _damage(body: bytearray, dice: random.Random) -> None:
    head = min(len(body), 200)
    start = dice.randrange(max(1, head if dice.random() < 0.7 else len(body)))  # noqa: PLR2004 - mostly the head
    end = min(len(body), start + dice.randint(1, 30))
    match dice.randrange(5):
        case 0:
            del body[start:end]
        case 1:
            body[start:end] = dice.randbytes(end - start)
        case 2:
            body[start:start] = dice.choice((b"\r\n", b"\0", b'"', b"--" + BOUNDARY, b";" * 500, b"\xff\xfe", b"\n"))
        case 3:
            body[start:start] = body[start:end] * dice.randint(1, 50)
        case _:
            del body[start:]


def injections() -> list[bytes]:
    """Line breaks in names, ambiguous lengths, broken chunks, absurd heads."""
    evil = b"\r\nX-Evil: yes\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>"
    names = (
        b'form-data; name="inputFile"; filename="a' + evil + b'.jpg"',
        b"form-data; name=\"inputFile\"; filename*=UTF-8''a%0d%0aX-Evil:%20yes.jpg",
        b'form-data; name="inputFile"; filename="' + "a\u2028b\u202egpj.exe".encode() + b'"',
        b'form-data; name="inputFile' + evil + b'"; filename="a.jpg"',
        b'form-data; name="inputFile"; filename="' + b"x" * 60_000 + b'"',
        b"form-data" + b'; a="b"' * 5_000,
    )
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n"
    return [
        *(request(form(b"no picture", name)) for name in names),
        request(form(PICTURE), b"X-A: b\rX-Evil: yes"),
        request(form(PICTURE), b"X-A: b\nX-Evil: yes"),
        request(form(PICTURE), b"X-A: b\r\n folded"),
        request(form(PICTURE), b"X A: b"),
        request(form(PICTURE), b"X-\0: b"),
        post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
        post + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled,
        post + b"Content-Length: +5\r\n\r\nabcde" + smuggled,
        post + b"Content-Length : 5\r\n\r\nabcde" + smuggled,
        post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled,
        post + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + smuggled,
        post + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + smuggled,
        post + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + smuggled,
        post.replace(b"1.1", b"1.0")
        + b"Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + smuggled,
        chunked + b"\r\n-1\r\n" + smuggled,
        chunked + b"\r\n0x5\r\nabcde\r\n0\r\n\r\n" + smuggled,
        chunked + b"\r\n5\r\nabcdeXX0\r\n\r\n" + smuggled,
        chunked + b"\r\n5\nabcde\n0\n\n" + smuggled,
        chunked + b"\r\nffffffffffffffffffff\r\n" + smuggled,
        chunked + b"\r\n1;" + b"a" * 60_000,
        chunked + b"\r\n" + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n",
        chunked + b"\r\n0\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%0d%0aX-Evil:%20yes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n" * 30_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500) + b"\r\n\r\n",
    ]
