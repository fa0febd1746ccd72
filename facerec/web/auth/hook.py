"""Puts the gate before every route of the application; what a route says nothing about is for `admin` alone."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar

import structlog
from flask import Flask, Response, request

from facerec.api_keys import Scope
from facerec.web.auth.access import Denial, Gate
from facerec.web.auth.rate_limit import client_network

log = structlog.get_logger(__name__)

DENIAL = "facerec.denial"
"""Where the server leaves its verdict in the WSGI environment, when it has thrown the body away."""

_NEEDED = "_facerec_scope"
View = TypeVar("View", bound=Callable[..., Any])


def needs(scope: Scope | None) -> Callable[[View], View]:
    """Mark a view with the scope that it takes to call it, or as open to all, without a limit."""

    def mark(view: View) -> View:
        setattr(view, _NEEDED, scope)
        return view

    return mark


def guard(app: Flask, gate: Gate, worded: Callable[[int, str, int], Response]) -> None:
    """Let only those in whom the gate admits; `worded` makes the response of a status, a sentence and a code.

    Every record that is logged meanwhile has the `key_id`.
    """

    @app.before_request
    def admitted() -> Response | None:
        view = app.view_functions.get(request.endpoint or "")
        # Where there is no such page any key will do to be told so.
        needed = None if view is None else getattr(view, _NEEDED, Scope.ADMIN)
        if view is not None and needed is None:
            return None
        who = request.environ.get(DENIAL) or gate.admit(request.environ)
        if isinstance(who, Denial):
            return denied(who)
        if who is None:
            return None
        structlog.contextvars.bind_contextvars(key_id=who.key_id)
        if needed is not None and not who.allows(needed):
            sentence = f"this API key lacks the scope {needed}: ask the operator for one that has it"
            return denied(Denial(HTTPStatus.FORBIDDEN, "scope", sentence))
        return None

    @app.teardown_request
    def forgotten(_: BaseException | None) -> None:
        structlog.contextvars.unbind_contextvars("key_id")

    def denied(denial: Denial) -> Response:
        known = {} if denial.key_id is None else {"key_id": denial.key_id}
        log.info(
            "request_denied",
            status=int(denial.status),
            reason=denial.reason,
            client=client_network(request.remote_addr),
            **known,
        )
        response = worded(denial.status, denial.sentence, denial.code)
        if denial.status is HTTPStatus.UNAUTHORIZED:
            response.headers["WWW-Authenticate"] = 'Bearer realm="facerec"'
        if denial.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(denial.retry_after_seconds)
        return response
