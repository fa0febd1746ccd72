"""The upload page for people."""

from flask import Blueprint, render_template

from facerec.settings import Settings
from facerec.text import megabytes
from facerec.web.auth.hook import needs


def blueprint(settings: Settings, *, open_to_all: bool) -> Blueprint:
    """The route `GET /`."""
    pages = Blueprint("pages", __name__, template_folder="templates")

    @pages.get("/")
    @needs(None)
    def upload_page() -> str:
        return render_template("upload.html", limit=megabytes(settings.web.max_upload_bytes), open_to_all=open_to_all)

    return pages
