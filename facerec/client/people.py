"""The people of a collection and their photos."""

from collections.abc import Iterator
from uuid import UUID

from facerec.api_answers import ErasureBegun, Merge, PeoplePage, PersonSummary, PhotosPage, PhotoSummary, Rejected
from facerec.client.errors import NotEnrolled
from facerec.client.models import Enrolled, Recognition
from facerec.client.photo_requests import PENDING, Photo, done, file_of, late_result, recognised, segment
from facerec.client.transport import Transport

_PAGE = 1000
_REFUSED = {"other_name": 409, "invalid_image": 415}
_ENROLLED = frozenset({"enrolled", "duplicate"})


class People:
    """The people of the key's collection, or of the one that a call names. The key needs the scope `enrol`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, *, collection: str | None = None) -> Iterator[PersonSummary]:
        """Yield everyone by name, read page by page."""
        cursor = None
        while True:
            query = {"collection": collection, "limit": _PAGE, "cursor": cursor}
            page = PeoplePage.parse(self._transport.send("GET", "/people", query=query).body)
            yield from page.people
            if (cursor := page.next) is None:
                return

    def add(self, name: str, *, collection: str | None = None) -> PersonSummary:
        """Add a person without a photo; a photo for a new name adds its person, too."""
        query = {"collection": collection}
        reply = self._transport.send("POST", "/people", query=query, content={"name": name}, repeatable=False)
        return PersonSummary.parse(reply.body)

    def show(self, name: str, *, collection: str | None = None) -> PersonSummary:
        """Return a person."""
        reply = self._transport.send("GET", f"/people/{segment(name)}", query={"collection": collection})
        return PersonSummary.parse(reply.body)

    def rename(self, name: str, new_name: str, *, collection: str | None = None) -> PersonSummary:
        """Give a person another name; raises `Conflict` if it is another person's."""
        reply = self._transport.send(
            "PATCH",
            f"/people/{segment(name)}",
            query={"collection": collection},
            content={"name": new_name},
            repeatable=False,
        )
        return PersonSummary.parse(reply.body)

    def merge(self, name: str, into: str, *, collection: str | None = None) -> Merge:
        """Give all photos of a person to another one; `unmerge` takes it back."""
        path, query = f"/people/{segment(name)}/merge", {"collection": collection}
        reply = self._transport.send("POST", path, query=query, content={"into": into}, repeatable=False)
        return Merge.parse(reply.body)

    def unmerge(self, name: str, *, collection: str | None = None) -> Merge:
        """Take the latest merge of this person back, or the merge of this id."""
        path, query = f"/people/{segment(name)}/unmerge", {"collection": collection}
        return Merge.parse(self._transport.send("POST", path, query=query, repeatable=False).body)

    def remove(self, name: str, *, collection: str | None = None) -> ErasureBegun:
        """Erase a person; `Client.erasure` says what is still owed."""
        path, query = f"/people/{segment(name)}", {"collection": collection}
        return ErasureBegun.parse(self._transport.send("DELETE", path, query=query, repeatable=False).body)

    def reject(
        self,
        name: str,
        photo: Photo | None = None,
        *,
        request_id: UUID | str | None = None,
        face: int = 0,
        collection: str | None = None,
    ) -> Rejected:
        """Remember that a face is not this person: one of a photo, or of an earlier request's photo.

        `face` is its place in `faces` of the result.
        """
        if (photo is None) == (request_id is None):
            raise ValueError("give either a photo or the request_id of an earlier one")
        reply = self._transport.send(
            "POST",
            f"/people/{segment(name)}/not",
            query={"collection": collection, "face": face},
            fields=None if photo is None else {"file": file_of(photo)},
            content=None if photo is not None else {"request_id": str(request_id)},
        )
        if reply.status == PENDING:
            result = done(late_result(self._transport, reply))
            return Rejected(name=name, face=face, request_id=result.request_id)
        return Rejected.parse(reply.body)


class Photos:
    """Enrolled photos. The key needs the scope `enrol`, and `recognise` for `verify`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self, name: str, *, collection: str | None = None) -> Iterator[PhotoSummary]:
        """Yield the photos of a person, read page by page."""
        cursor = None
        while True:
            query = {"collection": collection, "limit": _PAGE, "cursor": cursor}
            page = PhotosPage.parse(self._transport.send("GET", f"/people/{segment(name)}/photos", query=query).body)
            yield from page.photos
            if (cursor := page.next) is None:
                return

    def add(
        self,
        name: str,
        photo: Photo,
        *,
        filename: str | None = None,
        faces: str | None = None,
        force: bool = False,
        collection: str | None = None,
    ) -> Enrolled:
        """Enrol a photo for a person, who is added with the first one; raises `NotEnrolled` with the reason.

        `faces` is `only`, `dominant` or `primary`. The same photo again is a `duplicate`, and no error.
        """
        reply = self._transport.send(
            "POST",
            f"/people/{segment(name)}/photos",
            query={"collection": collection, "faces": faces, "force": force or None},
            fields={"file": file_of(photo, filename)},
        )
        if reply.status == PENDING:
            return _enrolled(late_result(self._transport, reply))
        return Enrolled.parse(reply.body)

    def get(self, photo_id: UUID | str, *, collection: str | None = None) -> bytes:
        """Return an enrolled photo, as it was sent."""
        return self._transport.send("GET", f"/photos/{segment(photo_id)}", query={"collection": collection}).body

    def remove(self, photo_id: UUID | str, *, collection: str | None = None) -> ErasureBegun:
        """Erase an enrolled photo with its template."""
        path, query = f"/photos/{segment(photo_id)}", {"collection": collection}
        return ErasureBegun.parse(self._transport.send("DELETE", path, query=query, repeatable=False).body)

    def verify(
        self, photo_id: UUID | str, photo: Photo, *, threshold: float | None = None, collection: str | None = None
    ) -> Recognition:
        """Compare every face of a photo with the face of an enrolled one: `faces`, each with its similarity."""
        query = {"collection": collection, "threshold": threshold}
        return recognised(self._transport, f"/photos/{segment(photo_id)}/verify", {"file": file_of(photo)}, query)


def _enrolled(result: Recognition) -> Enrolled:
    """Return what became of a photo whose result came late; raises `NotEnrolled`."""
    if not result.enrolments:
        done(result)
    enrolment = result.enrolments[0]
    face = None if enrolment.face is None else result.faces[enrolment.face]
    found = Enrolled(
        status=enrolment.status,
        detail=enrolment.detail,
        id=None if enrolment.template_id is None else UUID(enrolment.template_id),
        name=enrolment.identity,
        enrolled_for=enrolment.enrolled_for,
        look_alikes=enrolment.look_alikes,
        box=face and face.box,
        quality=face and face.quality,
        request_id=result.request_id,
    )
    if found.status not in _ENROLLED:
        raise NotEnrolled(_REFUSED.get(found.status, 422), found, str(found.request_id))
    return found
