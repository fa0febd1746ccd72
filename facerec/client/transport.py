"""HTTP with retries: one pool of connections for all threads."""

import json
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ProtocolError, ReadTimeoutError

from facerec import __version__
from facerec.background import backoff_seconds
from facerec.client.errors import Unreachable, error_of
from facerec.errors import ConfigurationError, FacerecError

Fields = Mapping[str, tuple[str, bytes]]
"""Files of a form: the field, then the name of the file and its bytes."""

_PREFIX = "/api/v1"
_BUSY = frozenset({429, 503})
_CONNECT_SECONDS = 10.0
_FIRST_SECONDS = 0.5
_LONGEST_SECONDS = 20.0
_MOST_CLOSED = 3
"""How many connections that the server closes without an answer one request may cost."""
_MOST_REFUSED = 5
"""How often a connection is tried; with the waits this is long enough for a server that restarts."""
_ERROR = 400


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that is no error."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Transport:
    """Sends requests, and repeats those that the server was too busy for; safe for many threads.

    A request is repeated after 429 and 503 until `retry_seconds` after it began; after a connection that failed, a few
    times.
    The wait is that of `Retry-After`, or doubles, with jitter. A time limit that passed is not waited for again.
    """

    url: str
    key: str | None = field(repr=False)
    timeout: float
    """Seconds without a byte of the response."""
    retry_seconds: float
    pool: urllib3.PoolManager = field(repr=False)
    sleep: Callable[[float], object] = field(default=time.sleep, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        """Check the address; raises `ConfigurationError`."""
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise ConfigurationError("the server's address must be like https://faces.example.org or http://host:8000")

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        fields: Fields | None = None,
        content: Any = None,
        body: IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
        prefix: str = _PREFIX,
    ) -> Reply:
        """Send files of a form, JSON (`content`) or a body; raises `ApiError` and `Unreachable`.

        One that is not `repeatable` is not sent again after a connection that failed when it may have been read.
        """
        target = f"{self.url.rstrip('/')}{prefix}{path}"
        if written := {name: _written(value) for name, value in (query or {}).items() if value is not None}:
            target += f"?{urlencode(written)}"
        options = _options(fields, content, body)
        options["headers"] = {**self._headers(), **options.get("headers", {}), **(headers or {})}
        deadline = self.clock() + self.retry_seconds
        failures = 0
        while True:
            if body is not None:
                body.seek(0)
            found, after = self._attempt(method, target, options, repeatable=repeatable)
            if isinstance(found, Reply):
                return found
            failures += 1
            jitter = random.random()  # noqa: S311 - no secret
            wait = backoff_seconds(failures, jitter, first=_FIRST_SECONDS, longest=_LONGEST_SECONDS)
            wait = max(wait, after + jitter if after else 0)
            most = (_MOST_CLOSED if found.connected else _MOST_REFUSED) if isinstance(found, Unreachable) else math.inf
            if failures >= most or self.clock() + wait > deadline:
                raise found
            self.sleep(wait)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.pool.clear()

    def _attempt(
        self, method: str, target: str, options: Mapping[str, Any], *, repeatable: bool
    ) -> tuple[Reply | FacerecError, float]:
        """Send once; returns the reply, or an error after which it may be sent again, with the server's `Retry-After`.

        Raises any other error.
        """
        try:
            limits = urllib3.Timeout(connect=_CONNECT_SECONDS, read=self.timeout)
            response = self.pool.request(method, target, retries=False, timeout=limits, **options)
        except (NewConnectionError, ConnectTimeoutError) as exc:
            return self._unreachable("cannot be reached", exc, connected=False), 0
        except ReadTimeoutError as exc:
            raise self._unreachable(f"has not answered within {self.timeout:g} s", exc) from exc
        except ProtocolError as exc:
            error = self._unreachable("closed the connection", exc)
            if repeatable:
                return error, 0
            raise error from exc
        except HTTPError as exc:
            raise self._unreachable(f"cannot be reached ({exc})", exc, connected=False) from exc
        if response.status < _ERROR:
            return Reply(response.status, response.headers, response.data), 0
        failure = error_of(response.status, response.data, response.headers.get("X-Request-Id"))
        if response.status in _BUSY:
            return failure, _retry_after(response.headers)
        raise failure

    def _headers(self) -> dict[str, str]:
        headers = {"User-Agent": f"facerec/{__version__}", "Accept": "*/*"}
        return headers if self.key is None else headers | {"x-api-key": self.key}

    def _unreachable(self, what: str, cause: Exception, *, connected: bool = True) -> Unreachable:
        text = f"the server {self.url} {what}: check its address, and whether it runs"
        error = Unreachable(text, connected=connected)
        error.__cause__ = cause
        return error


def _options(fields: Fields | None, content: Any, body: IO[bytes] | None) -> dict[str, Any]:
    if fields is not None:
        return {"fields": {name: (filename, data) for name, (filename, data) in fields.items()}}
    if content is not None:
        return {"body": json.dumps(content).encode(), "headers": {"Content-Type": "application/json"}}
    if body is not None:
        return {"body": body, "headers": {"Content-Length": str(body.seek(0, 2))}}
    return {}


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 0.0
