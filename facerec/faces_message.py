"""`FacesMessage` to and from `model.faces.PictureFaces`; what comes from the queue is checked here.

numpy is imported by the functions that need it: the engine's child packs the crops, and the process that sends them on
starts without it.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from facerec.errors import InvalidMessage
from facerec.messages import FacesMessage, FaceToEmbed, RecognitionRequest, ResultBox
from model.faces import Box, MeasuredFace, PackedFaces, PictureFaces, QualityFactor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ROWS, _COLUMNS = 1, 2
"""The axes of an array of crops."""
CHANNELS = 3
_FASTEST = 1
"""Higher levels of zlib gain nothing on photos."""


def packed_faces(picture: PictureFaces) -> PackedFaces:
    """Return the picture with its crops packed."""
    return PackedFaces(
        width=picture.width,
        height=picture.height,
        faces=picture.faces,
        crop_side=picture.crops.shape[_ROWS],
        crops=pack(picture.crops),
        timings_ms=picture.timings_ms,
        more_faces=picture.more_faces,
    )


def first_faces(picture: PackedFaces, most: int) -> PackedFaces:
    """Return the picture with no more than so many faces, the primary one first; `more_faces` counts the others."""
    return chosen_faces(picture, range(min(most, len(picture.faces))))


def chosen_faces(picture: PackedFaces, indices: Sequence[int]) -> PackedFaces:
    """Return the picture with the faces of these indices, which ascend; `more_faces` counts the others."""
    left_out = len(picture.faces) - len(indices)
    if not left_out:
        return picture
    size = picture.crop_side**2 * CHANNELS
    crops = zlib.decompress(picture.crops)  # each crop is packed on its own
    chosen = b"".join(crops[index * size : (index + 1) * size] for index in indices)
    return replace(
        picture,
        faces=tuple(picture.faces[index] for index in indices),
        crops=zlib.compress(chosen, _FASTEST),
        more_faces=picture.more_faces + left_out,
    )


def faces_message(
    request: RecognitionRequest, picture: PackedFaces, model_id: str, timings_ms: Mapping[str, float]
) -> FacesMessage:
    """Return the message about a picture with faces, with its packed crops in it."""
    return FacesMessage(
        request=request,
        model_id=model_id,
        width=picture.width,
        height=picture.height,
        faces=tuple(
            FaceToEmbed(
                box=ResultBox(x_min=face.box.x_min, y_min=face.box.y_min, x_max=face.box.x_max, y_max=face.box.y_max),
                probability=face.probability,
                landmarks=face.landmarks,
                factors=face.factors,
            )
            for face in picture.faces
        ),
        more_faces=picture.more_faces,
        crop_side=picture.crop_side,
        crops=base64.b64encode(picture.crops).decode("ascii"),
        timings_ms=dict(timings_ms),
    )


def packed_crops(message: FacesMessage) -> bytes | None:
    """Return the packed crops, or `None` if they are in an object; raises `InvalidMessage`."""
    if message.crops is None:
        return None
    try:
        return base64.b64decode(message.crops, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidMessage(f"the crops are not base64: {exc}") from exc


def picture_faces(message: FacesMessage, packed: bytes, *, crop_side: int, max_faces: int) -> PictureFaces:
    """Return the faces with their crops; `timings_ms` is empty. Raises `InvalidMessage`.

    `crop_side` is the model's. No more than the crops of `max_faces` faces are unpacked.
    """
    if message.crop_side != crop_side:
        raise InvalidMessage(f"the crops have {message.crop_side} pixels a side, and the model's {crop_side}")
    if len(message.faces) > max_faces:
        raise InvalidMessage(f"the message has {len(message.faces)} faces, and at most {max_faces} are recognised")
    return PictureFaces(
        width=message.width,
        height=message.height,
        faces=tuple(_measured(face) for face in message.faces),
        crops=unpack(packed, (len(message.faces), crop_side, crop_side, CHANNELS)),
        timings_ms={},
        more_faces=message.more_faces,
    )


def pack(crops: "NDArray[np.uint8]") -> bytes:
    """Return crops (N, S, S, 3) compressed without loss.

    The differences between neighbours, modulo 256, take 58 % of the pixels' size; the pixels themselves take 90 %.
    """
    import numpy as np

    zero = np.uint8(0)
    differences = np.diff(np.diff(crops, axis=_ROWS, prepend=zero), axis=_COLUMNS, prepend=zero)
    return zlib.compress(differences.tobytes(), _FASTEST)


def unpack(packed: bytes, shape: tuple[int, int, int, int]) -> "NDArray[np.uint8]":
    """Return the crops that `pack` was given; raises `InvalidMessage` if they have another size or are damaged."""
    import numpy as np

    size = prod(shape)
    inflater = zlib.decompressobj()
    try:
        content = inflater.decompress(packed, size + 1)  # one more byte tells that there are too many
    except zlib.error as exc:
        raise InvalidMessage(f"the crops are damaged: {exc}") from exc
    if len(content) != size or not inflater.eof or inflater.unused_data:
        raise InvalidMessage(f"the crops are not {shape[0]} times {shape[1]} by {shape[2]} pixels")
    differences = np.frombuffer(content, dtype=np.uint8).reshape(shape)
    return differences.cumsum(axis=_COLUMNS, dtype=np.uint8).cumsum(axis=_ROWS, dtype=np.uint8)


def _measured(face: FaceToEmbed) -> MeasuredFace:
    box = face.box
    return MeasuredFace(
        Box(box.x_min, box.y_min, box.x_max, box.y_max),
        face.probability,
        face.landmarks,
        tuple(QualityFactor(value, reason) for value, reason in face.factors),
    )
