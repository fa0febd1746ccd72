"""The HTTP server of a process's metrics."""

from wsgiref.util import setup_testing_defaults

import pytest
from prometheus_client import CollectorRegistry, make_wsgi_app

from facerec.host_check import LOOPBACK_NAMES
from facerec.observability.metrics import answering_to


@pytest.mark.parametrize(
    ("host", "target", "status"),
    [
        ("127.0.0.1:9401", "/metrics", "200 OK"),
        ("LOCALHOST", "/metrics", "200 OK"),
        ("[::1]:9401", "http://[::1]:9401/metrics", "200 OK"),
        ("evil.example:9401", "/metrics", "421 Misdirected Request"),
        ("evil.example,127.0.0.1", "/metrics", "421 Misdirected Request"),
        ("127.0.0.1", "http://evil.example/metrics", "421 Misdirected Request"),
    ],
)
def test_metrics_on_loopback_answer_to_loopback_names(host: str, target: str, status: str) -> None:
    """A page may make its own name point here."""
    answered: list[str] = []
    environ = {"PATH_INFO": target, "HTTP_HOST": host}
    setup_testing_defaults(environ)

    def start_response(line: str, _headers: object, _error: object = None) -> None:
        answered.append(line)

    served = answering_to(LOOPBACK_NAMES, make_wsgi_app(CollectorRegistry()))
    b"".join(served(environ, start_response))  # type: ignore[arg-type] # nothing is written
    assert answered == [status]
