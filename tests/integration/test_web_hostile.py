"""Hostile forms and names: the web tier answers each in one sentence and serves the other clients."""

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facerec.messages import UNKNOWN
from facerec.processes.addresses import poll_until
from facerec.text import is_text
from tests.fakes.web_tier import answers, picture, together
from tests.support.served_web_tier import ServedWebTier, read_all, serve_web_tier

BOUNDARY = b"X"
FORM_HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
OUR_HEADERS = {
    b"cache-control",
    b"connection",
    b"content-length",
    b"content-type",
    b"content-security-policy",
    b"cross-origin-opener-policy",
    b"cross-origin-resource-policy",
    b"date",
    b"permissions-policy",
    b"referrer-policy",
    b"retry-after",
    b"x-content-type-options",
    b"x-frame-options",
    b"strict-transport-security",
    b"www-authenticate",
    b"x-request-id",
    b"allow",
}
TIMEOUT_SECONDS = 30

hostile = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def web() -> Iterator[ServedWebTier]:
    """One web tier for all tests; it must go on serving."""
    with serve_web_tier(answers(UNKNOWN), max_upload_bytes=200_000) as one:
        yield one
        assert one.upload().text == "image_01.jpg: face not recognized"


def said_to(web: ServedWebTier, message: bytes) -> bytes:
    """All that the server says to a message whose sender then only listens."""
    with web.connect() as connection:
        try:
            connection.sendall(message)
            connection.shutdown(1)
            return read_all(connection)
        except (ConnectionResetError, BrokenPipeError):
            return b""


def replies_in(said: bytes) -> list[tuple[int, bytes]]:
    """The statuses and bodies of what was said; fails unless it is nothing but whole replies with our headers."""
    found = []
    while said:
        head, end, rest = said.partition(b"\r\n\r\n")
        assert end, said
        first, *lines = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/1\.[01] (\d{3}) [A-Za-z -]+", first)
        assert match, first
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        assert headers.keys() <= OUR_HEADERS, headers
        assert b"\r" not in head.replace(b"\r\n", b"")
        length = int(headers.get(b"content-length", b"0"))
        found.append((int(match[1]), rest[:length]))
        said = rest[length:]
    return found


def only_reply(said: bytes) -> tuple[int, str]:
    """The one reply, which must be one line of text without control characters."""
    ((status, body),) = replies_in(said)
    text = body.decode()
    assert text
    assert all(is_text(character) or character == "\u200d" for character in text), text
    return status, text


def form(body: bytes) -> bytes:
    """A request with this form."""
    return FORM_HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


PARAMETERS = st.one_of(
    st.sampled_from(
        [b'name="inputFile"', b'filename="a.jpg"', b"filename*=UTF-8''%0d%0aX-Evil:%20a", b"name", b'"', b"="]
    ),
    st.binary(max_size=30),
)
PARTS = st.builds(
    lambda parameters, headers, data: (
        b"--X\r\nContent-Disposition: form-data; " + b"; ".join(parameters) + b"\r\n" + headers + b"\r\n\r\n" + data
    ),
    st.lists(PARAMETERS, max_size=4),
    st.sampled_from(
        [b"", b"Content-Type: image/jpeg", b"Content-Transfer-Encoding: base64", b"\xff: \x00", b" folded"]
    ),
    st.one_of(st.just(picture()), st.binary(max_size=100)),
)


@hostile
@given(st.lists(PARTS, max_size=4), st.sampled_from([b"\r\n--X--\r\n", b"--X--", b"", b"\r\n--X\r\n", b"\r\n--X-"]))
def test_web_answers_any_form(web: ServedWebTier, parts: list[bytes], end: bytes) -> None:
    """With one sentence, and never with 500."""
    status, _ = only_reply(said_to(web, form(b"\r\n".join(parts) + end)))
    assert status in {200, 400, 413, 415}


@hostile
@given(st.data())
def test_web_answers_any_damaged_form(web: ServedWebTier, data: st.DataObject) -> None:
    """Bytes are cut out, inserted or changed anywhere."""
    head = (
        b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = head + picture() + b"\r\n--X--\r\n"
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        body = body[:start] + data.draw(st.binary(max_size=5)) + body[start + data.draw(st.integers(0, 20)) :]
    status, _ = only_reply(said_to(web, form(body)))
    assert status in {200, 400, 415}


@hostile
@given(st.text(max_size=50))
def test_web_answers_any_file_name(web: ServedWebTier, name: str) -> None:
    """The reply repeats it without what could break the line or turn its direction."""
    quoted = name.encode(errors="replace").replace(b'"', b"%22").replace(b"\r", b"").replace(b"\n", b"")
    body = b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="%s"\r\n\r\n' % quoted
    status, text = only_reply(said_to(web, form(body + picture() + b"\r\n--X--\r\n")))
    assert status in {200, 400}
    assert status == 400 or text.endswith(": face not recognized")


def test_error_repeats_a_path_without_control_characters(web: ServedWebTier) -> None:
    """In one line."""
    _, text = only_reply(
        said_to(web, b"GET /%0d%0aX-Evil:%20a%1b[31m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    )
    assert "/ X-Evil: a [31m:" in text


@pytest.mark.parametrize(
    "head",
    [
        b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\nHost: localhost",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
        b"GET /healthz HTTP/1.1\r\nHost: evil.example,\r\n localhost",
        b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost",
        b"GET /healthz HTTP/1.1\r\nX-Forwarded-Host: localhost",
    ],
)
def test_request_that_names_no_single_host_is_400(web: ServedWebTier, head: bytes) -> None:
    """As the server hands it on."""
    status, text = only_reply(said_to(web, head + b"\r\nConnection: close\r\n\r\n"))
    assert status == 400
    assert "one Host header" in text


@pytest.mark.parametrize(
    "head", [b"GET /nowhere HTTP/1.0", b"GET http://localhost/nowhere HTTP/1.1\r\nHost: localhost"]
)
def test_request_that_names_one_host_or_may_name_none_is_served(web: ServedWebTier, head: bytes) -> None:
    """HTTP/1.0 needs no host."""
    assert only_reply(said_to(web, head + b"\r\nConnection: close\r\n\r\n"))[0] == 404


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within half a minute."""
    return poll_until(condition, TIMEOUT_SECONDS)


def files_in(folder: Path) -> int:
    """How many temporary files this process holds there, though they have no name."""
    held = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            held += str(descriptor.readlink()).startswith(str(folder))
        except FileNotFoundError:
            continue
    return held


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_upload_has_no_temporary_file_while_it_waits_for_its_result(folder: Path) -> None:
    """The picture is in the store by then."""
    body = picture() + bytes(1_000_000)
    with serve_web_tier() as web, together(3, lambda _: web.upload(body)):
        requests = web.tier.tasks.await_count(3)
        assert eventually(lambda: files_in(folder) == 0)
        for request in requests:
            web.tier.work(request, answers("Jane")(request))


def test_client_that_disconnects_leaves_no_temporary_file(folder: Path) -> None:
    """In the middle of an upload."""
    with serve_web_tier(answers("Jane")) as web:
        with web.connect() as connection:
            connection.sendall(FORM_HEAD + b"Content-Length: 2000000\r\n\r\n" + bytes(1_000_000))
            assert eventually(lambda: files_in(folder) == 1)
        assert eventually(lambda: files_in(folder) == 0)
        assert web.upload().status_code == 200
