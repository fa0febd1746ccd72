"""Why requests are denied, with the sentences for their clients. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from facerec.api_keys import Scope
from facerec.web.replies import UNAVAILABLE_RETRY_SECONDS

MISSING_HEADER, NO_SUCH_KEY, UNDEFINED = 20, 10, 0
"""CompreFace's codes of errors, for clients that were written for it."""

NO_SESSION = "no_session"
"""The reason of a denial for a browser that has not signed in."""

SCOPE = "scope"
"""The reason of a denial for a key that lacks the scope of a view."""


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


def no_key() -> Denial:
    """Deny a request of an API without a key."""
    sentence = "an API key is needed: send it in the header x-api-key, or as Authorization: Bearer"
    return Denial(HTTPStatus.UNAUTHORIZED, "no_key", sentence, MISSING_HEADER)


def no_session() -> Denial:
    """Deny a page to a browser that has not signed in."""
    return Denial(HTTPStatus.UNAUTHORIZED, NO_SESSION, "an API key is needed: sign in with it")


def foreign_host(own: str) -> Denial:
    """Deny a request to another name than those that are served."""
    sentence = (
        f"this server is not addressed like this, but as {own}: its operator can allow other names with "
        "FACEREC_WEB__ALLOWED_HOSTS"
    )
    return Denial(HTTPStatus.MISDIRECTED_REQUEST, "foreign_host", sentence)


def foreign_page() -> Denial:
    """Deny a request that a browser sends for a page of another site."""
    return Denial(HTTPStatus.FORBIDDEN, "foreign_page", "pages of other web sites cannot use this server")


def forged(key_id: str) -> Denial:
    """Deny a changing request of a browser without the token of its own pages."""
    sentence = "this page is of an earlier sign-in: reload the page, and try again"
    return Denial(HTTPStatus.FORBIDDEN, "csrf_token", sentence, key_id=key_id)


def lacks_scope(needed: Iterable[Scope], key_id: str) -> Denial:
    """Deny a view to a key without one of the scopes that it needs."""
    sentence = f"this API key lacks the scope {' or '.join(needed)}: ask the operator for one that has it"
    return Denial(HTTPStatus.FORBIDDEN, SCOPE, sentence, key_id=key_id)


def credentials_unreadable() -> Denial:
    """Deny a request whose key or session cannot be read."""
    return Denial(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "keys_unreadable",
        "API keys cannot be checked right now: send the request again in a few seconds",
        retry_after_seconds=UNAVAILABLE_RETRY_SECONDS,
    )


def too_many_requests(wait_seconds: int, key_id: str | None) -> Denial:
    """Deny a request beyond the rate of its client."""
    return Denial(
        HTTPStatus.TOO_MANY_REQUESTS,
        "rate_limit",
        f"these are more requests than are served: send the next in {_seconds(wait_seconds)}",
        retry_after_seconds=wait_seconds,
        key_id=key_id,
    )


def too_many_failures(wait_seconds: int) -> Denial:
    """Deny a client that guesses."""
    return Denial(
        HTTPStatus.TOO_MANY_REQUESTS,
        "auth_failures",
        f"too many wrong or unknown API keys came from this address: try again in {_seconds(wait_seconds)}",
        retry_after_seconds=wait_seconds,
    )


def _seconds(count: int) -> str:
    return f"{count} second{'' if count == 1 else 's'}"
