"""The people of a collection."""

from flask import Blueprint, Response

from facerec.api_keys import Scope
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import needs
from facerec.web.pages.layout import page_collection, render, view_blueprint


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("people", __name__, "/people")

    @web.get("")
    @needs(Scope.ENROL, page=True)
    def index() -> Response:
        return render("people.html", collection=page_collection(services))

    return web
