"""Many files in one call, with their progress."""

from flask import Blueprint, Response

from facerec.api_keys import Scope
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import needs
from facerec.web.pages.layout import page_collection, render, view_blueprint


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("jobs", __name__, "/jobs")

    @web.get("")
    @needs(Scope.RECOGNISE, Scope.ENROL, page=True)
    def index() -> Response:
        return render("jobs.html", collection=page_collection(services))

    return web
