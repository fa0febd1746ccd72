"""What all views share: their frame, their texts, the collection, and errors as pages."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Blueprint, Flask, Response, abort, g, render_template, request, url_for
from jinja2 import StrictUndefined
from pydantic import ValidationError

from facerec.api_keys import Scope
from facerec.message_base import problems
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.people import NAME_ERRORS
from facerec.web.api.v1.photo_requests import CollectionQuery
from facerec.web.auth.access import presented_key
from facerec.web.auth.collections import may_use_or_owns, own_collection
from facerec.web.auth.sessions import csrf_token
from facerec.web.pages.assets import asset
from facerec.web.pages.texts import LANGUAGE, Number, Percent, Ratio, markup, moment
from facerec.web.results import answer_outages

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The content security policy of the pages; `blob:` is a photo that was chosen, before it is sent."""

CAMERA = {"Permissions-Policy": "camera=(self), geolocation=(), microphone=()"}
"""The header of a page that may use the camera."""

_FORM_BYTES = 32_000
"""The most bytes of a form without a photo; routes that take photos allow more in their turn."""


@dataclass(frozen=True, slots=True)
class View:
    """A view of the navigation."""

    name: str
    """Of its texts; its blueprint is `page_<name>`, whose first page is `index`."""
    scopes: tuple[Scope, ...]
    """Of which a key needs one to see it."""


VIEWS = (
    View("recognise", (Scope.RECOGNISE,)),
    View("people", (Scope.ENROL,)),
    View("unknown", (Scope.ENROL,)),
    View("jobs", (Scope.RECOGNISE, Scope.ENROL)),
    View("fleet", (Scope.ADMIN,)),
)


def prepare(app: Flask, services: ApiServices) -> None:
    """Give templates what they use, beside the values of their view."""
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.globals.update(t=markup, number=Number, ratio=Ratio, percent=Percent, moment=moment)
    app.jinja_env.globals.update(asset=asset, link=link, csrf_token=csrf_token, language=LANGUAGE)
    app.context_processor(lambda: {"views": partial(_visible, services), "signed_in": lambda: g.get("key")})


def view_blueprint(name: str, import_name: str, url_prefix: str | None = None) -> Blueprint:
    """Make the blueprint of a view; the errors of the services become pages."""
    web = Blueprint(f"page_{name}", import_name, url_prefix=url_prefix, template_folder="templates")
    web.before_request(_limit_form)
    for error, status in NAME_ERRORS.items():
        web.register_error_handler(error, lambda exc, status=status: error_page(status, str(exc)))
    answer_outages(web, "a store that this needs cannot be reached right now: try again in a few seconds", error_page)
    return web


def render(template: str, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    """Make the response of a view: a page, or a fragment of one for htmx."""
    page = render_template(template, **values)
    return Response(page, status, headers, content_type="text/html; charset=utf-8")


def link(endpoint: str, **values: Any) -> str:
    """Return the address of a page route, in the collection that this page's address names, unless it was refused."""
    if (named := request.args.get("collection")) and "collection_refused" not in g:
        values.setdefault("collection", named)
    return url_for(endpoint, **values)


def may(*scopes: Scope) -> bool:
    """Whether the reader may use what needs one of these scopes."""
    key = presented_key()
    return key is None or any(map(key.allows, scopes))


def page_collection(services: ApiServices) -> str:
    """Return the collection of a page: its key's, or the one that the address names, if the key may use it."""
    key = presented_key()
    named = request.args.get("collection")
    try:
        collection = CollectionQuery(collection=named).collection if named else None
    except ValidationError as exc:
        abort(_refused(400, problems(exc)))
    chosen = collection or own_collection(key)
    if not may_use_or_owns(key, chosen, services.collections):
        abort(_refused(403, f"this API key may not use the collection {chosen}"))
    return chosen


def _refused(status: int, sentence: str) -> Response:
    """Make the error of a collection; its links lead out of it."""
    g.collection_refused = True
    return error_page(status, sentence)


def is_fragment() -> bool:
    """Whether htmx or a script of a page asks, which shows an error in its place."""
    return "HX-Request" in request.headers


def error_page(status: int, sentence: str, *, retry_after_seconds: int | None = None) -> Response:
    """Make the error of a page; for a script of a page it is the sentence alone."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    if is_fragment():
        return Response(sentence, status, headers, content_type="text/plain; charset=utf-8")
    return render("error.html", status, headers, code=status, reason=HTTPStatus(status).phrase, sentence=sentence)


def _limit_form() -> None:
    request.max_content_length = _FORM_BYTES


def _visible(services: ApiServices) -> list[View]:
    """Return the views that the key may use; none before it is known who asks."""
    if "key" not in g:
        return []
    kept = bool(services.settings.unknown.collections)
    return [view for view in VIEWS if may(*view.scopes) and (view.name != "unknown" or kept)]
