"""The message about a frame's faces, with their crops as JPEG, made to fit into one message of AWS IoT Core. Pure."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import Image

from facerec.edge.frame import Frame
from facerec.edge_messages import EdgeCrop, EdgeFaces
from facerec.errors import Refused
from facerec.faces_message import CHANNELS, unpack
from facerec.messages import ResultBox
from model.faces import MeasuredFace, PackedFaces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_QUALITY_STEP = 2
_PIXEL_DIGITS, _RATIO_DIGITS = 2, 4
"""Digits behind the point: of a coordinate in pixels, and of a probability or a factor."""
_COMMA = 1


def edge_faces(
    picture: PackedFaces,
    frame: Frame,
    *,
    thing: str,
    model_id: str,
    results: bool,
    quality: int,
    min_quality: int,
    max_bytes: int,
) -> bytes:
    """Return `EdgeFaces` as JSON for a frame with at least one face; raises `Refused` if not even one face fits.

    `model_id` is the detector's; the other keywords are those of `EdgeSettings`. The JPEG quality is the highest at
    which all faces fit. If they do not fit at the lowest one, the smallest faces are left out and counted in
    `more_faces`; the primary face is kept. The timings are those of `picture`.
    """
    crops = unpack(picture.crops, (len(picture.faces), picture.crop_side, picture.crop_side, CHANNELS))

    def message(faces: list[EdgeCrop]) -> bytes:
        return (
            EdgeFaces(
                **dict(faces[0]),
                request_id=frame.request_id,
                filename=frame.filename,
                thing=thing,
                captured_at=frame.captured_at,
                model_id=model_id,
                width=picture.width,
                height=picture.height,
                other_faces=tuple(faces[1:]),
                more_faces=picture.more_faces + len(picture.faces) - len(faces),
                results=results,
                timings_ms={stage: round(ms, _PIXEL_DIGITS) for stage, ms in picture.timings_ms.items()},
            )
            .to_json()
            .encode("ascii")
        )

    for each_quality in (*range(quality, min_quality, -_QUALITY_STEP), min_quality):
        encoded = [
            _edge_crop(index, face, crop, each_quality)
            for index, (face, crop) in enumerate(zip(picture.faces, crops, strict=True))
        ]
        sizes = [len(each.to_json()) + _COMMA for each in encoded]
        room = max_bytes - len(message(encoded[:1]))
        if sum(sizes[1:]) <= room:
            return message(encoded)
    if room < 0:
        raise Refused(
            f"the message about {frame.filename!r} has {max_bytes - room} bytes with its primary face alone, and "
            f"{max_bytes} are allowed: set FACEREC_EDGE__MIN_JPEG_QUALITY lower"
        )
    kept = {0}
    for index in sorted(range(1, len(encoded)), key=lambda index: picture.faces[index].box.area, reverse=True):
        room -= sizes[index]
        if room < 0:
            break
        kept.add(index)
    return message([encoded[index] for index in sorted(kept)])


def _edge_crop(index: int, face: MeasuredFace, crop: "NDArray[np.uint8]", quality: int) -> EdgeCrop:
    corners = (
        round(value, _PIXEL_DIGITS) for value in (face.box.x_min, face.box.y_min, face.box.x_max, face.box.y_max)
    )
    x_min, y_min, x_max, y_max = corners
    return EdgeCrop(
        face_index=index,
        box=ResultBox(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
        encoded=base64.b64encode(jpeg_crop(crop, quality)).decode("ascii"),
        probability=round(face.probability, _RATIO_DIGITS),
        landmarks=tuple((round(x, _PIXEL_DIGITS), round(y, _PIXEL_DIGITS)) for x, y in face.landmarks),
        factors=tuple((round(factor.value, _RATIO_DIGITS), factor.reason) for factor in face.factors),
    )


def jpeg_crop(crop: "NDArray[np.uint8]", quality: int) -> bytes:
    """Return a crop (S, S, 3) as JPEG, with a colour for each pixel: halved, they would cost the embedding more."""
    stream = BytesIO()
    Image.fromarray(crop).save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    return stream.getvalue()
