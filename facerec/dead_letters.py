"""The dead-letter queue: its two ends, its messages, and how a message goes back to its queue."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol

from facerec.device_faces import decode_faces
from facerec.edge_messages import RuleFailure
from facerec.errors import InvalidMessage, Refused
from facerec.messages import NO_FACE, TASK_NAME, Outcome, RecognitionRequest, RecognitionResult, Request
from facerec.object_keys import output_key
from facerec.ports import MessageSender, ObjectStore
from facerec.stored_results import store_result, stored_result

_UNREADABLE = (AttributeError, LookupError, TypeError, ValueError, RecursionError)
"""What decoding an arbitrary body may raise."""


@dataclass(frozen=True)
class DeadLetter:
    """One message of the dead-letter queue."""

    message_id: str
    body: str
    sent_at: datetime
    receives: int
    """Approximate, as SQS counts them; reading the queue counts, too."""
    receipt: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    """`reason`, `request_id` and `failed_at` from the dead-letter writer; none if SQS moved the message."""

    @cached_property
    def _of_device(self) -> bool:
        """Whether the body is a device's, which the IoT rules mark by `thing`: it may look like anything else."""
        try:
            return "thing" in json.loads(self.body)
        except _UNREADABLE:
            return False

    @cached_property
    def task(self) -> dict[str, Any] | None:
        """Celery's message, if it is a task of facerec; JSON, or JSON in base64."""
        if self._of_device:
            return None
        try:
            text = self.body if self.body.lstrip().startswith("{") else base64.b64decode(self.body, validate=True)
            message: dict[str, Any] = json.loads(text)
            return message if message["headers"]["task"] == TASK_NAME else None
        except _UNREADABLE:
            return None

    @cached_property
    def rule_failure(self) -> RuleFailure | None:
        """Why an IoT rule could not pass a device's message on, if that is what the body is about."""
        if self._of_device:
            return None
        try:
            return RuleFailure.parse(self.body)
        except InvalidMessage:
            return None

    @cached_property
    def content(self) -> str:
        """The message to send again: the body, or the one in it that an IoT rule could not pass on."""
        original = None if self.rule_failure is None else self.rule_failure.original()
        return original or self.body

    @cached_property
    def faces_request(self) -> Request | None:
        """The request of faces, if it is from the faces queue and this version can read it."""
        try:
            return decode_faces(self.content, response_queue=None, now=self.sent_at)[0]
        except InvalidMessage:
            return None

    @cached_property
    def no_face(self) -> RecognitionResult | None:
        """A device's result without a face, which an IoT rule could not put onto the response queue."""
        if self.rule_failure is None:
            return None
        try:
            result = RecognitionResult.parse(self.content)
        except InvalidMessage:
            return None
        return result if result.result == NO_FACE else None

    @cached_property
    def request(self) -> Request | None:
        """The request of the task or of the faces, if this version can read it."""
        if self.task is None:
            return self.faces_request
        try:
            body = self.task["body"]
            if self.task.get("properties", {}).get("body_encoding") == "base64":
                body = base64.b64decode(body, validate=True)
            (argument,) = json.loads(body)[0]  # (args, kwargs, embed) in Celery's protocol 2
            return RecognitionRequest.parse(argument)
        except (InvalidMessage, *_UNREADABLE):
            return None

    @property
    def request_id(self) -> str | None:
        """The request's id: of the request, the writer, or Celery's task."""
        known = self.request or self.no_face
        if known is not None:
            return str(known.request_id)
        # The writer puts `unknown` for a task without an id.
        written = self.attributes.get("request_id", "unknown")
        if written != "unknown":
            return written
        identifier = None if self.task is None else self.task["headers"].get("id")
        return str(identifier) if identifier else None

    @property
    def reason(self) -> str:
        """Why it is here."""
        if self.rule_failure is not None:
            return self.rule_failure.reason
        unknown = self.task is None and self.faces_request is None
        moved = "not a task of facerec" if unknown else "received too often without an end"
        return self.attributes.get("reason", moved)

    @property
    def failed_at(self) -> datetime:
        """When the writer put it here; if SQS moved it, when it was first sent."""
        try:
            written = datetime.fromisoformat(self.attributes.get("failed_at", ""))
        except ValueError:
            return self.sent_at
        return self.sent_at if written.tzinfo is None else written

    def has_id(self, identifier: str) -> bool:
        """Whether this is the id of its request or of the message."""
        return identifier in {self.request_id, self.message_id}


class DeadLetterReader(Protocol):
    """The reading end of the dead-letter queue; every method may raise `QueueMissing` and `Transient`."""

    def count(self) -> int:
        """Return the approximate number of messages, hidden ones included."""

    def look(self, limit: int | None = None) -> AbstractContextManager[Iterator[DeadLetter]]:
        """Yield each message once; those that are not removed become visible again at the end of the block."""

    def remove(self, letter: DeadLetter) -> None:
        """Delete a message within the block of `look`."""

    def purge(self) -> None:
        """Delete every message."""


class DeadLetterWriter(Protocol):
    """The sending end of the dead-letter queue."""

    def put(self, body: str, *, reason: str, request_id: str, failed_at: datetime) -> None:
        """Keep the message with its reason; raises `QueueMissing`, `Transient` or `ConfigurationError`."""


def redrive(
    letter: DeadLetter, *, dead: DeadLetterReader, requests: MessageSender, store: ObjectStore, bucket: str
) -> None:
    """Send the original message to its queue, then remove it; a crash in between sends it twice, harmlessly.

    `requests` is the queue that the message was for.

    SQS counts its receives from 0 again. A stored failure is deleted first: a worker answers a repeated task with the
    stored result. If SQS refuses the message, which raises `Refused`, the failure is stored again.
    """
    failure = None
    if letter.request is not None:
        key = output_key(letter.request.request_id, letter.request.filename)
        stored = stored_result(store, bucket, key)
        if stored is not None and stored.outcome is Outcome.FAILED:
            failure = stored
            store.delete(bucket, key)
    try:
        requests.send(letter.content)
    except Refused:
        if failure is not None:
            store_result(store, bucket, failure)
        raise
    dead.remove(letter)
