"""The shipped nginx configuration in front of the web tier's real server, on loopback with fakes for AWS."""

import re
import select
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from facerec.api_keys import Scope, issue
from facerec.settings import Settings
from facerec.web.forms import FORM_OVERHEAD_BYTES
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.web_tier import answers, picture, together
from tests.support.nginx import CONFIGURATION, find_nginx, nginx
from tests.support.served_web_tier import TLS, ServedWebTier, read_all, serve_web_tier

LARGE = 5_500_000
READ_SECONDS = 9
"""Less than nginx's `client_body_timeout`, after which it resets a connection."""
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


needs_nginx = pytest.mark.skipif(find_nginx() is None, reason="nginx is not installed (apt-get install nginx-light)")


class Proxied(ServedWebTier):
    """A web tier behind nginx; connections and uploads go through nginx."""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """One web tier behind one nginx."""
    with (
        serve_web_tier(answers("Jane"), trusted_proxies=1, rate_limit="") as tier,
        nginx(tmp_path_factory.mktemp("nginx"), tier.address[1]) as url,
    ):
        port = httpx.URL(url).port
        assert port
        yield Proxied(tier.tier, tier.server, url, ("127.0.0.1", port), tier.thread)


@needs_nginx
def test_nginx_passes_one_hundred_uploads_at_once(web: Proxied) -> None:
    """From one address, each on a connection of its own."""
    replies: list[str] = []
    with together(100, lambda _: replies.append(web.upload().text)):
        pass
    assert replies == ["image_01.jpg: face detected - Jane"] * 100


@needs_nginx
def test_nginx_passes_the_largest_upload_and_refuses_a_larger_one(web: Proxied) -> None:
    """With our sentence."""
    largest = picture() + bytes(15_000_000 - len(picture()))
    assert web.upload(largest).status_code == 200
    refused = web.upload(bytes(15_100_000))
    assert refused.status_code == 413
    assert refused.text == "the upload is too large: send one picture of at most 15 MB"


@pytest.mark.parametrize("path", ["/jobs", "/api/v1/jobs"])
@needs_nginx
def test_nginx_passes_larger_bodies_of_jobs(web: Proxied, path: str) -> None:
    """From the page and from the API; a refusal says how large a job may be."""
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/zip\r\n" % path.encode()
    for length, status, says in (
        (300_000_000, b"413 ", b"files of at most 256 MB together"),
        (16_000_000, b"100 ", b""),
    ):
        with web.connect() as connection:
            connection.sendall(head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length)
            reply = connection.recv(10_000)
        assert reply.startswith(b"HTTP/1.1 " + status)
        assert says in reply


@needs_nginx
def test_nginx_limits_large_bodies_at_once(web: Proxied) -> None:
    """Of five from an address, one is refused at once; small uploads are served."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    connections = [web.connect() for _ in range(5)]
    for connection in connections:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n--X" % LARGE)
    # Not always the last one: nginx's processes accept connections in any order.
    (refused,), _, _ = select.select(connections, [], [], READ_SECONDS)
    reply = refused.recv(10_000)
    assert reply.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: 10\r\n" in reply
    assert web.upload().status_code == 200
    for connection in connections:
        connection.close()


@needs_nginx
def test_nginx_limits_the_requests_of_an_address(web: Proxied) -> None:
    """Beyond the burst with 429 and a Retry-After."""
    refused: list[httpx.Response] = []

    def ask(_: int) -> None:
        with httpx.Client(verify=TLS, timeout=60) as client:
            for _ in range(60):
                reply = client.get(f"{web.url}/healthz")
                if reply.status_code != 200:
                    refused.append(reply)
                    return

    with together(8, ask):
        pass
    assert {reply.status_code for reply in refused} == {429}
    assert refused[0].headers["Retry-After"] == "5"
    # The bucket refills with 50 requests per second.
    while web.get("/healthz").status_code == 429:
        threading.Event().wait(0.1)


@needs_nginx
def test_nginx_passes_a_session_and_its_pages_with_pictures(tmp_path: Path) -> None:
    """Three pages with fifty pictures each at once, from one browser; over plain HTTP the cookie is not `Secure`."""
    key, token = issue("desk", [Scope.ADMIN], now=datetime.now(UTC))
    with (
        serve_web_tier(answers("Jane"), InMemoryApiKeys(key), trusted_proxies=1) as tier,
        nginx(tmp_path, tier.address[1]) as url,
    ):
        signed_in = httpx.post(f"{url}/sign-in", data={"key": token.reveal()}, headers={"Origin": url})
        assert signed_in.status_code == 303
        assert "Secure" not in signed_in.headers["Set-Cookie"]
        cookie = {"Cookie": signed_in.headers["Set-Cookie"].partition(";")[0]}
        page = httpx.get(f"{url}/people", headers=cookie)
        assert page.status_code == 200
        (picture,) = re.findall(r'href="(/assets/[^"]+/icon\.svg)"', page.text)
        statuses: list[int] = []

        def load(_: int) -> None:
            with httpx.Client(base_url=url, headers=cookie, verify=TLS, timeout=60) as client:
                statuses.extend(client.get(picture).status_code for _ in range(25))

        with together(6, load):
            pass
        assert statuses == [200] * 150


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n",
        b"Content-Length: 0, 60\r\n\r\n",
        b"Host: evil.example\r\n\r\n",
        b"Content-Length: +0\r\n\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n",
    ],
)
@needs_nginx
def test_nginx_ends_a_connection_with_an_ambiguous_request(web: Proxied, head: bytes) -> None:
    """Nothing is smuggled behind it."""
    with web.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + head + SMUGGLED)
        reply = read_all(connection)
    assert re.match(rb"HTTP/1\.1 (400|501) ", reply)
    assert reply.count(b"HTTP/1.1 ") == 1


@needs_nginx
def test_nginx_answers_for_a_web_tier_that_does_not_run(tmp_path: Path) -> None:
    """With 503 and a Retry-After."""
    with nginx(tmp_path, 1) as url:
        reply = httpx.get(url)
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "5"


def test_nginx_limits_are_the_default_limits_of_uploads_and_jobs() -> None:
    """With room for the form around the files."""
    upload, job = re.findall(r"client_max_body_size (\d+);", CONFIGURATION.read_text())
    assert int(upload) == Settings().web.max_upload_bytes + FORM_OVERHEAD_BYTES
    assert int(job) == Settings().jobs.max_bytes + FORM_OVERHEAD_BYTES
