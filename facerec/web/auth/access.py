"""Who may come in: the check of a request's API key, origin and rate, on its head alone.

It is asked twice. The server asks as soon as the head has arrived (`preview`), without waiting for anything, so that
the body of whoever is turned away is neither kept nor parsed. The application asks when it has the request (`admit`).
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from werkzeug.middleware.proxy_fix import ProxyFix

from facerec.api_keys import ApiKey, Standing, Token, parse_token
from facerec.errors import Transient
from facerec.settings.tiers import WebSettings
from facerec.settings.values import parse_rate
from facerec.web.auth.host_check import host_names, is_addressed, is_from_another_site
from facerec.web.auth.key_cache import DOUBTED_SECONDS, FRESH_SECONDS, KeyRing, Unread
from facerec.web.auth.rate_limit import RateLimiter, client_network
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

MISSING_HEADER, NO_SUCH_KEY, UNDEFINED = 20, 10, 0
"""CompreFace's codes of errors, for clients that were written for it."""

LOOKUPS_PER_FAILURE = 10
"""New ids that are looked up for a client address, for each wrong key that it may present: clients share addresses."""

Find = Callable[[str, float], ApiKey | Unread | None]
"""`KeyRing.find` or `peek`."""

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is turned away."""

    status: HTTPStatus
    reason: str
    """For the log."""
    sentence: str
    code: int = UNDEFINED
    retry_after_seconds: int | None = None
    key_id: str | None = None
    """The key that it was presented with, where it is one of ours."""


class Gate:
    """Decides who is served, as the settings say; safe for many threads.

    `ring` holds the keys; without one everyone is served (`FACEREC_WEB__AUTH=open`).
    """

    def __init__(
        self,
        settings: WebSettings,
        ring: KeyRing | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._ring = ring
        self._limit = RateLimiter(parse_rate(settings.rate_limit), clock=clock)
        failures = parse_rate(settings.auth_failures)
        self._failures = RateLimiter(failures, clock=clock)
        lookups = None if failures is None else replace(failures, count=failures.count * LOOKUPS_PER_FAILURE)
        self._lookups = RateLimiter(lookups, clock=clock)
        self._now = now
        self._hosts = host_names(settings, open_to_all=ring is None)

    @property
    def open_to_all(self) -> bool:
        """Whether everyone is served."""
        return self._ring is None

    def preview(self, environ: "WSGIEnvironment") -> Denial | Unread | None:
        """Whether a request will be turned away, as its head tells: no waiting, and only a wrong key is counted.

        `environ` has the method, the peer's address and the headers as `HTTP_…`. `UNREAD` means: ask again.
        """
        behind_proxies(_nothing, self._settings.trusted_proxies)(environ, lambda *_: _ignored)
        try:
            who = self._who(environ, None if self._ring is None else self._ring.peek)
        except Transient:
            return _unavailable()
        if isinstance(who, Denial | Unread):
            return who
        return self._limited(self._limit.wait_seconds(_client(environ, who)), who)

    def admit(self, environ: "WSGIEnvironment") -> ApiKey | Denial | None:
        """Count a request and return its key, nothing for everyone's, or why it is turned away; may read the key."""
        try:
            who = self._who(environ, None if self._ring is None else self._ring.find)
        except Transient:
            return _unavailable()
        if isinstance(who, Unread):  # which `find` never says
            return _unavailable()
        if isinstance(who, Denial):
            return who
        return self._limited(self._limit.take(_client(environ, who)), who) or who

    def _who(self, environ: "WSGIEnvironment", find: Find | None) -> ApiKey | Denial | Unread | None:
        if not is_addressed(environ, self._hosts):
            return Denial(
                HTTPStatus.MISDIRECTED_REQUEST,
                "foreign_host",
                f"this server is not addressed like this, but as {self._hosts[0]}: its operator can allow other names "
                "with FACEREC_WEB__ALLOWED_HOSTS",
            )
        if find is not None:
            return self._holder(environ, find)
        # A page of another site, open in the browser of someone on this machine, must not use the server through it.
        if is_from_another_site(environ):
            return Denial(HTTPStatus.FORBIDDEN, "foreign_page", "pages of other web sites cannot use this server")
        return None

    def _holder(self, environ: "WSGIEnvironment", find: Find) -> ApiKey | Denial | Unread:
        presented = _presented(environ)
        if presented is None:
            return Denial(
                HTTPStatus.UNAUTHORIZED,
                "no_key",
                "an API key is needed: send it in the header x-api-key, or as Authorization: Bearer",
                MISSING_HEADER,
            )
        token = parse_token(presented)
        if token is None or not self._known(token.key_id):
            # Whoever guesses is stopped before that costs a reading; keys in use are not stopped by others' guesses.
            network = client_network(environ["REMOTE_ADDR"])
            wait = self._failures.wait_seconds(network)
            if not wait and token is not None and self._would_read(token.key_id):
                # Whoever leaves before his key has been read is never found to guess: what it costs is counted.
                wait = self._lookups.take(network)
            if wait:
                return _too_many_failures(wait)
        key = None if token is None else find(token.key_id, FRESH_SECONDS)
        standing = self._standing(key, token)
        if standing is Standing.WRONG and token is not None and isinstance(key, ApiKey):
            # It may have been rotated since it was read.
            key = find(token.key_id, DOUBTED_SECONDS)
            standing = self._standing(key, token)
        if isinstance(key, Unread):
            return key
        if key is not None and standing is Standing.GOOD:
            return key
        # Whoever has the right secret does not guess.
        wait = standing is Standing.WRONG and self._failures.take(client_network(environ["REMOTE_ADDR"]))
        if wait:
            return _too_many_failures(wait)
        sentence = {
            Standing.EXPIRED: "this API key has expired: ask the operator for another",
            Standing.REVOKED: "this API key has been revoked: ask the operator for another",
        }.get(standing, "this API key is wrong: check that it was copied whole")
        return Denial(
            HTTPStatus.UNAUTHORIZED,
            f"{standing}_key",
            sentence,
            NO_SUCH_KEY,
            key_id=None if key is None else key.key_id,
        )

    def _standing(self, key: ApiKey | Unread | None, token: Token | None) -> Standing:
        return key.standing(token.secret, self._now()) if isinstance(key, ApiKey) and token else Standing.WRONG

    def _known(self, key_id: str) -> bool:
        return self._ring is not None and self._ring.knows(key_id)

    def _would_read(self, key_id: str) -> bool:
        return self._ring is not None and self._ring.would_read(key_id)

    @staticmethod
    def _limited(wait_seconds: int, key: ApiKey | None) -> Denial | None:
        if not wait_seconds:
            return None
        return Denial(
            HTTPStatus.TOO_MANY_REQUESTS,
            "rate_limit",
            f"these are more requests than are served: send the next in {_seconds(wait_seconds)}",
            retry_after_seconds=wait_seconds,
            key_id=None if key is None else key.key_id,
        )


