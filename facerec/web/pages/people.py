"""The people of a collection: a grid with a search."""

import zlib
from typing import Any, NamedTuple

from flask import Blueprint, Response, request

from facerec.api_keys import Scope
from facerec.web.api.services import ApiServices
from facerec.web.auth.access import needs, presented_key
from facerec.web.auth.collections import own_collection
from facerec.web.pages.layout import may, page_collection, render, view_blueprint
from facerec.web.pages.paging import requested_part, swapped


class Drawing(NamedTuple):
    """What is drawn for a person without a photo."""

    initials: str
    hue: int
    """In degrees; the same for every spelling of the name in upper and lower case."""


def blueprint(services: ApiServices) -> Blueprint:
    """Make the routes of the view."""
    web = view_blueprint("people", __name__, "/people")
    web.add_app_template_global(drawing)

    @web.get("")
    @needs(Scope.ENROL, page=True)
    def index() -> Response:
        collection, part = page_collection(services), requested_part()
        search = request.args.get("q", "").strip()
        values: dict[str, Any] = {"page": None, "part": part, "search": search, "collection": collection}
        appended, listed = part.appended, swapped() == "people"
        # A whole page is there at once: its list follows, unless a reader without JavaScript waits for all of it.
        if appended or listed or "wait" in request.args or services.persons.index.reads_little(collection):
            limit = part.stop - part.start
            values["page"] = services.persons.page(collection, search=search, start=part.start, limit=limit)
        if appended:
            return render("people_cards.html", **values)
        if listed:
            return render("people_grid.html", **values)
        return render("people.html", **values, collections=_collections(services, collection))

    return web


def drawing(name: str) -> Drawing:
    """Return the drawing of a name: the first letters of its first and of its last word."""
    letters = [letter for word in name.split() for letter in [next(filter(str.isalnum, word), "")] if letter]
    initials = "".join([*letters[:1], *letters[1:][-1:]]).upper()
    return Drawing(initials or "?", zlib.crc32(name.casefold().encode()) % 360)


def _collections(services: ApiServices, shown: str) -> list[str]:
    """Return the collections that the reader may choose from, with the one that is shown."""
    if not may(Scope.ADMIN):
        return [shown]
    return sorted({shown, own_collection(presented_key()), *services.people.collections()})
