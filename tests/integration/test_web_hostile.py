"""Clients that do what none should: the web tier answers them in one sentence, or not at all, and serves the others."""

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facerec.api_keys import Scope, issue
from facerec.messages import UNKNOWN
from facerec.processes.addresses import poll_until
from facerec.text import is_text
from tests.fakes.api_keys import HangingApiKeys, InMemoryApiKeys
from tests.fakes.web_tier import answers, picture, together
from tests.support.served import Served, read_all, served

BOUNDARY = b"X"
FORM_HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
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
PATIENCE_SECONDS = 30

hostile = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def house() -> Iterator[Served]:
    """One web tier for all of them: it must not mind."""
    with served(answers(UNKNOWN), max_upload_bytes=200_000, header_seconds=PATIENCE_SECONDS) as one:
        yield one
        assert one.upload().text == "image_01.jpg: face not recognized"


def said_to(house: Served, message: bytes) -> bytes:
    """All that the server says to a message whose sender then only listens."""
    with house.connect() as connection:
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


@hostile
@given(st.binary(max_size=600))
def test_any_bytes_instead_of_a_request(house: Served, data: bytes) -> None:
    """A 4xx, or a 501."""
    found = replies_in(said_to(house, data + b"\r\n\r\n"))
    assert found
    assert {status for status, _ in found} <= {400, 403, 404, 405, 421, 431, 501}


TOKENS = st.sampled_from(
    [b"Content-Length", b"Transfer-Encoding", b"Content-Type", b"Expect", b"Connection", b"Host", b"X", b"Cookie"]
)
VALUES = st.one_of(
    st.sampled_from([b"chunked", b"0", b"5", b"-1", b"9" * 30, b"100-continue", b"close", b"multipart/form-data", b""]),
    st.binary(max_size=40).filter(lambda value: b"\n" not in value),
)


