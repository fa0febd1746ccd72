"""Pages of lists. A cursor names the last entry of a page: changes between two pages skip and repeat nothing."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated

from flask import abort
from pydantic import Field

from facerec.web.api.v1.photo_requests import CollectionQuery
from facerec.web.results import json_error

MAX_LIMIT = 1000


class PageQuery(CollectionQuery):
    """A page of a list."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = 100
    """The most entries of the page."""
    cursor: Annotated[str, Field(json_schema_extra={"format": "cursor"})] | None = None
    """`next` of the page before; without it the first page is answered."""


def next_cursor(last: str) -> str:
    """Return the cursor of the page after an entry, named by its place in the order."""
    return urlsafe_b64encode(last.encode()).decode().rstrip("=")


def after(cursor: str) -> str:
    """Return what `next_cursor` was given; ends the request with 400 for any other cursor."""
    try:
        last = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        last = ""
    if not last or next_cursor(last) != cursor:
        abort(json_error(400, "this is no cursor: leave it out for the first page, then send `next` of each page"))
    return last
