"""Enrol a person: each photo is checked before anything is stored."""

from collections.abc import Callable, Sequence
from uuid import UUID

from flask import Blueprint, Response, abort, request

from facerec.api_keys import Scope
from facerec.gallery.names import InvalidName, valid_identity
from facerec.gallery.people import NoSuchPerson, Person
from facerec.messages import Outcome, RecognitionResult, Refusal
from facerec.operations import CheckEnrolment
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.photo_requests import ask, earlier_photo, own_result, read_photo, refusal_status
from facerec.web.asking import Answer
from facerec.web.auth.access import needs
from facerec.web.forms import Photo
from facerec.web.pages.layout import CAMERA, error_page, page_collection, render, view_blueprint
from facerec.web.pages.texts import text
from facerec.web.pages.verdicts import verdict

_SUGGESTED = 8
_FORM = "application/x-www-form-urlencoded"


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("enrol", __name__, "/enrol")

    @web.get("")
    @needs(Scope.ENROL, page=True)
    def index() -> Response:
        return render(
            "enrol.html",
            headers=CAMERA,
            collection=page_collection(services),
            name=request.args.get("name", ""),
            earlier=request.args.get("request_id", type=UUID),
            number=request.args.get("face", type=int),
        )

    @web.get("/name")
    @needs(Scope.ENROL, page=True)
    def name() -> Response:
        """Say whose name it is, and suggest others; the photos of the page are judged again then."""
        return _name(services, page_collection(services), request.args.get("name", ""))

    @web.get("/names")
    @needs(Scope.ENROL, page=True)
    def names() -> Response:
        """Suggest the names of people that contain what was typed."""
        suggested = _suggested(services, page_collection(services), request.args.get("name", ""))
        return render("enrol_names.html", suggested=suggested)

    @web.post("/check")
    @needs(Scope.ENROL, page=True)
    def check() -> Response:
        """Check a photo of the form, or that of an earlier request."""
        named = request.form.get("request_id", "") if request.mimetype == _FORM else None
        read = read_photo if named is None else earlier(services, named)
        result = answered(ask(services, CheckEnrolment(), page_collection(services), read=read))
        return _judged(result, request.form.get("name", ""), request.form.get("face", type=int))

    @web.get("/photo/<uuid:check_id>")
    @needs(Scope.ENROL, page=True)
    def photo(check_id: UUID) -> Response:
        """Judge a checked photo again, for another name or another face."""
        result = _checked(services, check_id)
        return _judged(result, request.args.get("name", ""), request.args.get("face", type=int))

    @web.post("/save")
    @needs(Scope.ENROL, page=True)
    def save() -> Response:
        """Enrol a checked photo."""
        return _save(services, page_collection(services))

    return web


def _name(services: ApiServices, collection: str, written: str) -> Response:
    shown, photos, problem = "", None, None
    try:
        shown = valid_identity(written) if written.strip() else ""
        person = services.persons.person(collection, written)
        shown, photos = person.name, len(person.entries)
    except InvalidName as exc:
        problem = str(exc)
    except NoSuchPerson:
        pass  # a new one
    return render(
        "enrol_name.html",
        headers={"HX-Trigger": "enrol-name"},
        name=shown,
        photos=photos,
        problem=problem,
        suggested=_suggested(services, collection, written),
    )


def _suggested(services: ApiServices, collection: str, written: str) -> Sequence[Person]:
    return services.persons.page(collection, search=written, limit=_SUGGESTED).people


def _save(services: ApiServices, collection: str) -> Response:
    """Enrol a checked photo; what the reader has not been warned of is shown instead, and nothing is stored."""
    form = request.form
    written = form.get("instead") or form.get("name", "")
    identity = valid_identity(written)
    result = _checked(services, form.get("request_id", type=UUID))
    judged = verdict(result, written, form.get("face", type=int))
    force, confirmed = "force" in form, set(form.getlist("confirmed"))
    if form.get("instead"):  # the others who are similar were all shown
        confirmed |= {match.identity for match in judged.look_alikes}
    if not judged.allows(confirmed, force=force):
        return _judged(result, written, judged.number)
    operation, read = judged.operation(identity, force=force), earlier(services, str(result.request_id))
    saved = answered(ask(services, operation, collection, read=read))
    (enrolment,) = saved.enrolments
    if enrolment.status not in {"enrolled", "duplicate"}:
        return error_page(422, enrolment.detail)
    return render("enrol_saved.html", headers={"HX-Trigger": "enrolled"}, enrolment=enrolment, result=saved)


def _checked(services: ApiServices, request_id: UUID | None) -> RecognitionResult:
    """Return the result of a check of this key; ends the request with 404 if there is none."""
    result = None if request_id is None else own_result(services, request_id)
    if result is None or result.operation != "check_enrolment":
        abort(error_page(404, text("enrol.no_check")))
    return result


def answered(asked: tuple[UUID, Answer]) -> RecognitionResult:
    """Return the result of an operation; ends the request with an error if there is none.

    That no face was enrolled is a result.
    """
    reply, result = asked[1].reply, asked[1].result
    if result is None or result.outcome in {Outcome.INVALID_IMAGE, Outcome.FAILED}:
        abort(error_page(reply.status, reply.text, retry_after_seconds=reply.retry_after_seconds))
    if result.outcome is Outcome.REFUSED and result.refusal is not Refusal.NOT_ENROLLED:
        abort(error_page(refusal_status(result), result.detail or reply.text))
    return result


def earlier(services: ApiServices, request_id: str) -> Callable[[int], list[Photo]]:
    """Return what reads the photo of an earlier request of this key for `ask`, in place of one in the body."""
    return lambda _: [earlier_photo(services, request_id)]


def _judged(result: RecognitionResult, name: str, number: int | None) -> Response:
    judged = verdict(result, name, number)
    headers = {"X-Request-Id": str(result.request_id)}
    return render("enrol_photo.html", headers=headers, result=result, judged=judged, name=name.strip())
