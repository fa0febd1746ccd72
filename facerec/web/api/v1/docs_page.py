"""The OpenAPI document and a page that shows it, from this server alone: nothing is loaded from elsewhere."""

from pathlib import Path

import flask_openapi3_swagger
from flask import Blueprint, Response, jsonify, render_template, send_from_directory

from facerec.web.api.v1.description import PREFIX, DescribedApp
from facerec.web.auth.access import needs

_ASSETS = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
"""Swagger UI (Apache-2.0), as the package flask-openapi3-swagger has it."""

_FILES = {"swagger-ui.css": "css", "swagger-ui-bundle.js": "js"}

_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_START = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
"""


def blueprint(app: DescribedApp) -> Blueprint:
    """Make the routes of the document and its page; they have no data, so they need no key."""
    pages = Blueprint("docs", __name__, url_prefix=PREFIX)

    @pages.get("/openapi.json")
    @needs(None)
    def document() -> Response:
        return jsonify(app.api_doc)

    @pages.get("/docs")
    @needs(None)
    def page() -> Response:
        response = Response(render_template("api.html"), content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = _PAGE_POLICY
        return response

    @pages.get("/docs/start.js")
    @needs(None)
    def start() -> Response:
        return Response(_START, content_type="text/javascript; charset=utf-8")

    @pages.get("/docs/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
    @needs(None)
    def asset(name: str) -> Response:
        return send_from_directory(_ASSETS / _FILES[name], name, max_age=86_400)

    return pages
