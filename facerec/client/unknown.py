"""Unknown people, where the collection keeps them."""

from collections.abc import Iterator

from facerec.api_answers import Promoted, UnknownPage, UnknownRemoved, UnknownSummary
from facerec.client.models import Recognition
from facerec.client.photo_requests import Photo, file_of, recognised, segment
from facerec.client.transport import Transport

_PAGE = 1000


class Unknown:
    """The unknown people of a collection. The key needs the scope `enrol`, and `recognise` for `search`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, collection: str | None = None) -> Iterator[UnknownSummary]:
        """Yield the unknown people by id, read page by page."""
        cursor = None
        while True:
            query = {"collection": collection, "limit": _PAGE, "cursor": cursor}
            page = UnknownPage.parse(self._transport.send("GET", "/unknown", query=query).body)
            yield from page.unknown
            if (cursor := page.next) is None:
                return

    def show(self, unknown_id: str, *, collection: str | None = None) -> UnknownSummary:
        """Return an unknown person."""
        reply = self._transport.send("GET", f"/unknown/{segment(unknown_id)}", query={"collection": collection})
        return UnknownSummary.parse(reply.body)

    def search(self, photo: Photo, *, filename: str | None = None, collection: str | None = None) -> Recognition:
        """Find out which faces of a photo were here before: `faces`, each with its `unknown` or None."""
        return recognised(
            self._transport, "/unknown/search", {"file": file_of(photo, filename)}, {"collection": collection}
        )

    def promote(self, unknown_id: str, person: str, *, collection: str | None = None) -> Promoted:
        """Give the faces of an unknown person to a person; the id is gone then."""
        reply = self._transport.send(
            "POST",
            f"/unknown/{segment(unknown_id)}/promote",
            query={"collection": collection},
            content={"person": person},
            repeatable=False,
        )
        return Promoted.parse(reply.body)

    def remove(self, unknown_id: str, *, collection: str | None = None) -> UnknownRemoved:
        """Forget an unknown person."""
        path, query = f"/unknown/{segment(unknown_id)}", {"collection": collection}
        return UnknownRemoved.parse(self._transport.send("DELETE", path, query=query, repeatable=False).body)