@hostile
@given(st.lists(st.tuples(TOKENS, VALUES), max_size=8), st.binary(max_size=200))
def test_any_headers(house: Served, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Likewise where its end is clear; whatever the body is taken for, nothing of it gets into a header."""
    head = b"".join(b"%s: %s\r\n" % header for header in headers)
    said = said_to(house, b"POST /?a=b HTTP/1.1\r\n" + head + b"\r\n" + body)
    found = replies_in(said.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
    assert found or any(name in {b"Content-Length", b"Transfer-Encoding"} for name, _ in headers)
    assert {status for status, _ in found} <= {400, 403, 404, 405, 413, 415, 417, 421, 431, 501}


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
def test_what_expects_to_go_on_and_does_not_gives_its_key_to_nobody(length: bytes) -> None:
    """A request that is complete without a body is answered; the next on the connection has headers of its own."""
    key, token = issue("kiosk", [Scope.RECOGNISE], now=datetime.now(UTC))
    secret = token.reveal().encode()
    keyed = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nx-api-key: %s\r\nExpect: 100-continue\r\n%s\r\n"
    with served(keys=InMemoryApiKeys(key)) as house, house.connect() as connection:
        connection.sendall(keyed % (secret, length))
        assert connection.recv(10_000).startswith(b"HTTP/1.1 404 ")
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert b"HTTP/1.1 401 " in read_all(connection)


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
def test_any_form(house: Served, parts: list[bytes], end: bytes) -> None:
    """One sentence for each, and never our own mistake."""
    status, _ = only_reply(said_to(house, form(b"\r\n".join(parts) + end)))
    assert status in {200, 400, 413, 415}


@hostile
@given(st.data())
def test_any_damage_to_a_good_form(house: Served, data: st.DataObject) -> None:
    """Bytes cut out, put in, or changed, anywhere."""
    head = (
        b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    )
    body = head + picture() + b"\r\n--X--\r\n"
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        body = body[:start] + data.draw(st.binary(max_size=5)) + body[start + data.draw(st.integers(0, 20)) :]
    status, _ = only_reply(said_to(house, form(body)))
    assert status in {200, 400, 415}


@hostile
@given(st.text(max_size=50))
def test_any_file_name(house: Served, name: str) -> None:
    """It comes back in the text, without what could break the line or turn its direction."""
    quoted = name.encode(errors="replace").replace(b'"', b"%22").replace(b"\r", b"").replace(b"\n", b"")
    body = b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="%s"\r\n\r\n' % quoted
    status, text = only_reply(said_to(house, form(body + picture() + b"\r\n--X--\r\n")))
    assert status in {200, 400}
    assert status == 400 or text.endswith(": face not recognized")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n", 400),
        (b"Content-Length: 0, 60\r\n\r\n", 400),
        (b"Content-Length: +0\r\n\r\n", 400),
        (b"Content-Length : 0\r\n\r\n", 400),
        (b"Content-Length: 0\r\nX: a\r\n b\r\n\r\n", 400),
        (b"Content-Length: 0\nX: y\r\n\r\n", 400),
        (b"Transfer-Encoding: identity\r\n\r\n", 501),
        (b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
        (b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n1\nab\n0\n\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0;a\n\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\n", 400),
        (b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: ,\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"Content-Length: 5\r\nTransfer-Encoding:\r\n\r\nabcde", 400),
    ],
)
def test_no_request_is_smuggled(house: Served, head: bytes, status: int) -> None:
    """What leaves open where it ends gets one reply, and the connection ends with it."""
    with house.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + head + SMUGGLED)
        told, text = only_reply(read_all(connection))
    assert told == status
    assert "smuggled" not in text


def test_what_a_client_wrote_is_repeated_without_control_characters(house: Served) -> None:
    """Here in a path."""
    _, text = only_reply(
        said_to(house, b"GET /%0d%0aX-Evil:%20a%1b[31m HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    )
    assert "X-Evil: a[31m" in text


def test_a_broken_line_of_the_head_is_not_repeated(house: Served) -> None:
    """It may be the one with the key."""
    _, text = only_reply(said_to(house, b"GET / HTTP/1.1\r\nX-Api-Key: secret\n\r\n\r\n"))
    assert text == "this is no proper HTTP request (Bare CR or LF found in header line): use an HTTP client"


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true within half a minute."""
    return poll_until(condition, PATIENCE_SECONDS)


def test_a_head_that_drips_in_is_cut_off() -> None:
    """Also if a byte comes all the time; and a connection on which none ever came."""
    with served(answers("Jane"), header_seconds=0.3) as house, house.connect() as dripping, house.connect() as silent:
        dripping.sendall(b"POST / HTTP/1.1\r\nX: ")
        dripping.settimeout(0.05)
        said = b""
        while not said:
            dripping.sendall(b"a")
            try:
                said = dripping.recv(1000)
            except TimeoutError:
                continue
        assert only_reply(said)[0] == 408
        assert silent.recv(1) == b""
        assert house.upload().status_code == 200


def test_a_body_that_drips_in_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that comes fast enough is not."""
    monkeypatch.setattr("facerec.web.connection.BODY_GRACE_SECONDS", 0.3)
    with served(answers("Jane"), min_bytes_per_second=1) as house, house.connect() as fast, house.connect() as slow:
        slow.sendall(FORM_HEAD + b"Content-Length: 100000\r\n\r\n")
        fast.sendall(FORM_HEAD + b"Content-Length: 1000\r\n\r\n" + b"a" * 900)
        assert only_reply(read_all(slow))[0] == 408
        fast.sendall(b"a" * 100)
        assert fast.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_nobody_pays_for_a_pause_of_the_server() -> None:
    """A frozen process or machine: the client was not slow."""
    asleep, sent = threading.Event(), threading.Event()

    def pause() -> None:
        asleep.set()
        sent.wait(PATIENCE_SECONDS)
        time.sleep(5)

    with served(answers("Jane"), header_seconds=3) as house, house.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        house.server._server.trigger.pull_trigger(pause)
        assert asleep.wait(PATIENCE_SECONDS)
        connection.sendall(b"Host: localhost\r\n\r\n")
        sent.set()
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_slow_clients_cannot_keep_the_others_out() -> None:
    """More of them than the server holds connections: the slowest give way."""
    with served(answers("Jane"), max_waiting=1) as house, ExitStack() as stack:
        slow = [stack.enter_context(house.connect()) for _ in range(700)]
        for connection in slow:
            connection.sendall(b"POST / HTTP/1.1\r\nX: ")
        assert all(house.upload().status_code == 200 for _ in range(5))
        assert read_all(slow[0]).startswith(b"HTTP/1.1 503 ")


def test_who_asks_for_much_and_reads_nothing_keeps_nobody_out() -> None:
    """A thousand requests in one packet, on more connections than there are places."""
    requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1500
    with served(answers("Jane"), max_waiting=1) as house, ExitStack() as stack:
        for _ in range(520):
            greedy = stack.enter_context(socket.socket())
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            greedy.connect(house.address)
            greedy.setblocking(False)
            with suppress(BlockingIOError):
                greedy.send(requests)
        assert all(house.upload().status_code == 200 for _ in range(5))


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


def received(house: Served) -> int:
    """How many bytes of unfinished bodies the server has read."""
    requests = [channel.request for channel in list(house.server._server.active_channels.values())]
    return sum(request.body_bytes_received for request in requests if request is not None)


def test_the_body_of_a_stranger_who_falls_silent_is_not_kept(folder: Path) -> None:
    """Though it all came before his key was known to be wrong; he learns it when he has sent the rest."""
    size = 1_000_000
    (key, token), nobodys = issue("kiosk", [Scope.RECOGNISE], now=datetime.now(UTC)), f"frk_{'0' * 12}_{'A' * 43}"
    keys = HangingApiKeys(key)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nx-api-key: %s\r\nContent-Length: %d\r\n\r\n"
    with served(keys=keys) as house, house.connect() as stranger, house.connect() as holder:
        for connection, text in ((stranger, nobodys), (holder, token.reveal())):
            connection.sendall(head % (text.encode(), size) + bytes(size // 2))
        assert eventually(lambda: received(house) == size)
        assert files_in(folder) == 2
        keys.release.set()
        assert eventually(lambda: files_in(folder) == 1)
        for connection, status in ((stranger, b"401"), (holder, b"400")):
            connection.sendall(bytes(size // 2))
            assert connection.recv(10_000).split()[1] == status


def test_bodies_that_do_not_fit_are_refused_and_small_ones_are_not(folder: Path) -> None:
    """First those of which most is missing; each learns it when it has sent all."""
    size = 1_000_000
    with served(answers("Jane"), max_buffered_bytes=4 * size) as house, ExitStack() as stack:
        crowd = [stack.enter_context(house.connect()) for _ in range(10)]
        for number, connection in enumerate(crowd):
            connection.sendall(FORM_HEAD + b"Content-Length: %d\r\n\r\n" % size)
            connection.sendall(bytes(size - 1 - 10_000 * number))
        assert eventually(lambda: received(house) == sum(size - 1 - 10_000 * number for number in range(10)))
        assert eventually(lambda: files_in(folder) <= 5)
        assert house.upload().status_code == 200
        said = []
        for number, connection in enumerate(crowd):
            connection.sendall(bytes(1 + 10_000 * number))
            said.append(connection.recv(10_000))
        assert eventually(lambda: files_in(folder) == 0)
    refused = [words.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in words for words in said]
    taken = [words.startswith(b"HTTP/1.1 4") for words in said]  # nothing but zeros
    assert sum(refused) >= 5
    assert sum(refused) + sum(taken) == 10


def test_an_upload_takes_no_room_while_it_waits_for_its_result(folder: Path) -> None:
    """It is in the store by then."""
    body = picture() + bytes(1_000_000)
    with served() as house, together(3, lambda _: house.upload(body)):
        requests = house.tier.tasks.await_count(3)
        assert eventually(lambda: files_in(folder) == 0)
        for request in requests:
            house.tier.work(request, answers("Jane")(request))


def test_who_vanishes_leaves_nothing_behind(folder: Path) -> None:
    """In the middle of an upload."""
    with served(answers("Jane")) as house:
        with house.connect() as connection:
            connection.sendall(FORM_HEAD + b"Content-Length: 2000000\r\n\r\n" + bytes(1_000_000))
            assert eventually(lambda: files_in(folder) == 1)
        assert eventually(lambda: files_in(folder) == 0)
        assert house.upload().status_code == 200


def test_a_full_disk_is_no_reset(folder: Path) -> None:
    """Small uploads need none, large ones are told to come back."""
    folder.rmdir()
    with served(answers("Jane")) as house:
        assert house.upload().status_code == 200
        reply = house.upload(picture() + bytes(300_000))
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) > 0
