"""The web tier behind its real server, on loopback, with fakes for AWS."""

from contextlib import ExitStack

import httpx
import pytest

from facerec.web.server import bind
from model.header import read_header
from tests.fakes.web_tier import answers, picture, result_for, together
from tests.support.served_web_tier import TLS, read_all, serve_web_tier


def test_server_holds_one_hundred_uploads_and_answers_each_with_its_result() -> None:
    """All have one file name, and they are answered in another order than they came."""
    replies: dict[int, tuple[int, str]] = {}

    def send(number: int) -> None:
        # The picture's width tells the uploads apart; the name does not.
        response = web.upload(picture(size=(number + 1, 1)), "same.jpg")
        replies[number] = (response.status_code, response.text)

    with serve_web_tier() as web, together(100, send):
        requests = web.tier.tasks.await_count(100, 60)
        assert web.tier.admission.waiting == 100
        assert web.get("/healthz").status_code == 200
        for request in sorted(requests, key=lambda r: r.request_id):
            stored = web.tier.store.get(request.input.bucket, request.input.key)
            web.tier.work(request, result_for(request, f"person {read_header(stored).width}"))
    assert replies == {number: (200, f"same.jpg: face detected - person {number + 1}") for number in range(100)}


def test_thousand_uploads_are_held_at_once_with_default_settings() -> None:
    """Each on a connection of its own; all are answered."""
    head = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    )
    form = b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="a.jpg"\r\n\r\n' + picture()
    form += b"\r\n--X--\r\n"
    with serve_web_tier() as web, ExitStack() as stack:
        clients = [stack.enter_context(web.connect()) for _ in range(1000)]
        for client in clients:
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(form) + form)
        requests = web.tier.tasks.await_count(1000, 60)
        assert web.tier.admission.waiting == 1000
        assert web.upload().status_code == 503
        for request in requests:
            web.tier.work(request, result_for(request, "Jane"))
        assert {read_all(client).rpartition(b"\r\n")[2] for client in clients} == {b"a.jpg: face detected - Jane"}


def test_full_server_refuses_uploads_at_once() -> None:
    """And still answers health checks."""
    with serve_web_tier(max_waiting=3) as web, together(3, lambda _: web.upload()):
        requests = web.tier.tasks.await_count(3)
        refused = web.upload()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert web.get("/healthz").status_code == 200
        for request in requests:
            web.tier.work(request, result_for(request, "Jane"))


def test_slow_clients_take_no_threads() -> None:
    """There are more of them than threads, and an upload is answered."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\nContent-Type: multipart/form-data\r\n"
    with serve_web_tier(answers("Jane"), max_waiting=4) as web, ExitStack() as stack:
        for number in range(60):
            slow = stack.enter_context(web.connect())
            slow.sendall(head if number % 2 else head + b"\r\nthe beginning of a body")
        assert web.upload().status_code == 200
        assert web.get("/healthz").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_server_answers_413_after_a_body_that_is_too_large(chunked: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Also to a client that sends everything before it reads."""
    body = b"x" * 20_000_000
    head = (
        b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    )
    if chunked:
        message = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    else:
        message = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with serve_web_tier(answers("Jane")) as web:
        with web.connect() as connection:
            connection.sendall(message)
            reply = read_all(connection)
        assert reply.startswith(b"HTTP/1.1 413 ")
        assert reply.endswith(b"\r\n\r\nthe upload is too large: send one picture of at most 15 MB")
        assert web.upload().status_code == 200


def test_application_refuses_a_file_that_is_a_little_too_large() -> None:
    """And the connection stays open."""
    with serve_web_tier(answers("Jane"), max_upload_bytes=100_000) as web, httpx.Client(verify=TLS) as client:
        too_large = client.post(web.url, files={"inputFile": ("a.jpg", b"x" * 100_001)})
        assert too_large.status_code == 413
        assert "connection" not in too_large.headers
        assert client.post(web.url, files={"inputFile": ("a.jpg", picture())}).status_code == 200


@pytest.mark.parametrize(
    ("nonsense", "status"),
    [
        (b"what is this?\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: rot13\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
    ],
)
def test_server_refuses_what_is_no_http(nonsense: bytes, status: bytes) -> None:
    """And serves the next client."""
    with serve_web_tier() as web:
        with web.connect() as connection:
            connection.sendall(nonsense)
            head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
        assert head.split()[1] == status
        assert b"text/plain" in head
        assert b"waitress" not in head + body
        assert web.get("/healthz").status_code == 200


def test_stop_answers_waiting_uploads_and_refuses_new_ones() -> None:
    """Then the server ends, and its port is free."""
    replies: list[httpx.Response] = []
    with serve_web_tier() as web:
        with together(5, lambda _: replies.append(web.upload())):
            requests = web.tier.tasks.await_count(5)
            web.server.request_stop()
            while not web.tier.admission.closed:
                web.get("/healthz")
            late = web.upload()
            assert late.status_code == 503
            assert int(late.headers["Retry-After"]) > 0
            for request in requests:
                web.tier.work(request, result_for(request, "Jane"))
        web.thread.join(10)
        assert not web.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            web.connect()
    assert [reply.text for reply in replies] == ["image_01.jpg: face detected - Jane"] * 5


def test_stop_ends_the_waits_after_the_grace_period() -> None:
    """The reply is the address of the result instead of a reset."""
    replies: list[httpx.Response] = []
    with serve_web_tier(shutdown_seconds=0.2) as web, together(3, lambda _: replies.append(web.upload())):
        requests = web.tier.tasks.await_count(3)
        web.stop()
    assert [reply.status_code for reply in replies] == [504] * 3
    assert {reply.text.rsplit("/", 1)[-1] for reply in replies} == {str(request.request_id) for request in requests}


def test_stop_of_an_idle_server_is_immediate() -> None:
    """Idle connections do not delay it."""
    with serve_web_tier(shutdown_seconds=60) as web, web.connect():
        web.get("/healthz")
        web.server.request_stop()
        web.thread.join(5)
        assert not web.thread.is_alive()


def test_bind_fails_on_a_port_in_use() -> None:
    """A second server does not start."""
    with bind("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        bind(*listener.getsockname()[:2])
