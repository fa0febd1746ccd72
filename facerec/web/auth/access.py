"""The auth hook: decides before each route which requests are served, by key, rate, host name and site."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from flask import Flask, Response, current_app, g, request

from facerec.api_keys import ApiKey, Scope, Standing
from facerec.errors import Transient
from facerec.host_check import LOOPBACK_NAMES, addressed_host, is_from_another_site, is_served
from facerec.settings.tiers import WebSettings
from facerec.settings.values import on_loopback, parse_rate
from facerec.web.auth.claims import Claim, presented_claim, signed_claim
from facerec.web.auth.key_cache import DOUBTED_SECONDS, KeyCache
from facerec.web.auth.rate_limit import RateLimiter, client_network
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = structlog.get_logger(__name__)

MISSING_HEADER, NO_SUCH_KEY, UNDEFINED = 20, 10, 0
"""CompreFace's codes of errors, for clients that were written for it."""

_NEEDED = "_facerec_scope"
_SIGNED_FOR = "_facerec_signed_for"
_PAGE = "_facerec_page"
View = TypeVar("View", bound=Callable[..., Any])
ErrorResponse = Callable[["Denial"], Response]


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is denied."""

    status: HTTPStatus
    reason: str
    """For the log."""
    sentence: str
    code: int = UNDEFINED
    retry_after_seconds: int | None = None
    key_id: str | None = None
    """The key that was presented, if it is one of ours."""


class AccessControl:
    """Admits or denies requests by the settings; safe for many threads.

    Without `keys` every client is served (`FACEREC_WEB__AUTH=open`).
    """

    def __init__(
        self,
        settings: WebSettings,
        keys: KeyCache | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._keys = keys
        self._limit = RateLimiter(parse_rate(settings.rate_limit), clock=clock)
        self._failures = RateLimiter(parse_rate(settings.auth_failures), clock=clock)
        self._now = now
        self._hosts = host_names(settings, open_to_all=keys is None)

    @property
    def open_to_all(self) -> bool:
        """Whether every client is served."""
        return self._keys is None

    def admit(self, environ: "WSGIEnvironment", host: str, signed_for: str | None = None) -> ApiKey | Denial | None:
        """Count a request to the name `host`; returns its key, None in open mode, or a denial.

        With `signed_for`, an AWS service, the request may be signed instead of presenting a key. It may read the key
        from the store, and the body, which is rewound.
        """
        if not is_served(host, self._hosts):
            return Denial(
                HTTPStatus.MISDIRECTED_REQUEST,
                "foreign_host",
                f"this server is not addressed like this, but as {self._hosts[0]}: its operator can allow other names "
                "with FACEREC_WEB__ALLOWED_HOSTS",
            )
        if self._keys is None:
            # A page of another site, open in a browser on this machine, must not use the server through it.
            if is_from_another_site(
                environ["REQUEST_METHOD"],
                host=environ.get("HTTP_HOST"),
                origin=environ.get("HTTP_ORIGIN"),
                fetch_site=environ.get("HTTP_SEC_FETCH_SITE"),
            ):
                return Denial(HTTPStatus.FORBIDDEN, "foreign_page", "pages of other web sites cannot use this server")
            return self._check_rate(client_network(environ["REMOTE_ADDR"]), None)
        try:
            holder = self._check_key(environ, self._keys, signed_for)
        except Transient:
            return Denial(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "keys_unreadable",
                "API keys cannot be checked right now: send the request again in a few seconds",
                retry_after_seconds=UNAVAILABLE_RETRY_SECONDS,
            )
        return holder if isinstance(holder, Denial) else self._check_rate(holder.key_id, holder)

    def _check_rate(self, client: str, key: ApiKey | None) -> ApiKey | Denial | None:
        wait = self._limit.take(client)
        if not wait:
            return key
        return Denial(
            HTTPStatus.TOO_MANY_REQUESTS,
            "rate_limit",
            f"these are more requests than are served: send the next in {_seconds(wait)}",
            retry_after_seconds=wait,
            key_id=None if key is None else key.key_id,
        )

    def _check_key(self, environ: "WSGIEnvironment", keys: KeyCache, signed_for: str | None) -> ApiKey | Denial:
        claim = presented_claim(environ) or (signed_claim(environ, signed_for) if signed_for else None)
        if claim is None:
            return Denial(
                HTTPStatus.UNAUTHORIZED,
                "no_key",
                "an API key is needed: send it in the header x-api-key, or as Authorization: Bearer",
                MISSING_HEADER,
            )
        network = client_network(environ["REMOTE_ADDR"])
        # A client that guesses is denied before its key is read. Its guesses do not block the keys of others.
        known = claim.key_id is not None and keys.knows(claim.key_id)
        if not known and (wait := self._failures.wait_seconds(network)):
            return _too_many_failures(wait)
        key, standing = None, Standing.WRONG
        if claim.key_id is not None:
            key = keys.find(claim.key_id)
            standing = self._standing(key, claim)
            if key is not None and standing is Standing.WRONG:
                # It may have been rotated since it was read.
                key = keys.find(claim.key_id, DOUBTED_SECONDS)
                standing = self._standing(key, claim)
        if key is not None and standing is Standing.GOOD:
            return key
        # A client with the right secret of an expired or revoked key does not guess.
        if standing is Standing.WRONG and (wait := self._failures.take(network)):
            return _too_many_failures(wait)
        sentence = {
            Standing.EXPIRED: "this API key has expired: ask the operator for another",
            Standing.REVOKED: "this API key has been revoked: ask the operator for another",
            Standing.STALE: "the signature has expired: set the clock of this machine, and sign the request again",
        }.get(standing, f"this API key is wrong: {claim.hint}")
        # The id of a key is no secret: a client of AWS is told which half of its credentials is wrong.
        subject = "key" if key is None or standing in {Standing.EXPIRED, Standing.REVOKED} else claim.proof
        return Denial(
            HTTPStatus.UNAUTHORIZED,
            f"{standing}_{subject}",
            sentence,
            NO_SUCH_KEY,
            key_id=None if key is None else key.key_id,
        )

    def _standing(self, key: ApiKey | None, claim: Claim) -> Standing:
        return Standing.WRONG if key is None else claim.check(key, self._now())


def needs(
    scope: Scope | None, *others: Scope, signed_for: str | None = None, page: bool = False
) -> Callable[[View], View]:
    """Mark a view with the scopes of which a caller needs one; None opens it to all, without a limit.

    With `signed_for` its requests may be signed as for this AWS service. A `page` is for people: its errors are pages.
    """

    def mark(view: View) -> View:
        setattr(view, _NEEDED, None if scope is None else (scope, *others))
        setattr(view, _SIGNED_FOR, signed_for)
        setattr(view, _PAGE, page)
        return view

    return mark


def needed_scopes(view: Callable[..., Any]) -> tuple[Scope, ...] | None:
    """Return the scopes of which a caller of the view needs one; a view without a mark needs `admin`."""
    scopes: tuple[Scope, ...] | None = getattr(view, _NEEDED, (Scope.ADMIN,))
    return scopes


def is_page() -> bool:
    """Whether the view of the request that is being answered is a page."""
    return getattr(current_app.view_functions.get(request.endpoint or ""), _PAGE, False)


def csrf_token() -> str:
    """Return what an unsafe request of this page has to show; empty in open mode."""
    return ""


def install_access_control(app: Flask, access: AccessControl, error: ErrorResponse) -> None:
    """Register the hooks that deny requests; `error` makes their responses.

    A route without a mark (`needs`) needs the scope `admin`. Log records of a request have its `key_id`.
    """

    @app.before_request
    def check() -> Response | None:
        host = _addressed_host(request.environ)
        if host is None:
            sentence = "the request does not name one host: send one Host header, as name or name:port"
            return _denied(Denial(HTTPStatus.BAD_REQUEST, "unclear_host", sentence), error)
        view = app.view_functions.get(request.endpoint or "")
        # An unknown route needs any valid key.
        needed = None if view is None else needed_scopes(view)
        if view is not None and needed is None:
            return None
        admitted = access.admit(request.environ, host, getattr(view, _SIGNED_FOR, None))
        if isinstance(admitted, Denial):
            return _denied(admitted, error)
        g.key = admitted
        if admitted is None:
            return None
        structlog.contextvars.bind_contextvars(key_id=admitted.key_id)
        if needed is not None and not any(map(admitted.allows, needed)):
            sentence = f"this API key lacks the scope {' or '.join(needed)}: ask the operator for one that has it"
            return _denied(Denial(HTTPStatus.FORBIDDEN, "scope", sentence), error)
        return None

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        structlog.contextvars.unbind_contextvars("key_id")


def presented_key() -> ApiKey | None:
    """Return the key of the request that is being answered; None in open mode."""
    key: ApiKey | None = g.key
    return key


def client_name() -> str:
    """Return the client of the request that is being answered: the id of its key, in open mode its network."""
    key = presented_key()
    return client_network(request.remote_addr) if key is None else key.key_id


def host_names(settings: WebSettings, *, open_to_all: bool) -> tuple[str, ...]:
    """Return the names that requests may be addressed to, in lower case; none means any.

    In open mode on loopback only this machine's names count, against DNS rebinding: a foreign page whose name is made
    to point here comes under its own name. With keys it could do nothing. Behind a proxy the names are the proxy's.
    """
    own = (*LOOPBACK_NAMES, settings.host.lower())
    named = tuple(host.lower() for host in settings.allowed_hosts)
    return named or (own if open_to_all and on_loopback(settings.host) and not settings.trusted_proxies else ())


def _addressed_host(environ: "WSGIEnvironment") -> str | None:
    """Return the name that the request is addressed to, `""` for none, None if that is not clear."""
    host = environ.get("HTTP_HOST")
    if host is None and environ["SERVER_PROTOCOL"] == "HTTP/1.1":
        return None
    return addressed_host(host, environ.get("REQUEST_URI", "/"))


def _denied(denial: Denial, error: ErrorResponse) -> Response:
    known = {} if denial.key_id is None else {"key_id": denial.key_id}
    log.info(
        "request_denied",
        status=int(denial.status),
        reason=denial.reason,
        client=client_network(request.remote_addr),
        **known,
    )
    response = error(denial)
    if denial.status is HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="facerec"'
    if denial.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(denial.retry_after_seconds)
    return response


def _too_many_failures(wait_seconds: int) -> Denial:
    return Denial(
        HTTPStatus.TOO_MANY_REQUESTS,
        "auth_failures",
        f"too many wrong or unknown API keys came from this address: try again in {_seconds(wait_seconds)}",
        retry_after_seconds=wait_seconds,
    )


def _seconds(count: int) -> str:
    return f"{count} second{'' if count == 1 else 's'}"
