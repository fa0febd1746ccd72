"""The files that pages load: style, scripts, and the libraries in `static/vendor`. No page loads anything else."""

import hashlib
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, send_from_directory, url_for

from facerec.web.auth.access import needs

_FOLDER = Path(__file__).parent / "static"
_YEAR_SECONDS = 31_536_000


@cache
def version() -> str:
    """Return a hash of all files: it is part of their addresses, so that browsers may keep them for ever."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(_FOLDER).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def asset(name: str) -> str:
    """Return the address of a file; for templates."""
    return url_for("assets.file", of=version(), name=name)


def blueprint() -> Blueprint:
    """Make the route of the files, which have no data, so they need no key."""
    web = Blueprint("assets", __name__, url_prefix="/assets")

    @web.get("/<of>/<path:name>")
    @needs(None)
    def file(of: str, name: str) -> Response:
        response = send_from_directory(_FOLDER, name)
        # During an upgrade a page of another version may ask: what it gets must not stay in its cache.
        kept = of == version()
        response.headers["Cache-Control"] = f"public, max-age={_YEAR_SECONDS}, immutable" if kept else "no-store"
        return response

    return web
