"""The APIs beside `POST /`: CompreFace's, Rekognition's and our own; each is a blueprint over the same services."""

from facerec.web.api import compreface, rekognition, v1
from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import DescribedApp

__all__ = ["ApiServices", "register_apis"]


def register_apis(app: DescribedApp, services: ApiServices) -> None:
    """Add the routes of every API."""
    v1.register(app, services)
    app.register_blueprint(compreface.blueprint(services))
    app.register_blueprint(rekognition.blueprint(services))
    app.wsgi_app = rekognition.ByTarget(app.wsgi_app)  # type: ignore[method-assign] # as Flask documents
