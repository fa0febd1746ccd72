"""Long lists of a view: "Show more" appends the next part, and the page's address keeps how much is shown."""

from dataclasses import dataclass

from flask import request

PAGE_SIZE = 60
_MOST_PAGES = 10
"""Of a list that is opened by its address; "Show more" can append any number."""

MORE = "more"
"""The id of the element that "Show more" replaces by the next part."""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a list that a request shows."""

    page: int
    """Its last page, from 1 on."""
    start: int
    """The place of its first entry, from 0 on."""
    appended: bool
    """Whether it goes below what the reader sees already."""

    @property
    def stop(self) -> int:
        """The place after its last entry."""
        return self.page * PAGE_SIZE


def requested_part() -> Part:
    """Return the part that the address names: all pages up to one, or that page alone for "Show more"."""
    page = max(1, request.args.get("page", 1, type=int))
    appended = swapped() == MORE
    first = page if appended else max(1, page - _MOST_PAGES + 1)
    return Part(page, (first - 1) * PAGE_SIZE, appended)


def swapped() -> str | None:
    """Return the id of the element that htmx will replace by the response; `None` for a whole page."""
    return request.headers.get("HX-Target")
