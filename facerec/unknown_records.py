"""People without a name: what is kept of them beside their templates, and the alerts about them. Pure."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field

from facerec.message_base import CollectionName, Message, Ratio

UNKNOWN_ID = r"^unknown-[0-9a-f]{12}$"
UnknownId = Annotated[str, Field(pattern=UNKNOWN_ID)]
ALERT_OWNER = "unknown"
"""Whose secret of callbacks signs the alerts; no API key has this id."""
_COMPANION = "!unknown"
"""No name of a collection has an exclamation mark: no client can create, list or search these collections."""


def companion(collection: str) -> str:
    """Return the name under which the templates of a collection's unknown people are stored."""
    return collection + _COMPANION


def companion_of(name: str) -> str | None:
    """Return the collection that stored templates under this name belong to, or None if it is a collection."""
    return name.removesuffix(_COMPANION) if name.endswith(_COMPANION) else None


def unknown_id_of(collection: str, request_id: UUID, face: int) -> str:
    """Return the id of an unknown person that a face founds: a redelivery of the request founds the same one."""
    return f"unknown-{_digest(collection, str(request_id), str(face))[:12]}"


def view_id(collection: str, model_id: str, request_id: UUID, face: int) -> str:
    """Return the id of the template of an unknown person's face."""
    return _digest(companion(collection), model_id, str(request_id), str(face))[:32]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class UnknownPerson(Message):
    """A person without a name, or what is left of one."""

    unknown_id: UnknownId
    collection: CollectionName
    revision: Annotated[int, Field(ge=1)] = 1
    """Each write has the next one."""
    first_seen: datetime
    last_seen: datetime
    seen: Annotated[int, Field(ge=1)] = 1
    """How many times, at most once a minute."""
    last_request: UUID
    """The request that counted last: its redelivery does not count."""
    views: dict[str, Ratio] = Field(default_factory=dict)
    """The quality of each template, by its id."""
    merged_into: UnknownId | None = None
    """The id that has taken over the templates: this one is its alias."""
    aliases: tuple[UnknownId, ...] = ()
    removed: bool = False
    """Whether it was removed or promoted: workers that still have its templates neither report nor found an id."""
    alerted_at: datetime | None = None
    expires_at: datetime

    @property
    def live(self) -> bool:
        """Whether it is a person: neither an alias nor removed."""
        return self.merged_into is None and not self.removed

    def next(self, **changes: Any) -> Self:
        """Return the next revision."""
        return self.model_copy(update={**changes, "revision": self.revision + 1})


class UnknownAlert(Message):
    """A message to the operator's web server that is due: an unknown person is new, or was seen again."""

    event: Literal["new", "seen"]
    collection: CollectionName
    unknown_id: UnknownId
    request_id: UUID
    first_seen: datetime
    last_seen: datetime
    seen: int
    made_at: datetime
    due_at: datetime
    """When it is sent; while a process sends it, when another one may."""
    attempts: int = 0

    def later(self, seconds: float, now: datetime, *, attempts: int | None = None) -> Self:
        """Return the alert, due so many seconds from now."""
        tried = self.attempts if attempts is None else attempts
        return self.model_copy(update={"due_at": now + timedelta(seconds=seconds), "attempts": tried})
