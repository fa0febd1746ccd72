"""The sign-in, which turns an API key into a session of this browser, and the sign-out."""

import re
from http import HTTPStatus
from urllib.parse import urlsplit

import structlog
from flask import Blueprint, Response, current_app, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge

from facerec.api_keys import Scope
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import client_name, deny, needed_scopes, needs
from facerec.web.auth.denials import NO_SESSION, SCOPE, Denial
from facerec.web.auth.rate_limit import client_network
from facerec.web.auth.sessions import forget_session, keep_session, session_token
from facerec.web.pages.layout import error_page, is_fragment, render, view_blueprint

log = structlog.get_logger(__name__)

_OWN_PATH = re.compile(r"/(?![/\\])[^\s\\\x00-\x1f\x7f]{0,2000}")
"""A path of this site as browsers read it; `//host` and `/\\host` are other sites."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the sign-in; in open mode they lead to the start."""
    web = view_blueprint("sign_in", __name__)

    @web.get("/sign-in")
    @needs(None, page=True)
    def index() -> Response:
        if services.access.open_to_all:
            return _go("/")
        return _form(own_path(request.args.get("next", "")), ended="ended" in request.args)

    @web.post("/sign-in")
    @needs(None, page=True)
    def sign_in() -> Response:
        key, following = _read_form()
        begun = services.access.sign_in(request.environ, key)
        if begun is None:
            return _go("/")
        if isinstance(begun, Denial):
            denial = begun
            return deny(denial, lambda _: _form(following, status=denial.status, sentence=denial.sentence))
        if earlier := session_token(request.environ):
            services.access.sign_out(earlier)
        log.info("signed_in", key_id=begun.key.key_id, client=client_network(request.remote_addr))
        response = _go(following)
        keep_session(response, begun.token, begun.length)
        return response

    @web.post("/sign-out")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def sign_out() -> Response:
        if token := session_token(request.environ):
            services.access.sign_out(token)
        log.info("signed_out", client=client_name())
        response = _go(url_for("page_sign_in.index"))
        forget_session(response)
        response.headers["Clear-Site-Data"] = '"cache"'  # the browser keeps photos of people
        return response

    return web


def denied(denial: Denial) -> Response:
    """Make the response of a denial of a page: the way to the sign-in, or a page that says what is missing."""
    if denial.status is HTTPStatus.UNAUTHORIZED:
        ended = None if denial.reason == NO_SESSION else ""
        response = _go(url_for("page_sign_in.index", next=_opened_path(), ended=ended), denial.sentence)
        if ended is not None:
            forget_session(response)
        return response
    if denial.reason != SCOPE or is_fragment():
        return error_page(denial.status, denial.sentence, retry_after_seconds=denial.retry_after_seconds)
    if request.endpoint == "page_recognise.index":
        return _go(url_for("page_people.index"))  # the start of a key that may enrol alone
    scopes = needed_scopes(current_app.view_functions[request.endpoint or ""]) or ()
    return render("denied.html", denial.status, sentence=denial.sentence, scope=scopes[0])


def own_path(text: str) -> str:
    """Return a path of this site, or `/` for any other text."""
    return text if _OWN_PATH.fullmatch(text) else "/"


def _read_form() -> tuple[str, str]:
    """Return the key that was entered, and the path that comes next."""
    try:
        return request.form.get("key", "").strip(), own_path(request.form.get("next", ""))
    except RequestEntityTooLarge:
        return "", "/"


def _opened_path() -> str:
    """Return the path of the page that the person has open."""
    if not is_fragment():
        asked = request.environ.get("REQUEST_URI", "/")  # escaped, as the browser has it
        return own_path(asked) if request.method == "GET" else "/"
    opened = urlsplit(request.headers.get("HX-Current-URL") or request.referrer or "")
    return own_path(opened.path + (f"?{opened.query}" if opened.query else ""))


def _form(following: str, *, status: int = 200, sentence: str = "", ended: bool = False) -> Response:
    return render("sign_in.html", status, following=following, sentence=sentence, ended=ended)


def _go(path: str, sentence: str = "") -> Response:
    """Have the browser open a path of this site: by a redirect, or by what a script of a page obeys."""
    if is_fragment():
        status = HTTPStatus.UNAUTHORIZED if sentence else HTTPStatus.OK
        return Response(sentence, status, {"HX-Redirect": path}, content_type="text/plain; charset=utf-8")
    return Response(status=HTTPStatus.SEE_OTHER, headers={"Location": path})
