"""Faces that a device sends: `EdgeFaces` checked, as a request and as what the embedder takes. Pure."""

import base64
import binascii
from math import ceil

from facerec.edge_messages import EdgeCrop, EdgeFaces
from facerec.errors import InvalidMessage
from model.faces import Box, DetectedFace, JpegFaces, MeasuredFace, QualityFactor

_LANDMARKS = (0, 5)
"""A device need not send them."""


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
