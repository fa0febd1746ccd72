"""The faces queue's two kinds of messages told apart, and the faces of a device as the embedder takes them. Pure.

`FacesMessage` comes from the detection function, `EdgeFaces` from a device through an IoT rule.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any
from uuid import UUID

from facerec.edge_messages import DeviceRequest, EdgeCrop, EdgeFaces, result_id
from facerec.errors import InvalidMessage
from facerec.messages import FacesMessage, Request
from model.faces import Box, DetectedFace, JpegFaces, MeasuredFace, QualityFactor

_LANDMARKS = (0, 5)
"""A device need not send them."""
_UNREADABLE = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
"""What taking values out of an arbitrary body may raise."""


@dataclass(frozen=True, slots=True)
class DeviceFaces:
    """The faces of a device's frame, and the request that they are."""

    request: DeviceRequest
    message: EdgeFaces

    @property
    def model_id(self) -> str | None:
        """The model whose detector found the faces; `None` if the device does not say."""
        return self.message.model_id

    @property
    def timings_ms(self) -> dict[str, float]:
        """The stages of the detection."""
        return self.message.timings_ms


def decode_faces(
    body: str | dict[str, Any], *, response_queue: str | None, now: datetime
) -> tuple[Request, FacesMessage | DeviceFaces]:
    """Read a message of the faces queue, or its decoded object; raises `InvalidMessage`.

    A device's faces are answered on the response queue, and compared with the default collection. They are known by
    `thing`, which the IoT rule sets whatever the device sends: so no device can pass for the detection function.
    """
    try:
        plain = json.loads(body) if isinstance(body, str) else body
    except (ValueError, RecursionError) as exc:
        raise InvalidMessage(f"the message of the faces queue is not JSON: {exc}") from exc
    if isinstance(plain, dict) and "thing" in plain:
        message = EdgeFaces.parse(plain)
        request = message.request(response_queue, now)
        return request, DeviceFaces(request, message)
    faces = FacesMessage.parse(plain)
    return faces.request, faces


def faces_request_id(body: str) -> str:
    """Return the request id of a message of the faces queue that may hold anything; empty if it is no UUID."""
    try:
        plain = json.loads(body)
        if "thing" not in plain:
            return str(UUID(plain["request"]["request_id"]))
        return str(result_id(UUID(plain["request_id"]), int(plain["face_index"])))
    except _UNREADABLE:
        return ""


def jpeg_faces(message: EdgeFaces, *, max_faces: int) -> JpegFaces:
    """Return the faces, the primary one first; raises `InvalidMessage`.

    What lies beyond the frame's edges is moved to them. The crops are decoded by the engine's child.
    """
    crops: tuple[EdgeCrop, ...] = (message, *message.other_faces)
    if len(crops) > max_faces:
        raise InvalidMessage(f"the message has {len(crops)} faces, and at most {max_faces} are recognised")
    width = message.width or max(1, ceil(max(crop.box.x_max for crop in crops)))
    height = message.height or max(1, ceil(max(crop.box.y_max for crop in crops)))
    return JpegFaces(
        width=width,
        height=height,
        faces=tuple(_measured(crop, width, height) for crop in crops),
        crops=tuple(_decoded(crop) for crop in crops),
        more_faces=message.more_faces,
    )


def _measured(crop: EdgeCrop, width: int, height: int) -> MeasuredFace:
    box = Box(crop.box.x_min, crop.box.y_min, crop.box.x_max, crop.box.y_max)
    if len(crop.landmarks) not in _LANDMARKS:
        raise InvalidMessage(f"face {crop.face_index} has {len(crop.landmarks)} landmarks instead of 5")
    face = DetectedFace(box, crop.probability, crop.landmarks).clipped(width, height)
    if face is None:
        raise InvalidMessage(f"the box of face {crop.face_index} is not within the frame of {width} by {height} pixels")
    factors = tuple(QualityFactor(value, reason) for value, reason in crop.factors)
    return MeasuredFace(face.box, face.probability, face.landmarks, factors)


def _decoded(crop: EdgeCrop) -> bytes:
    try:
        return base64.b64decode(crop.encoded, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidMessage(f"the crop of face {crop.face_index} is not base64: {exc}") from exc
