"""Runs moto for programs of this machine alone: `python -m facerec.local.moto_server PORT`."""

import signal
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

from facerec.local.page_check import CORS_PREFIX, refusal
from facerec.processes.addresses import LOOPBACK

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def for_programs(app: "WSGIApplication") -> "WSGIApplication":
    """The same WSGI app, which refuses the requests of web pages and sends no CORS headers."""

    def wrapped(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        refused = refusal(
            host=environ.get("HTTP_HOST"),
            target=environ.get("REQUEST_URI", "/"),
            origin=environ.get("HTTP_ORIGIN"),
            fetch_site=environ.get("HTTP_SEC_FETCH_SITE"),
        )
        if refused is not None:
            status, sentence = refused
            start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain")])
            return [sentence.encode()]

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Callable[[bytes], object]:
            kept = [(name, value) for name, value in headers if not name.lower().startswith(CORS_PREFIX)]
            return start_response(status, kept, *error)

        return app(environ, start)

    return wrapped


def _end(*_: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    run_simple(
        LOOPBACK,
        int(sys.argv[1]),
        for_programs(DomainDispatcherApplication(create_backend_app)),
        threaded=True,
        request_handler=MotoRequestHandler,
    )
