"""What waits in the dead-letter queue: read, told apart, sent back to be tried again, or thrown away."""

import base64
import binascii
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

from facerec.errors import InvalidMessage
from facerec.messages import TASK_NAME, Outcome, RecognitionRequest
from facerec.object_keys import output_key
from facerec.ports import ObjectStore
from facerec.stored_results import stored_result

_UNTOLD = "received too often without an end"
"""Why SQS itself moved a message: nobody could add a reason."""


@dataclass(frozen=True)
class DeadLetter:
    """One message of the dead-letter queue as it was looked at; `reason` and `failed_at` are the worker's words."""

    message_id: str
    body: str
    sent_at: datetime
    receives: int
    """Approximate, as SQS counts them; every look is one more."""
    receipt: str
    noted_reason: str | None = None
    noted_request_id: str | None = None
    noted_failed_at: datetime | None = None

    @cached_property
    def task(self) -> dict[str, Any] | None:
        """Celery's envelope, where the message is a task of ours."""
        return _envelope(self.body)

    @cached_property
    def request(self) -> RecognitionRequest | None:
        """What was asked for, where this version can read it."""
        try:
            return None if self.task is None else RecognitionRequest.parse(_argument(self.task))
        except InvalidMessage:
            return None

    @property
    def request_id(self) -> str | None:
        """The request's id, from the message itself where it can be read."""
        if self.request is not None:
            return str(self.request.request_id)
        return self.noted_request_id or (
            None if self.task is None else str(self.task["headers"].get("id") or "") or None
        )

    @property
    def reason(self) -> str:
        """Why it is here, as far as anybody knows."""
        if self.noted_reason is not None:
            return self.noted_reason
        return _UNTOLD if self.task is not None else "not a task of facerec"

    @property
    def failed_at(self) -> datetime:
        """When the worker gave it up; where SQS moved it, when it was sent at first."""
        return self.noted_failed_at or self.sent_at

    def named(self, identifier: str) -> bool:
        """Whether this is the id of its request or of the message."""
        return identifier in {self.request_id, self.message_id}


class DeadLetterQueue(Protocol):
    """The reading end of the dead-letter queue; every method may raise `QueueMissing` and `Transient`."""

    def count(self) -> int:
        """About how many there are, those included that somebody looks at."""

    def look(self, limit: int | None = None) -> AbstractContextManager[Iterator[DeadLetter]]:
        """The messages, each once; what has not been removed on leaving is visible to others again at once."""

    def remove(self, letter: DeadLetter) -> None:
        """Delete one that was looked at."""

    def purge(self) -> None:
        """Delete everything, also what nobody has looked at."""


class BodySender(Protocol):
    """Where tasks are sent as they were."""

    def send(self, body: str) -> None:
        """Return when the message is in the queue."""


def redrive(
    letter: DeadLetter, *, dead: DeadLetterQueue, requests: BodySender, store: ObjectStore, bucket: str
) -> None:
    """Send the original message to the request queue, then remove it: a crash in between sends it twice, harmlessly.

    SQS counts its receives anew, so it gets all its attempts. The stored failure goes first: a worker that gets a task
    for the second time takes a stored result for its answer.
    """
    if letter.request is not None:
        key = output_key(letter.request.request_id, letter.request.filename)
        stored = stored_result(store, bucket, key)
        if stored is not None and stored.outcome is Outcome.FAILED:
            store.delete(bucket, key)
    requests.send(letter.body)
    dead.remove(letter)


def _envelope(body: str) -> dict[str, Any] | None:
    try:
        decoded = json.loads(body if body.lstrip().startswith("{") else base64.b64decode(body, validate=True))
    except (ValueError, binascii.Error, RecursionError):
        return None
    ours = (
        isinstance(decoded, dict)
        and isinstance(headers := decoded.get("headers"), dict)
        and headers.get("task") == TASK_NAME
    )
    return decoded if ours else None


def _argument(envelope: dict[str, Any]) -> Any:
    """The task's only argument; Celery's second protocol has (args, kwargs, embed) in the body."""
    body = envelope.get("body")
    try:
        if envelope.get("properties", {}).get("body_encoding") == "base64":
            body = base64.b64decode(str(body), validate=True)
        (argument,) = json.loads(body or "")[0]
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as exc:
        raise InvalidMessage("the body of the task is garbled") from exc
    return argument
