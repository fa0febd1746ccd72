"""The pages: recognise, people, jobs and fleet in a browser, over the same services as the APIs."""

from facerec.web.api.services import ApiServices
from facerec.web.api.v1.description import DescribedApp
from facerec.web.pages import (
    assets,
    enrol,
    erasures,
    fleet,
    jobs,
    layout,
    people,
    person,
    photos,
    recognise,
    rejections,
    sign_in,
    unknown,
)

__all__ = ["register_pages"]


def register_pages(app: DescribedApp, services: ApiServices) -> None:
    """Add the routes of every view and of the files that they load."""
    layout.prepare(app, services)
    app.register_blueprint(assets.blueprint())
    for view in (sign_in, recognise, people, person, photos, enrol, rejections, erasures, unknown, jobs, fleet):
        app.register_blueprint(view.blueprint(services))
