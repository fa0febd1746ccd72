"""Who searched or enrolled whom when, without names of people. Pure."""

from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, Field

from facerec.message_base import CollectionName, Message

LOGGED_OPERATIONS = frozenset({"recognise", "verify", "search_template", "enrol", "check_enrolment", "reject"})
"""The operations that compare with the people of a collection, or change it."""


class AccessRecord(Message):
    """One access to a collection."""

    at: AwareDatetime
    client: str
    """The id of the API key; in open mode the client's network, and on the command line the operator."""
    collection: CollectionName
    operation: str
    request_id: UUID
    outcome: str
    """As in the log of the web tier."""
    faces: Annotated[int, Field(ge=0)] = 0
    """How many faces were compared."""
    matches: Annotated[int, Field(ge=0)] = 0
    """How many of them got a name."""
    enrolled: Annotated[int, Field(ge=0)] = 0
    """How many templates were added."""
