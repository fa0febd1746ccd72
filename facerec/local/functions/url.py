"""The function URL: HTTP requests become events of the function, and its answers HTTP responses."""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from botocore.credentials import ReadOnlyCredentials

from facerec.aws.signature import SignatureRefused, SignedRequest, check_signature
from facerec.errors import FacerecError
from facerec.local.functions.events import UrlAnswer, UrlRequest, WrongAnswer, url_answer, url_event
from facerec.local.functions.instance import MAX_PAYLOAD_BYTES, FunctionFailed
from facerec.local.functions.pool import FunctionBusy, FunctionPool
from facerec.local.page_check import refusal

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

log = structlog.get_logger(__name__)

_SERVICE = "lambda"
_WAIT_SECONDS = 30.0
"""For an instance. AWS starts one for each request, up to the account's limit; here they share a few cores."""
_MOST_READ_BYTES = 4 * MAX_PAYLOAD_BYTES
"""A client sees the answer to a body that is too long only if it was read; still more is cut off."""


class _Refused(FacerecError):
    """The request does not reach the function."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class FunctionUrl:
    """A WSGI app that invokes a function; with `credentials`, for requests that are signed by them alone."""

    def __init__(
        self,
        pool: FunctionPool,
        *,
        credentials: ReadOnlyCredentials | None,
        region: str,
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        self._pool = pool
        self._credentials = credentials
        self._region = region
        self._wait_seconds = wait_seconds

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer a request."""
        request_id = str(uuid.uuid4())
        try:
            access_key = None if self._credentials is None else self._credentials.access_key
            answer = self._answer(_read(environ, access_key), environ.get("REQUEST_URI", "/"), request_id)
        except _Refused as exc:
            answer = _json_answer(exc.status, {"Message": str(exc)})
        except SignatureRefused as exc:
            answer = _json_answer(HTTPStatus.FORBIDDEN, {"Message": str(exc)})
        except FunctionBusy:
            answer = _json_answer(
                HTTPStatus.TOO_MANY_REQUESTS,
                {"Reason": "ConcurrentInvocationLimitExceeded", "Type": "User", "message": "Rate Exceeded."},
            )
        except (FunctionFailed, WrongAnswer) as exc:
            log.warning("url_invocation_failed", lambda_request_id=request_id, reason=str(exc))
            answer = UrlAnswer(HTTPStatus.BAD_GATEWAY, [("content-type", "text/plain")], b"Internal Server Error")
        headers = [*answer.headers, ("content-length", str(len(answer.body))), ("x-amzn-requestid", request_id)]
        start_response(f"{answer.status} {_phrase(answer.status)}", headers)
        return [answer.body]

    def _answer(self, request: UrlRequest, target: str, request_id: str) -> UrlAnswer:
        headers = request.headers
        refused = refusal(
            host=headers.get("host"),
            origin=headers.get("origin"),
            fetch_site=headers.get("sec-fetch-site"),
            target=target,
        )
        if refused is not None:
            raise _Refused(*refused)
        if self._credentials is not None:
            digest = hashlib.sha256(request.body).hexdigest()
            signed = SignedRequest(request.method, target, headers, digest)
            check_signature(self._credentials, signed, service=_SERVICE, region=self._region)
        event = json.dumps(url_event(request, request_id, datetime.now(UTC))).encode()
        if len(event) > MAX_PAYLOAD_BYTES:
            raise _too_large()
        return url_answer(self._pool.invoke(event, self._wait_seconds))


def _read(environ: "WSGIEnvironment", access_key: str | None) -> UrlRequest:
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if (name.startswith("HTTP_") or name in {"CONTENT_LENGTH", "CONTENT_TYPE"}) and value
    }
    return UrlRequest(
        method=environ["REQUEST_METHOD"],
        path=environ.get("PATH_INFO", "/").encode("latin-1").decode("utf-8", "replace") or "/",
        query=environ.get("QUERY_STRING", ""),
        headers=headers,
        body=_body(environ),
        source_ip=environ.get("REMOTE_ADDR", ""),
        protocol=environ.get("SERVER_PROTOCOL", "HTTP/1.1"),
        access_key=access_key,
    )


def _body(environ: "WSGIEnvironment") -> bytes:
    length = environ.get("CONTENT_LENGTH")
    # Without a length the body is chunked, and its stream has an end, or there is none.
    chunked = environ.get("wsgi.input_terminated", False)
    if not re.fullmatch("[0-9]*", length or "", re.ASCII):
        raise _Refused(HTTPStatus.BAD_REQUEST, "Content-Length is no number")
    most = _MOST_READ_BYTES if chunked else min(int(length or 0), _MOST_READ_BYTES)
    body: bytes = environ["wsgi.input"].read(most)
    if len(body) > MAX_PAYLOAD_BYTES:
        raise _too_large()
    return body


def _too_large() -> _Refused:
    return _Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"Request must be smaller than {MAX_PAYLOAD_BYTES} bytes for the InvokeFunction operation",
    )


def _json_answer(status: HTTPStatus, content: object) -> UrlAnswer:
    return UrlAnswer(status, [("content-type", "application/json")], json.dumps(content).encode())


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
