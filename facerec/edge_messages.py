"""The messages between devices and the cloud, and their topics: pure.

Devices and cloud are upgraded one after the other, as the tiers are (`facerec.messages`). A message is data of a
device that may have been taken over: the cloud trusts nothing in it but the thing's name, which the IoT rule sets.
"""

import base64
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID, uuid5

from pydantic import AwareDatetime, Field

from facerec.message_base import FileName, Message, Ratio
from facerec.messages import NO_FACE, VERSION, Outcome, RecognitionResult, Request, ResultBox, SupportedVersion

NO_FACE_MARK: Literal["No-Face"] = NO_FACE
"""The `result` of a message without a face, by which the IoT rules tell the two kinds of messages apart."""
NO_FACE_FIELDS = (
    "version",
    "request_id",
    "result",
    "filename",
    "captured_at",
    "model_id",
    "engine",
    "precision",
    "timings_ms",
    "completed_at",
)
"""What an IoT rule passes on of a result without a face, beside `outcome` and `thing`, which the rule sets.

A device cannot add faces, a detail or another outcome, which an application on the response queue might believe.
"""


def frames_topic(thing: str) -> str:
    """The device takes frames from it, as `FrameMessage`."""
    return f"clients/{thing}"


def faces_topic(thing: str) -> str:
    """The device publishes faces on it, as `EdgeFaces`, and results without a face."""
    return f"facerec/{thing}/faces"


def status_topic(thing: str) -> str:
    """The device publishes its state and its counters on it."""
    return f"facerec/{thing}/status"


def results_topic(thing: str) -> str:
    """The cloud publishes results on it, as `RecognitionResult`, if the device asks for them."""
    return f"facerec/{thing}/results"


Side = Annotated[int, Field(ge=1, le=65_535)]
"""Of a frame, in pixels: the limit of a JPEG."""
ShortText = Annotated[str, Field(max_length=100)]
"""What a device says is logged, and kept in results."""


def result_id(request_id: UUID, face_index: int) -> UUID:
    """Return the id of the result that a message of a device is about, for there is one result per request.

    A device may send one message per face. Each other face than the primary one has an id of its own, which follows
    from the frame's and from the index: so it never replaces the primary face's result.
    """
    return request_id if face_index == 0 else uuid5(request_id, str(face_index))


class DeviceRequest(Request):
    """The faces of a device's frame to recognise; the frame stays on the device."""

    thing: str
    captured_at: AwareDatetime
    results: bool
    """Whether the device wants the result."""
    frame_id: UUID | None = None
    """As in `RecognitionResult`."""


class FrameMessage(Message):
    """A frame that another program sends to the device."""

    request_id: UUID
    filename: FileName
    encoded: str
    """The picture's bytes in base64."""


class EdgeCrop(Message):
    """One face of a frame."""

    face_index: Annotated[int, Field(ge=0)]
    """0 is the primary face."""
    box: ResultBox
    encoded: str
    """The aligned crop as JPEG in base64: S x S pixels, as the model's embedder takes it."""
    probability: Ratio = 1.0
    landmarks: Annotated[tuple[tuple[float, float], ...], Field(max_length=5)] = ()
    """As in `Face`."""
    factors: Annotated[tuple[tuple[Ratio, ShortText], ...], Field(max_length=20)] = ()
    """As in `FaceToEmbed`."""


class EdgeFaces(EdgeCrop):
    """All faces of one frame, from the device to the cloud: the primary face's fields, and `other_faces`.

    There is one result per request, so the faces travel together. A message with the fields of the wire contract alone
    (request_id, filename, face_index, box, encoded, captured_at, thing) is one face, aligned for the model in use.
    """

    version: SupportedVersion = VERSION
    request_id: UUID
    filename: FileName
    thing: Annotated[str, Field(pattern=r"^[A-Za-z0-9:_-]{1,128}$")]
    """The IoT rule replaces it by the sender's topic; these are the characters that IoT Core allows."""
    captured_at: AwareDatetime
    """By the clock of the device, which may be wrong."""
    model_id: ShortText | None = None
    """The model whose detector found the faces: its embedder alone may embed them."""
    width: Side | None = None
    """Of the upright frame."""
    height: Side | None = None
    other_faces: tuple[EdgeCrop, ...] = ()
    more_faces: Annotated[int, Field(ge=0, le=100_000)] = 0
    """How many faces were detected beyond those in the message."""
    results: bool = False
    """Whether the device wants the result on `results_topic`."""
    timings_ms: Annotated[dict[ShortText, float], Field(default_factory=dict, max_length=20)]
    """The stages of the detection."""

    def request(self, reply_to: str | None, now: datetime) -> DeviceRequest:
        """Return the request, with the id `result_id`; the cloud decides all that is not about the frame.

        A clock of the device that is ahead makes no request of the future.
        """
        return DeviceRequest(
            request_id=result_id(self.request_id, self.face_index),
            filename=self.filename,
            reply_to=reply_to,
            submitted_at=min(self.captured_at, now),
            thing=self.thing,
            captured_at=self.captured_at,
            results=self.results,
            frame_id=self.request_id if self.face_index else None,
        )


class ActionFailure(Message):
    """One action of an IoT rule that has failed."""

    action: str = Field(alias="failedAction")
    resource: str = Field(alias="failedResource")
    error: str = Field(alias="errorMessage")


class RuleFailure(Message):
    """What an IoT rule puts onto the dead-letter queue if it could not pass a device's message on."""

    rule: str = Field(alias="ruleName")
    topic: str
    payload: str = Field(alias="base64OriginalPayload")
    failures: Annotated[tuple[ActionFailure, ...], Field(min_length=1)]

    @property
    def reason(self) -> str:
        """What has failed, for people."""
        failed = "; ".join(f"{each.action} on {each.resource}: {each.error}" for each in self.failures)
        return f"the IoT rule {self.rule} failed: {failed}"

    def original(self) -> str | None:
        """Return the device's message as the rule would have passed it on, `None` if it is no JSON object.

        As in the rules, the thing is the one of the topic, and a result without a face has its own fields alone.
        """
        try:
            message = json.loads(base64.b64decode(self.payload, validate=True))
            thing = self.topic.split("/")[1]
        except (LookupError, RecursionError, ValueError):
            return None
        if not isinstance(message, dict):
            return None
        if message.get("result") == NO_FACE_MARK:
            message = {name: message[name] for name in NO_FACE_FIELDS if name in message}
            message["outcome"] = Outcome.NO_FACE
        return json.dumps(message | {"thing": thing})


def no_face_result(
    *,
    request_id: UUID,
    filename: str,
    captured_at: datetime,
    thing: str,
    model_id: str,
    engine: str,
    precision: str,
    timings_ms: Mapping[str, float],
) -> RecognitionResult:
    """Return the result of a frame without a face: the IoT rule passes it on to the response queue as it is."""
    return RecognitionResult(
        request_id=request_id,
        result=NO_FACE_MARK,
        filename=filename,
        outcome=Outcome.NO_FACE,
        thing=thing,
        captured_at=captured_at,
        model_id=model_id,
        engine=engine,
        precision=precision,
        timings_ms=dict(timings_ms),
        completed_at=captured_at,
    )
