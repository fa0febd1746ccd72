"""The message about a frame's faces: every face at the best quality that fits, then fewer faces, then none."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from facerec.edge.crops import edge_faces
from facerec.edge.frame import Frame
from facerec.edge_messages import EdgeCrop, EdgeFaces
from facerec.errors import Refused
from facerec.faces_message import packed_faces
from model.faces import Box, JpegFaces, MeasuredFace, PackedFaces, PictureFaces, QualityFactor
from model.imaging import decode_crops

SIDE = 112
FRAME = Frame(uuid4(), "door 1.jpg", b"", datetime(2026, 11, 1, 12, tzinfo=UTC))


def picture(areas: list[int], noise: float = 0.0) -> PackedFaces:
    """Faces of these areas, in their order; with noise, crops that JPEG compresses badly."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    smooth = np.stack([x, y, 200 - x], axis=-1)
    random = np.random.default_rng(1).integers(0, 256, (len(areas), SIDE, SIDE, 3))
    crops = (smooth * (1 - noise) + random * noise).astype(np.uint8)
    faces = tuple(
        MeasuredFace(Box(0.123456, 0, area, 1), 0.987654321, ((1 / 3, 2 / 3),) * 5, (QualityFactor(1 / 3, "blurred"),))
        for area in areas
    )
    return packed_faces(PictureFaces(640, 480, faces, crops, {"detect": 12.34567}, more_faces=2))


def message_of(faces: PackedFaces, **options: Any) -> EdgeFaces:
    """The message as the cloud reads it, which is never larger than allowed."""
    chosen = {"quality": 95, "min_quality": 90, "max_bytes": 128 * 1024} | options
    body = edge_faces(faces, FRAME, thing="door-1", model_id="model-1", results=True, **chosen)
    assert len(body) <= chosen["max_bytes"]
    return EdgeFaces.parse(body)


def all_faces(message: EdgeFaces) -> list[EdgeCrop]:
    """The primary face and the others."""
    return [message, *message.other_faces]


def quality_of(face: EdgeCrop) -> int:
    """The quality, by the first entry of the table: libjpeg's is 16 at 50, and scales by 2 - quality / 50 above it."""
    with Image.open(BytesIO(base64.b64decode(face.encoded))) as image:
        assert image.layer[1][1:3] == (1, 1), "the colours are not halved"  # type: ignore[attr-defined]
        table = image.quantization[0]  # type: ignore[attr-defined]
    expected = {quality: max(1, int(16 * (2 - quality / 50) + 0.5)) for quality in range(50, 101)}
    return max(quality for quality, first in expected.items() if first == table[0])


def test_message_has_all_that_the_cloud_needs() -> None:
    """Coordinates to a hundredth of a pixel: more digits would take as much room as a tenth of the crop."""
    message = message_of(picture([50, 40]))
    assert (message.request_id, message.filename, message.captured_at) == (
        FRAME.request_id,
        FRAME.filename,
        FRAME.captured_at,
    )
    assert (message.thing, message.model_id, message.results) == ("door-1", "model-1", True)
    assert (message.width, message.height, message.more_faces) == (640, 480, 2)
    assert message.timings_ms == {"detect": 12.35}
    for index, face in enumerate(all_faces(message)):
        assert (face.face_index, face.probability, face.factors) == (index, 0.9877, ((0.3333, "blurred"),))
        assert face.landmarks == ((0.33, 0.67),) * 5
        assert (face.box.x_min, face.box.x_max) == (0.12, [50, 40][index])


def test_crops_are_those_of_the_detector() -> None:
    """But for the loss of JPEG."""
    sent = picture([50, 40])
    crops = tuple(base64.b64decode(face.encoded) for face in all_faces(message_of(sent)))
    back = decode_crops(JpegFaces(640, 480, sent.faces, crops), SIDE).crops
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    assert np.abs(back.astype(int) - np.stack([x, y, 200 - x], axis=-1)).mean() < 2


def test_faces_that_fit_have_the_first_quality() -> None:
    """The lowest quality is for those that do not fit."""
    assert {quality_of(face) for face in all_faces(message_of(picture([50, 40])))} == {quality_of(first(100, 95))}


def first(side: int, quality: int) -> EdgeCrop:
    """A face of its own at a quality."""
    return message_of(picture([side]), quality=quality, min_quality=quality)


def test_quality_goes_down_until_all_faces_fit() -> None:
    """No face is left out while a lower quality helps; between the two qualities there are others."""
    noisy = picture([50, 40, 30], noise=0.3)
    sizes = {q: len(message_of(noisy, quality=q, min_quality=q).to_json()) for q in (95, 93, 90)}
    for quality in (95, 93, 90):
        message = message_of(noisy, max_bytes=sizes[quality] + 10)
        assert len(all_faces(message)) == 3
        assert {quality_of(face) for face in all_faces(message)} == {quality_of(first(50, quality))}


def test_smallest_faces_are_left_out_if_the_lowest_quality_does_not_help() -> None:
    """They are counted; the primary face stays, whatever its size, and the order of the others, too."""
    noisy = picture([30, 90, 40, 10, 80], noise=0.3)
    whole = len(message_of(noisy, quality=90).to_json())
    message = message_of(noisy, max_bytes=whole * 9 // 10)
    assert [face.box.x_max for face in all_faces(message)] == [30, 90, 40, 80]
    assert [face.face_index for face in all_faces(message)] == [0, 1, 2, 4]
    assert message.more_faces == 2 + 1
    message = message_of(noisy, max_bytes=whole // 2)
    assert [face.box.x_max for face in all_faces(message)] == [30, 90]
    assert message.more_faces == 2 + 3


def test_primary_face_that_does_not_fit_is_refused() -> None:
    """With the size and the setting that helps."""
    with pytest.raises(Refused, match=r"with its primary face alone, and 2000 are allowed: set FACEREC_EDGE__MIN_JPEG"):
        message_of(picture([50], noise=0.5), max_bytes=2000)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=20), st.integers(6_000, 60_000))
def test_message_never_exceeds_its_limit_and_counts_every_face(areas: list[int], max_bytes: int) -> None:
    """Whatever the number of faces, and the room."""
    message = message_of(replace(picture(areas), more_faces=0), max_bytes=max_bytes)
    assert len(all_faces(message)) + message.more_faces == len(areas)
