"""Which messages a worker takes: what Celery sends for a plain call of one of its tasks with one argument. Pure.

From the faces queue it takes messages without Celery's envelope, and makes the task of each itself.
The functions read the same messages without Celery, so this module imports neither Celery nor kombu.

A message that asks for more (a time, a limit, a callback, a packing) is refused. Celery's worker would wait with it,
delete it, or neither delete it nor give it back. So Celery gets nothing of a message but what is checked here.
"""

import base64
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, ValidationError, model_validator

from facerec.celery_sqs.envelope import is_default
from facerec.edge_messages import result_id
from facerec.errors import InvalidMessage
from facerec.message_base import FileName, Message
from facerec.messages import FACES_TASK_NAME

REQUEUES_HEADER = "facerec_postponed"
"""The header that counts the requeues of a stale task. The old name stays: queued messages may have it."""
SHOWN_CHARACTERS = 100
"""The length of a file name in Flower."""

_LONGEST_PROBLEM = 200
"""A field of a message may have a name of any length."""
_UNSUPPORTED = frozenset({"extra_forbidden", "none_required"})
"""pydantic's names of the problem that a field has a value at all."""
_CELERY_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "uuid": lambda value: UUID(**value),
    "datetime": datetime.fromisoformat,
    "decimal": Decimal,
}
"""How kombu's JSON writes values that JSON does not have: those that a request may hold."""


@dataclass(frozen=True, slots=True)
class ReceivedTask:
    """A task that was checked."""

    headers: dict[str, str]
    """Its name, its id, and what monitors show."""
    argument: Any


def _without_defaults(headers: Any) -> Any:
    if not isinstance(headers, dict):
        return headers
    return {name: value for name, value in headers.items() if value is not None and not is_default(name, value)}


def _without_empty(embed: Any) -> Any:
    return {name: value for name, value in embed.items() if value} if isinstance(embed, dict) else embed or {}


_Text = Annotated[str, Field(max_length=255)]
_ShownText = Annotated[str, Field(max_length=4096)]
"""Celery shortens it to 1 024 characters, unless the sender asks for more."""
_Unsupported = Annotated[None, Field(exclude=True)]


class _Headers(BaseModel):
    """Those of Celery; others have no effect, such as a tracer's."""

    task: str
    id: Annotated[_Text, Field(min_length=1)]
    lang: _Text | None = None
    origin: _Text | None = None
    root_id: _Text | None = None
    parent_id: _Text | None = None
    argsrepr: _ShownText | None = None
    kwargsrepr: _ShownText | None = None
    ignore_result: bool | None = Field(None, exclude=True)
    requeues: Annotated[StrictInt, Field(ge=0)] | None = Field(None, alias=REQUEUES_HEADER, exclude=True)
    compression: _Unsupported = None
    eta: _Unsupported = None
    expires: _Unsupported = None
    group: _Unsupported = None
    group_index: _Unsupported = None
    replaced_task_nesting: _Unsupported = None
    retries: _Unsupported = None
    shadow: _Unsupported = None
    stamped_headers: _Unsupported = None
    stamps: _Unsupported = None
    timelimit: _Unsupported = None


class _Properties(BaseModel):
    """The others are for brokers of other kinds."""

    body_encoding: Literal["base64", "utf-8"] | None = None


class _Envelope(BaseModel):
    headers: Annotated[_Headers, BeforeValidator(_without_defaults)]
    properties: _Properties
    content_type: Literal["application/json"] = Field(alias="content-type")
    content_encoding: Literal["utf-8"] | None = Field(None, alias="content-encoding")
    body: str


class _Embed(BaseModel):
    """What Celery is to do after the task: nothing."""

    model_config = ConfigDict(extra="forbid")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    args: Annotated[list[Any], Field(min_length=1, max_length=1)]
    kwargs: Annotated[dict[str, Any], Field(max_length=0)]
    embed: Annotated[_Embed, BeforeValidator(_without_empty)]


def read_task(text: str, tasks: Collection[str]) -> ReceivedTask:
    """Read the body of an SQS message; raises `InvalidMessage`, which names the field, unless it is one of `tasks`."""
    decoded = _decoded(text)
    if not isinstance(decoded, dict) or "headers" not in decoded:
        raise InvalidMessage("not a task of Celery")
    try:
        envelope = _Envelope.model_validate(decoded)
        if envelope.headers.task not in tasks:
            raise InvalidMessage(f"headers.task: there is no task {envelope.headers.task[:_LONGEST_PROBLEM]!r}")
        body = _Body.model_validate(_decoded_body(envelope))
    except ValidationError as exc:
        raise InvalidMessage(_problem(exc)) from exc
    return ReceivedTask(envelope.headers.model_dump(exclude_none=True), body.args[0])


class _ShownRequest(Message):
    """What monitors show of a message of the faces queue."""

    request_id: UUID
    filename: FileName = ""
    face_index: Annotated[int, Field(ge=0)] = 0


class ReceivedFaces(Message):
    """A `FacesMessage`, whose request is a field, or an `EdgeFaces`, which has `thing` and the request's fields."""

    request: _ShownRequest

    @model_validator(mode="before")
    @classmethod
    def _with_request(cls, message: Any) -> Any:
        return {"request": message} if isinstance(message, dict) and "thing" in message else message


def read_faces(text: str) -> ReceivedTask:
    """Make the task of a message of the faces queue, whose argument is the text; raises `InvalidMessage`.

    Only the id of the request is checked: the task reads the rest.
    """
    request = ReceivedFaces.parse(text).request
    headers = {
        "lang": "py",
        "task": FACES_TASK_NAME,
        "id": str(result_id(request.request_id, request.face_index)),
        "argsrepr": request.filename[:SHOWN_CHARACTERS],
    }
    return ReceivedTask(headers, text)


def task_id(text: str) -> str:
    """The id of a message that may hold anything; empty if it is no UUID."""
    try:
        return str(UUID(_decoded(text)["headers"]["id"]))
    except (InvalidMessage, AttributeError, LookupError, TypeError, ValueError):
        return ""


def _decoded(text: str) -> Any:
    try:
        return json.loads(text if text.lstrip().startswith("{") else base64.b64decode(text, validate=True))
    except (ValueError, RecursionError) as exc:
        raise InvalidMessage(f"not a task of Celery: {exc}") from exc


def _decoded_body(envelope: _Envelope) -> dict[str, Any]:
    try:
        body = (
            base64.b64decode(envelope.body, validate=True)
            if envelope.properties.body_encoding == "base64"
            else envelope.body
        )
        args, kwargs, embed = json.loads(body, object_hook=_of_celery)
    except Exception as exc:
        # Each type of Celery's JSON has its own errors.
        raise InvalidMessage(f"body: {exc}"[:_LONGEST_PROBLEM]) from exc
    return {"args": args, "kwargs": kwargs, "embed": embed}


def _of_celery(value: dict[str, Any]) -> Any:
    if "__type__" not in value:
        return value
    read = _CELERY_TYPES.get(value["__type__"])
    if read is None:
        raise ValueError(f"a value has the unknown type {value['__type__']!r}")
    return read(value["__value__"])


def _problem(exc: ValidationError) -> str:
    """The first problem; a message may have any number."""
    first = exc.errors()[0]
    field = ".".join(map(str, first["loc"]))[:_LONGEST_PROBLEM]
    return f"{field}: {'not supported' if first['type'] in _UNSUPPORTED else first['msg']}"