def behind_proxies(app: "WSGIApplication", count: int) -> "WSGIApplication":
    """The application, seeing the client's own address and scheme behind so many proxies."""
    return ProxyFix(app, x_for=count, x_proto=count) if count else app


def _nothing(*_: object) -> list[bytes]:
    return []


def _ignored(_: bytes) -> None:
    """Take what an application that says nothing would write."""


def _presented(environ: "WSGIEnvironment") -> str | None:
    """The key as the client sent it; `x-api-key` goes first. The empty text is none."""
    key: str = environ.get("HTTP_X_API_KEY", "").strip()
    bearer = _BEARER.fullmatch(environ.get("HTTP_AUTHORIZATION", "").strip())
    return key or (bearer[1] if bearer else None)


def _client(environ: "WSGIEnvironment", key: ApiKey | None) -> str:
    return client_network(environ["REMOTE_ADDR"]) if key is None else key.key_id


def _too_many_failures(wait_seconds: int) -> Denial:
    return Denial(
        HTTPStatus.TOO_MANY_REQUESTS,
        "auth_failures",
        f"too many wrong or unknown API keys came from this address: try again in {_seconds(wait_seconds)}",
        retry_after_seconds=wait_seconds,
    )


def _unavailable() -> Denial:
    return Denial(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "keys_unreadable",
        "API keys cannot be checked right now: send the request again in a few seconds",
        retry_after_seconds=UNAVAILABLE_RETRY_SECONDS,
    )


def _seconds(count: int) -> str:
    return f"{count} second{'' if count == 1 else 's'}"
