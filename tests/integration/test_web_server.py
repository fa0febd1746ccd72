"""The web tier behind its real server, on loopback, with fakes for AWS."""

from contextlib import ExitStack

import httpx
import pytest

from facerec.web.server import bind
from model.header import read_header
from tests.fakes.web_tier import answers, picture, result_for, together
from tests.support.served import TLS, read_all, served


def test_one_hundred_connections_are_held_and_each_gets_its_own_result() -> None:
    """All of one file name, answered in another order than they came."""
    replies: dict[int, tuple[int, str]] = {}

    def send(number: int) -> None:
        # The picture's width tells the uploads apart; the name does not.
        response = house.upload(picture(size=(number + 1, 1)), "same.jpg")
        replies[number] = (response.status_code, response.text)

    with served() as house, together(100, send):
        requests = house.tier.tasks.await_count(100, 60)
        assert house.tier.admission.waiting == 100
        assert house.get("/healthz").status_code == 200
        for request in sorted(requests, key=lambda r: r.request_id):
            stored = house.tier.store.get(request.input.bucket, request.input.key)
            house.tier.work(request, result_for(request, f"person {read_header(stored).width}"))
    assert replies == {number: (200, f"same.jpg: face detected - person {number + 1}") for number in range(100)}


def test_a_full_house_answers_at_once() -> None:
    """With a refusal, and health checks with health."""
    with served(max_waiting=3) as house, together(3, lambda _: house.upload()):
        requests = house.tier.tasks.await_count(3)
        refused = house.upload()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert house.get("/healthz").status_code == 200
        for request in requests:
            house.tier.work(request, result_for(request, "Jane"))


def test_slow_clients_take_no_threads() -> None:
    """More of them than there are threads, and an upload passes them all."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nContent-Type: multipart/form-data\r\n"
    with served(answers("Jane"), max_waiting=4) as house, ExitStack() as stack:
        for number in range(60):
            slow = stack.enter_context(house.connect())
            slow.sendall(head if number % 2 else head + b"\r\nthe beginning of a body")
        assert house.upload().status_code == 200
        assert house.get("/healthz").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_who_sends_too_much_reads_the_refusal(chunked: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Also a client that first sends everything and then listens."""
    body = b"x" * 20_000_000
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    if chunked:
        message = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    else:
        message = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with served(answers("Jane")) as house:
        with house.connect() as connection:
            connection.sendall(message)
            said = read_all(connection)
        assert said.startswith(b"HTTP/1.1 413 ")
        assert said.endswith(b"\r\n\r\nthe upload is too large: send one picture of at most 15 MB")
        assert house.upload().status_code == 200


def test_a_file_a_little_too_large_is_refused_by_the_application() -> None:
    """And the connection goes on."""
    with served(answers("Jane"), max_upload_bytes=100_000) as house, httpx.Client(verify=TLS) as client:
        too_large = client.post(house.url, files={"inputFile": ("a.jpg", b"x" * 100_001)})
        assert too_large.status_code == 413
        assert "connection" not in too_large.headers
        assert client.post(house.url, files={"inputFile": ("a.jpg", picture())}).status_code == 200


def test_who_asks_first_need_not_send() -> None:
    """A client that expects 100 Continue learns the refusal instead."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
    with served() as house:
        with house.connect() as connection:
            connection.sendall(head % 20_000_000)
            assert read_all(connection).startswith(b"HTTP/1.1 413 ")
        with house.connect() as connection:
            connection.sendall(head % 1_000)
            assert connection.recv(1_000).startswith(b"HTTP/1.1 100 ")


@pytest.mark.parametrize(
    ("nonsense", "status"),
    [
        (b"what is this?\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: rot13\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n", b"400"),
    ],
)
def test_what_is_no_http_gets_one_sentence(nonsense: bytes, status: bytes) -> None:
    """And the next client is served."""
    with served() as house:
        with house.connect() as connection:
            connection.sendall(nonsense)
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert b"text/plain" in head
        assert b"waitress" not in head + body
        assert house.get("/healthz").status_code == 200


def test_a_stop_answers_who_waits_and_refuses_who_comes() -> None:
    """Then the server ends, and its port is free."""
    replies: list[httpx.Response] = []
    with served() as house:
        with together(5, lambda _: replies.append(house.upload())):
            requests = house.tier.tasks.await_count(5)
            house.server.request_stop()
            while not house.tier.admission.closed:
                house.get("/healthz")
            late = house.upload()
            assert late.status_code == 503
            assert int(late.headers["Retry-After"]) > 0
            for request in requests:
                house.tier.work(request, result_for(request, "Jane"))
        house.thread.join(10)
        assert not house.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            house.connect()
    assert [reply.text for reply in replies] == ["image_01.jpg: face detected - Jane"] * 5


def test_a_stop_does_not_wait_for_ever() -> None:
    """Whoever is not answered in the grace gets the address of the result instead of a reset."""
    replies: list[httpx.Response] = []
    with served(shutdown_seconds=0.2) as house, together(3, lambda _: replies.append(house.upload())):
        requests = house.tier.tasks.await_count(3)
        house.stop()
    assert [reply.status_code for reply in replies] == [504] * 3
    assert {reply.text.rsplit("/", 1)[-1] for reply in replies} == {str(request.request_id) for request in requests}


def test_an_idle_server_stops_at_once() -> None:
    """Connections that nobody uses do not keep it."""
    with served(shutdown_seconds=60) as house, house.connect():
        house.get("/healthz")
        house.server.request_stop()
        house.thread.join(5)
        assert not house.thread.is_alive()


def test_a_taken_port_is_an_error() -> None:
    """Not a second server on it."""
    with bind("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        bind(*listener.getsockname()[:2])
