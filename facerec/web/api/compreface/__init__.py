"""The API of CompreFace, so that its clients work unchanged; docs/compreface.md has what differs."""

from flask import Blueprint

from facerec.errors import ObjectMissing
from facerec.gallery.names import InvalidName
from facerec.gallery.people import NoSuchPerson
from facerec.web.api.compreface import faces, photos, subjects
from facerec.web.api.compreface.codes import OUT_OF_RANGE, ApiError, no_photo, no_subject
from facerec.web.api.services import ApiServices
from facerec.web.auth.denials import MISSING_HEADER
from facerec.web.replies import Declined
from facerec.web.results import answer_outages

PATHS = ("/api/v1/recognition/", "/api/v1/detection/", "/api/v1/verification/")


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the API."""
    api = Blueprint("compreface", __name__, url_prefix="/api/v1")
    photos.add_routes(api, services)
    faces.add_routes(api, services)
    subjects.add_routes(api, services)
    api.register_error_handler(ApiError, ApiError.response)
    api.register_error_handler(Declined, lambda exc: ApiError(exc.reply.status, exc.reply.text).response())
    api.register_error_handler(InvalidName, lambda exc: ApiError(400, str(exc), OUT_OF_RANGE).response())
    api.register_error_handler(NoSuchPerson, lambda exc: no_subject(exc.name).response())
    api.register_error_handler(ObjectMissing, lambda _: no_photo().response())
    answer_outages(api, "people cannot be read right now: try again in a few seconds")
    return api


def status_of(path: str, status: int, code: int) -> int:
    """Return the status of a denial: CompreFace gives a missing key another one than HTTP has for it."""
    return 400 if code == MISSING_HEADER and path.startswith(PATHS) else status
