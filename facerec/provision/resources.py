"""A provisioned resource, and how provisioning sets one attribute of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

_UNSUPPORTED = frozenset({"InvalidAction", "NotImplemented", "UnknownOperationException", "UnsupportedOperation"})
_NOT_IMPLEMENTED = 501


class State(StrEnum):
    """What provisioning did to a resource."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(slots=True)
class Resource:
    """One resource after provisioning; `notes` name what this endpoint does not support."""

    kind: str
    name: str
    state: State = State.UNCHANGED
    notes: list[str] = field(default_factory=list)

    def touched(self) -> None:
        """Note that an attribute was set; a resource that has just been created stays `created`."""
        if self.state is State.UNCHANGED:
            self.state = State.UPDATED


def settle(
    resource: Resource,
    what: str,
    *,
    read: Callable[[], Any],
    absent: str,
    fits: Callable[[Any], bool],
    write: Callable[[Any], object],
) -> None:
    """Read one attribute and write it if it does not fit; a note says if the endpoint lacks the operation."""
    try:
        try:
            current = read()
        except ClientError as exc:
            if exc.response["Error"]["Code"] != absent:
                raise
            current = None
        if current is not None and fits(current):
            return
        write(current)
        resource.touched()
    except ClientError as exc:
        if exc.response["Error"]["Code"] == "ContinuousBackupsUnavailableException":
            resource.notes.append(f"{what} is not available yet; provision again in a minute")
            return
        status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        if exc.response["Error"]["Code"] not in _UNSUPPORTED and status != _NOT_IMPLEMENTED:
            raise
        resource.notes.append(f"this endpoint does not support {what}")
