"""Faces that are remembered not to be a person's: "this is not X"."""

from operator import attrgetter

from flask import Blueprint, Response, request

from facerec.api_keys import Scope
from facerec.gallery.names import same_person, valid_identity
from facerec.operations import Reject
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.photo_requests import ask
from facerec.web.api.v1.rejections import MAX_FACES
from facerec.web.auth.access import needs
from facerec.web.pages.enrol import answered, earlier
from facerec.web.pages.layout import error_page, page_collection, render, view_blueprint
from facerec.web.pages.texts import text


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes; a person's page includes the list."""
    web = view_blueprint("rejections", __name__, "/rejections")

    @web.post("")
    @needs(Scope.ENROL, page=True)
    def reject() -> Response:
        """Remember that a face of an earlier request is not this person."""
        form, collection = request.form, page_collection(services)
        face = form.get("face", 0, type=int)
        if not 0 <= face <= MAX_FACES:
            return error_page(400, text("rejections.no_face"))
        operation = Reject(identity=valid_identity(form.get("name", "")), face=face)
        answered(ask(services, operation, collection, read=earlier(services, form.get("request_id", ""))))
        return render("rejected.html", name=operation.identity)

    @web.get("")
    @needs(Scope.ENROL, page=True)
    def index() -> Response:
        return _listed(services, request.args.get("name", ""))

    @web.post("/forget")
    @needs(Scope.ENROL, page=True)
    def forget() -> Response:
        """Forget a rejection of the person; one that is gone already is no error."""
        collection, name = page_collection(services), request.form.get("name", "")
        services.people.remove_rejections(collection, [request.form.get("rejection_id", "")])
        return _listed(services, name)

    return web


def _listed(services: ApiServices, name: str) -> Response:
    entries = services.people.rejection_entries(page_collection(services))
    own = [entry for entry in entries if same_person(entry.identity, name)]
    own.sort(key=attrgetter("rejected_at"), reverse=True)
    return render("rejections.html", name=name, rejections=own)
