"""The cookie of a session, and the token with which its pages show that a request is theirs."""

import hmac
from datetime import timedelta
from typing import TYPE_CHECKING

from flask import Response, g, request
from werkzeug.http import parse_cookie

from facerec.session_records import csrf_token_of, is_session_token

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

CSRF_HEADER = "X-CSRF-Token"

_COOKIE = "facerec_session"
_SECURE_COOKIE = f"__Host-{_COOKIE}"
"""Over HTTPS: browsers take it from this host over HTTPS alone, so no neighbour below the same domain can set it."""


def session_token(environ: "WSGIEnvironment") -> str | None:
    """Return the token that a browser sends, or None without one."""
    cookies = parse_cookie(environ.get("HTTP_COOKIE"))
    token = cookies.get(_SECURE_COOKIE if environ["wsgi.url_scheme"] == "https" else _COOKIE, "")
    return token if is_session_token(token) else None


def keep_session(response: Response, token: str, length: timedelta) -> None:
    """Have the browser keep a session's token for its length."""
    _set_cookie(response, token, int(length.total_seconds()))


def forget_session(response: Response) -> None:
    """Have the browser forget its token."""
    _set_cookie(response, "", 0)


def csrf_token() -> str:
    """Return what the pages of this request send with each change; empty without a session, as in open mode."""
    token = session_token(request.environ)
    return "" if token is None or g.get("key") is None else csrf_token_of(token)


def is_of_own_page(environ: "WSGIEnvironment", token: str) -> bool:
    """Return whether a request has the token of the session's pages."""
    sent: str = environ.get("HTTP_X_CSRF_TOKEN", "")
    return hmac.compare_digest(sent.encode(), csrf_token_of(token).encode())


def _set_cookie(response: Response, token: str, seconds: int) -> None:
    secure = request.is_secure
    response.set_cookie(
        _SECURE_COOKIE if secure else _COOKIE,
        token,
        max_age=seconds,
        path="/",
        secure=secure,
        httponly=True,
        samesite="Lax",
    )
