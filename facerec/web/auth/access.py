"""The auth hook: decides before each route which requests are served, by key, rate, host name and site."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from flask import Flask, Response, g, request

from facerec.api_keys import ApiKey, Scope
from facerec.host_check import LOOPBACK_NAMES, addressed_host, is_from_another_site, is_safe, is_served
from facerec.settings.tiers import WebSettings
from facerec.settings.values import on_loopback, parse_rate
from facerec.web.auth.claims import presented_claim, signed_claim
from facerec.web.auth.credentials import Credentials, SignedIn
from facerec.web.auth.denials import (
    Denial,
    foreign_host,
    foreign_page,
    forged,
    lacks_scope,
    no_key,
    no_session,
    too_many_requests,
)
from facerec.web.auth.rate_limit import RateLimiter, client_network
from facerec.web.auth.sessions import is_of_own_page, session_token

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = structlog.get_logger(__name__)

_NEEDED = "_facerec_scope"
_SIGNED_FOR = "_facerec_signed_for"
_PAGE = "_facerec_page"
View = TypeVar("View", bound=Callable[..., Any])
ErrorResponse = Callable[[Denial], Response]


class AccessControl:
    """Admits or denies requests by the settings; safe for many threads.

    Without `credentials` every client is served (`FACEREC_WEB__AUTH=open`).
    """

    def __init__(
        self,
        settings: WebSettings,
        credentials: Credentials | None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._credentials = credentials
        self._limit = RateLimiter(parse_rate(settings.rate_limit), clock=clock)
        self._hosts = host_names(settings, open_to_all=credentials is None)

    @property
    def open_to_all(self) -> bool:
        """Whether every client is served."""
        return self._credentials is None

    @property
    def credentials(self) -> Credentials | None:
        """The keys and sessions of clients; None in open mode."""
        return self._credentials

    def admit(
        self, environ: "WSGIEnvironment", host: str, signed_for: str | None = None, *, page: bool = False
    ) -> ApiKey | Denial | None:
        """Count a request to the name `host`; returns its key, None in open mode, or a denial.

        A page needs a session instead of a key. With `signed_for`, an AWS service, the request may be signed instead of
        presenting a key. It may read the key from the store, and the body, which is rewound.
        """
        if not is_served(host, self._hosts):
            return foreign_host(self._hosts[0])
        # A page of another site must not use an open server, or a session, through the browser of a person.
        if (page or self._credentials is None) and _is_from_another_site(environ):
            return foreign_page()
        network = client_network(environ["REMOTE_ADDR"])
        if self._credentials is None:
            return self._check_rate(network, None)
        if page:
            return self._admit_page(environ, self._credentials, network)
        claim = presented_claim(environ) or (signed_claim(environ, signed_for) if signed_for else None)
        holder = no_key() if claim is None else self._credentials.holder(claim, network)
        return holder if isinstance(holder, Denial) else self._check_rate(holder.key_id, holder)

    def sign_in(self, environ: "WSGIEnvironment", text: str) -> SignedIn | Denial | None:
        """Begin a session with a key as a person enters it; returns it, None in open mode, or a denial."""
        if _is_from_another_site(environ):
            return foreign_page()
        if self._credentials is None:
            return None
        begun = self._credentials.sign_in(text, client_network(environ["REMOTE_ADDR"]))
        limited = begun if isinstance(begun, Denial) else self._check_rate(begun.key.key_id, begun.key)
        return limited if isinstance(limited, Denial) else begun

    def sign_out(self, token: str) -> None:
        """End a session; other processes follow within seconds. Raises `Transient` if the store cannot be reached."""
        if self._credentials is not None:
            self._credentials.sign_out(token)

    def _admit_page(self, environ: "WSGIEnvironment", credentials: Credentials, network: str) -> ApiKey | Denial | None:
        token = session_token(environ)
        holder = no_session() if token is None else credentials.holder_of_session(token, network)
        if isinstance(holder, Denial):
            return holder
        if not is_safe(environ["REQUEST_METHOD"]) and not is_of_own_page(environ, token or ""):
            return forged(holder.key_id)
        return self._check_rate(holder.key_id, holder)

    def _check_rate(self, client: str, key: ApiKey | None) -> ApiKey | Denial | None:
        wait = self._limit.take(client)
        return too_many_requests(wait, None if key is None else key.key_id) if wait else key


def deny(denial: Denial, error: ErrorResponse) -> Response:
    """Log a denial, and complete the response that `error` makes of it."""
    known = {} if denial.key_id is None else {"key_id": denial.key_id}
    log.info(
        "request_denied",
        status=int(denial.status),
        reason=denial.reason,
        client=client_network(request.remote_addr),
        **known,
    )
    response = error(denial)
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = 'Bearer realm="facerec"'
    if denial.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(denial.retry_after_seconds)
    return response


def needs(
    scope: Scope | None, *others: Scope, signed_for: str | None = None, page: bool = False
) -> Callable[[View], View]:
    """Mark a view with the scopes of which a caller needs one; None opens it to all, without a limit.

    With `signed_for` its requests may be signed as for this AWS service. A `page` is for browsers: it takes a session
    and no key, a change needs the token of the session's pages, and its denials are pages.
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


def install_access_control(app: Flask, access: AccessControl, error: ErrorResponse) -> None:
    """Register the hooks that deny requests; `error` makes their responses.

    A route without a mark (`needs`) needs the scope `admin`. Log records of a request have its `key_id`.
    """

    @app.before_request
    def check() -> Response | None:
        view = app.view_functions.get(request.endpoint or "")
        page = g.page = _is_page(view)
        host = _addressed_host(request.environ)
        if host is None:
            sentence = "the request does not name one host: send one Host header, as name or name:port"
            return deny(Denial(HTTPStatus.BAD_REQUEST, "unclear_host", sentence), error)
        # An unknown route needs any valid key.
        needed = None if view is None else needed_scopes(view)
        if view is not None and needed is None:
            return None
        admitted = access.admit(request.environ, host, getattr(view, _SIGNED_FOR, None), page=page)
        if isinstance(admitted, Denial):
            return deny(admitted, error)
        g.key = admitted
        if admitted is None:
            return None
        structlog.contextvars.bind_contextvars(key_id=admitted.key_id)
        if needed is not None and not any(map(admitted.allows, needed)):
            return deny(lacks_scope(needed, admitted.key_id), error)
        return None

    @app.teardown_request
    def forget(_: BaseException | None) -> None:
        structlog.contextvars.unbind_contextvars("key_id")


def presented_key() -> ApiKey | None:
    """Return the key of the request that is being answered; None in open mode."""
    key: ApiKey | None = g.key
    return key


def is_page() -> bool:
    """Return whether the request that is being answered is one for a page, so that an error must be a page."""
    return bool(g.get("page", False))


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


def _is_page(view: Callable[..., Any] | None) -> bool:
    """Return whether a view is a page; an unknown path is one to a browser that opens it."""
    if view is not None:
        return bool(getattr(view, _PAGE, False))
    opened = request.method == "GET" and request.accept_mimetypes.best == "text/html"
    return opened and not request.path.startswith("/api/")


def _is_from_another_site(environ: "WSGIEnvironment") -> bool:
    return is_from_another_site(
        environ["REQUEST_METHOD"],
        host=environ.get("HTTP_HOST"),
        origin=environ.get("HTTP_ORIGIN"),
        fetch_site=environ.get("HTTP_SEC_FETCH_SITE"),
    )
