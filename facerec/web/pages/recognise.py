"""Who is in a photo: upload, drop, paste or take one."""

from http import HTTPStatus
from typing import TypeGuard
from uuid import UUID

from flask import Blueprint, Response

from facerec.api_keys import Scope
from facerec.messages import RecognitionResult
from facerec.operations import Recognise
from facerec.web import replies
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import as_json
from facerec.web.api.v1.models import Result
from facerec.web.api.v1.photo_requests import ask, earlier_photo, is_pending, own_result
from facerec.web.auth.access import needs
from facerec.web.pages.layout import CAMERA, error_page, is_fragment, link, may, page_collection, render, view_blueprint
from facerec.web.pages.shown_faces import shown_faces
from facerec.web.pages.texts import text
from facerec.web.replies import Declined
from facerec.web.results import photo_response
from model.header import CONTENT_TYPES, NO_PICTURE, SUPPORTED

NEAREST = 3
"""How many of the nearest people a face shows."""

AT_ONCE = 3
"""Photos of one page that are in work at a time: a browser opens six connections to a server."""

MANY_PHOTOS = 50
"""From here on a job is the better way, since it needs no open page."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("recognise", __name__)
    settings = services.settings

    @web.get("/")
    @needs(Scope.RECOGNISE, page=True)
    def index() -> Response:
        limit, collection = settings.web.max_upload_bytes, page_collection(services)
        return render(
            "recognise.html",
            headers=CAMERA,
            collection=collection,
            retention=settings.retention,
            unknown_days=settings.unknown.days if settings.unknown.kept(collection) else None,
            types=_types(),
            limits={"bytes": limit, "at_once": AT_ONCE, "many": MANY_PHOTOS},
            wait_seconds=settings.web.wait_seconds,
            refusals={
                "large": replies.too_large(limit).text,
                "empty": replies.empty_file().text,
                "type": NO_PICTURE,
            },
        )

    @web.post("/recognise")
    @needs(Scope.RECOGNISE, page=True)
    def recognise() -> Response:
        request_id, answer = ask(services, Recognise(nearest=NEAREST), page_collection(services))
        if answer.result is not None:
            return _shown(services, answer.result)
        reply = answer.reply
        if reply.status == HTTPStatus.GATEWAY_TIMEOUT:
            return _pending(request_id)
        return error_page(reply.status, reply.text, retry_after_seconds=reply.retry_after_seconds)

    _add_results(web, services)
    return web


def _add_results(web: Blueprint, services: ApiServices) -> None:
    """Add the routes of the results of earlier requests."""

    @web.get("/recognise/<uuid:request_id>")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def result(request_id: UUID) -> Response:
        found = own_result(services, request_id)
        if found is None and is_pending(services, request_id):
            return _pending(request_id)
        return _shown(services, found) if _is_recognition(found) else _unknown(request_id)

    @web.get("/recognise/<uuid:request_id>/json")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def download(request_id: UUID) -> Response:
        found = own_result(services, request_id)
        if not _is_recognition(found):
            return _unknown(request_id)
        response = as_json(Result.of(found))
        response.headers.set("Content-Disposition", "attachment", filename=f"{found.stem}.json")
        return response

    @web.get("/recognise/<uuid:request_id>/photo")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def photo(request_id: UUID) -> Response:
        """Show the photo of any request of this key."""
        try:
            response = photo_response(earlier_photo(services, str(request_id)).body)
        except Declined as exc:
            return error_page(exc.reply.status, exc.reply.text)
        response.headers["Cache-Control"] = "private, max-age=600"
        return response


def _is_recognition(result: RecognitionResult | None) -> TypeGuard[RecognitionResult]:
    return result is not None and result.operation == "recognise"


def _shown(services: ApiServices, result: RecognitionResult) -> Response:
    reply = replies.recognised(result, services.settings.reply_style)
    if reply.status != HTTPStatus.OK:
        return error_page(reply.status, reply.text)
    return render(
        "recognise_result.html" if is_fragment() else "recognise_page.html",
        headers={"X-Request-Id": str(result.request_id)},
        result=result,
        faces=shown_faces(result),
        line=reply.text,
        may_enrol=may(Scope.ENROL),
        keeps_unknown=services.settings.unknown.kept(result.collection),
    )


def _pending(request_id: UUID) -> Response:
    """Make the response of a request without a result so far; its page looks again by itself."""
    place = link("page_recognise.result", request_id=request_id)
    return render("recognise_page.html", 202, {"Location": place, "Refresh": "5"}, result=None)


def _unknown(request_id: UUID) -> Response:
    return error_page(404, text("recognise.unknown_request", request_id=request_id))


def _types() -> list[str]:
    """Return the content types of the photos that are taken."""
    types = [CONTENT_TYPES[form] for form in SUPPORTED]
    return [*types, "image/heic"] if "HEIF" in SUPPORTED else types
