"""Faces as a message: everything survives it bit by bit, and nonsense from the queue is refused."""

import base64
import json
import tracemalloc
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from facerec.errors import InvalidMessage
from facerec.faces_message import faces_message, pack, packed_crops, packed_faces, picture_faces, unpack
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, RecognitionRequest
from model.faces import Box, MeasuredFace, PictureFaces, QualityFactor

SIDE = 8
REQUEST = RecognitionRequest(
    request_id=uuid4(),
    input=ObjectRef(bucket="in", key="1/a.jpg", size=5),
    filename="a.jpg",
    submitted_at=datetime(2026, 11, 1, tzinfo=UTC),
)

pixels = st.floats(-1e6, 1e6)
factors = st.builds(QualityFactor, st.floats(0, 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
measured = st.builds(
    MeasuredFace,
    box=st.builds(Box, pixels, pixels, pixels, pixels),
    probability=st.floats(0, 1),
    landmarks=st.lists(st.tuples(pixels, pixels), min_size=5, max_size=5).map(tuple),
    factors=st.lists(factors, max_size=8).map(tuple),
)


def crops_of(count: int) -> NDArray[np.uint8]:
    """Noise, the hardest to compress."""
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def picture(count: int = 2) -> PictureFaces:
    """A picture with so many faces."""
    face = MeasuredFace(Box(1, 2, 3, 4), 0.9, ((1.0, 2.0),) * 5, (QualityFactor(1 / 3, "blurred"),))
    return PictureFaces(40, 30, (face,) * count, crops_of(count), {"decode": 1.0}, more_faces=3)


def message_of(faces: PictureFaces) -> FacesMessage:
    """The message as it is sent."""
    return faces_message(REQUEST, packed_faces(faces), "model-1", {"decode": 1.25, "fetch": 2.5})


def received(body: str | dict[str, Any], *, max_faces: int = 5) -> PictureFaces:
    """The faces of a message as the other half reads it."""
    message = FacesMessage.parse(body)
    packed = packed_crops(message)
    assert packed is not None
    return picture_faces(message, packed, crop_side=SIDE, max_faces=max_faces)


@given(st.lists(measured, min_size=1, max_size=5))
def test_faces_survive_the_message_exactly(faces: list[MeasuredFace]) -> None:
    """Every float of them; the times are the request's and stay in the message."""
    sent = replace(picture(len(faces)), faces=tuple(faces))
    body = message_of(sent).to_json()
    back = received(body)
    assert (back.width, back.height, back.more_faces) == (40, 30, 3)
    assert back.faces == sent.faces
    assert np.array_equal(back.crops, sent.crops)
    assert back.timings_ms == {}
    message = FacesMessage.parse(body)
    assert (message.request, message.model_id) == (REQUEST, "model-1")
    assert message.timings_ms == {"decode": 1.25, "fetch": 2.5}


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_unpacked_crops_are_those_packed(crops: NDArray[np.uint8]) -> None:
    """The differences wrap around at 256, there and back."""
    assert np.array_equal(unpack(pack(crops), crops.shape), crops)


def changed(**changes: Any) -> dict[str, Any]:
    """A message of two faces with other fields."""
    plain: dict[str, Any] = json.loads(message_of(picture()).to_json())
    return plain | changes


def deflated(content: bytes) -> str:
    """Bytes as a message has them."""
    return base64.b64encode(zlib.compress(content)).decode()


WHOLE = pack(crops_of(2))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"crops": "no base64!"}, "not base64"),
        ({"crops": "ä"}, "not base64"),
        ({"crops": base64.b64encode(b"no zlib").decode()}, "damaged"),
        ({"crops": ""}, "not 2 times 8 by 8"),
        ({"crops": base64.b64encode(WHOLE[:-5]).decode()}, "not 2 times 8 by 8"),
        ({"crops": base64.b64encode(WHOLE + b"more").decode()}, "not 2 times 8 by 8"),
        ({"crops": deflated(bytes(2 * SIDE * SIDE * 3 - 1))}, "not 2 times 8 by 8"),
        ({"crops": deflated(bytes(2 * SIDE * SIDE * 3 + 1))}, "not 2 times 8 by 8"),
        ({"crop_side": 16}, "16 pixels a side, and the model's 8"),
        ({"crop_side": 0}, "crop_side"),
        ({"faces": []}, "faces"),
        ({"faces": changed()["faces"] * 3}, "6 faces, and at most 5"),
        ({"crops": None}, "either"),
        ({"crops_object": {"bucket": "in", "key": "k", "size": 1}}, "either"),
        ({"width": 0}, "width"),
        ({"more_faces": -1}, "more_faces"),
        ({"timings_ms": {"decode": float("nan")}}, "timings_ms"),
        ({"version": 99}, "version"),
        ({"request": {"version": 1}}, "request"),
        ({"model_id": None}, "model_id"),
    ],
)
def test_nonsense_is_an_invalid_message(changes: dict[str, Any], reason: str) -> None:
    """With a reason for the dead-letter queue."""
    with pytest.raises(InvalidMessage, match=reason):
        received(changed(**changes))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("box", {"x_min": float("inf"), "y_min": 0.0, "x_max": 1.0, "y_max": 1.0}),
        ("probability", float("nan")),
        ("probability", 1.5),
        ("landmarks", [[0.0, float("-inf")]]),
        ("factors", [[1.1, "too good"]]),
        ("factors", [[float("nan"), "blurred"]]),
    ],
)
@pytest.mark.parametrize("encode", [lambda plain: plain, json.dumps])
def test_numbers_of_a_face_are_finite_and_in_range(field: str, value: object, encode: Any) -> None:
    """In decoded JSON and in its text, which Python writes with NaN and Infinity."""
    plain = changed()
    plain["faces"][0][field] = value
    with pytest.raises(InvalidMessage, match=field):
        received(encode(plain))


def test_bomb_takes_no_memory() -> None:
    """Some kilobytes that unpack to 64 MB are cut off at the size of the crops."""
    deflater = zlib.compressobj(9)
    bomb = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(64)) + deflater.flush()
    body = changed(crops=base64.b64encode(bomb).decode())
    tracemalloc.start()
    try:
        with pytest.raises(InvalidMessage, match="not 2 times 8 by 8"):
            received(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(bomb) + 100_000


def test_crops_in_an_object_are_not_in_the_message() -> None:
    """The caller fetches them."""
    message = FacesMessage.parse(changed(crops=None, crops_object={"bucket": "in", "key": "k", "size": 1}))
    assert packed_crops(message) is None
    faces = picture_faces(message, pack(crops_of(2)), crop_side=SIDE, max_faces=5)
    assert np.array_equal(faces.crops, crops_of(2))
