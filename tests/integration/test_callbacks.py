"""Callbacks to real servers on loopback, under names that no resolver knows."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from facerec import callbacks
from facerec.callbacks import CallbackFailed, CallbackRefused, CallbackSender, signature
from tests.support.callback_receiver import CallbackReceiver
from tests.support.certificates import CertificateAuthority

SECRET = "a secret of sixteen or more"
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def receiver() -> Iterator[CallbackReceiver]:
    """A running receiver."""
    with CallbackReceiver().running() as running:
        yield running


def sender(**options: object) -> CallbackSender:
    """A sender that resolves every name to loopback, and may call it."""
    return CallbackSender(
        **{"networks": LOOPBACK, "resolve": lambda _host, _port: ["127.0.0.1"], **options}  # type: ignore[arg-type]
    )


def test_message_arrives_signed_at_the_checked_address(receiver: CallbackReceiver) -> None:
    """With the name in the Host header, though no resolver knows it: the name is not resolved a second time."""
    url = f"http://hooks.example:{receiver.port}/ended?of=me"
    sender(now=lambda: 1_790_000_000.7).send(url, b'{"job_id": "1"}', SECRET)
    ((path, headers, body),) = receiver.requests
    assert (path, body) == ("/ended?of=me", b'{"job_id": "1"}')
    assert headers["Host"] == f"hooks.example:{receiver.port}"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Facerec-Timestamp"] == "1790000000"
    assert headers["X-Facerec-Signature"] == signature(SECRET, "1790000000", body)


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_other_status_is_a_failure(receiver: CallbackReceiver, status: int) -> None:
    """It is tried again."""
    receiver.status = status
    with pytest.raises(CallbackFailed, match=str(status)):
        sender().send(f"http://hooks.example:{receiver.port}/", b"{}", SECRET)


def test_redirect_is_not_followed(receiver: CallbackReceiver) -> None:
    """It may lead to an address that was not checked."""
    with CallbackReceiver().running() as inner:
        receiver.status, receiver.location = 307, f"http://127.0.0.1:{inner.port}/secret"
        with pytest.raises(CallbackFailed, match="redirects are not followed"):
            sender().send(f"http://hooks.example:{receiver.port}/", b"{}", SECRET)
        assert inner.requests == []


def test_loopback_is_refused_without_the_setting(receiver: CallbackReceiver) -> None:
    """No connection is made."""
    with pytest.raises(CallbackRefused):
        sender(networks=()).send(f"http://hooks.example:{receiver.port}/", b"{}", SECRET)
    assert receiver.requests == []


def test_public_address_is_taken_of_several(receiver: CallbackReceiver) -> None:
    """A private one among them is not connected to."""
    found = ["192.168.77.77", "127.0.0.1"]
    sender(resolve=lambda _host, _port: found).send(f"http://hooks.example:{receiver.port}/", b"{}", SECRET)
    assert len(receiver.requests) == 1


def test_closed_port_is_a_failure() -> None:
    """It is tried again."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(CallbackFailed, match=r"hooks\.example does not answer"):
        sender().send(f"http://hooks.example:{port}/", b"{}", SECRET)


def test_receiver_that_answers_byte_by_byte_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole answer does not."""
    monkeypatch.setattr(callbacks, "LONGEST_SECONDS", 0.5)
    ended = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            try:
                while not ended.wait(0.05):
                    connection.sendall(b"H")
            except OSError:
                return

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        started = time.monotonic()
        with pytest.raises(CallbackFailed):
            sender().send(f"http://hooks.example:{server.getsockname()[1]}/", b"{}", SECRET)
        assert time.monotonic() - started < callbacks.CONNECT_SECONDS
        ended.set()
        thread.join()


@pytest.mark.parametrize("length", [b"-1", b"-5", b"no number"])
def test_answer_is_taken_without_its_body(length: bytes) -> None:
    """A chunk of length -1 would be read until the receiver ends it, whatever its size."""

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + length + b"\r\nbody")
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        sender().send(f"http://hooks.example:{server.getsockname()[1]}/", b"{}", SECRET)
        thread.join()


def test_https_checks_the_certificate_against_the_name(tmp_path: Path) -> None:
    """Not against the address that is connected to."""
    authority = CertificateAuthority(tmp_path)
    issued = authority.issue("hooks", hosts=("hooks.example",))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(issued.certificate_file, issued.key_file)
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))
    receiver = CallbackReceiver()
    receiver.server.socket = serving.wrap_socket(receiver.server.socket, server_side=True)
    with receiver.running():
        sender(tls=trusting).send(f"https://hooks.example:{receiver.port}/", b"{}", SECRET)
        with pytest.raises(CallbackFailed, match="SSLCertVerificationError"):
            sender(tls=trusting).send(f"https://127.0.0.1:{receiver.port}/", b"{}", SECRET)
        with pytest.raises(CallbackFailed, match="SSLCertVerificationError"):
            sender().send(f"https://hooks.example:{receiver.port}/", b"{}", SECRET)
    assert len(receiver.requests) == 1
