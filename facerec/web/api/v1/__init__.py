"""Our own API: people, photos and recognition under `/api/v1`, described by the OpenAPI document made of the code."""

from facerec.web.api.services import ApiServices
from facerec.web.api.v1 import docs_page, erasures, jobs, people, photos, recognition, rejections, results, unknown
from facerec.web.api.v1.description import DescribedApp


def register(app: DescribedApp, services: ApiServices) -> None:
    """Add the routes of the API, its document and its page."""
    for module in (recognition, results, people, photos, rejections, unknown, erasures, jobs):
        app.register_api(module.routes(services))
    app.register_blueprint(docs_page.blueprint(app))
