"""The small picture of a face: its size, what it shows, and that it is upright."""

from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import model.thumbnails
from model.analysis import PictureLimits, analyse
from model.faces import Box, PictureToEnrol
from model.imaging import decode
from model.thumbnails import MAX_BYTES, SIDE, thumbnail
from tests.fakes.model_engine import FakeEngine


def shown(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels of the thumbnail."""
    body = thumbnail(pixels, box)
    assert body is not None
    assert len(body) <= MAX_BYTES
    return decode(body)


def marked(width: int, height: int, box: Box) -> NDArray[np.uint8]:
    """A grey picture whose box is red."""
    pixels = np.full((height, width, 3), 128, dtype=np.uint8)
    pixels[int(max(0, box.y_min)) : int(box.y_max), int(max(0, box.x_min)) : int(box.x_max)] = (220, 30, 30)
    return pixels


def red(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where it is red."""
    return pixels[:, :, 0].astype(int) - pixels[:, :, 1] > 100


def test_thumbnail_is_a_small_square_with_a_margin() -> None:
    """The face is in its middle, its longer side five eighths of it."""
    box = Box(400, 300, 640, 600)
    pixels = shown(marked(1200, 900, box), box)
    assert pixels.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero(red(pixels))
    assert (rows.min(), rows.max()) == pytest.approx((SIDE * 3 / 16, SIDE * 13 / 16), abs=2)
    assert (columns.min() + columns.max()) / 2 == pytest.approx(SIDE / 2, abs=2)


@pytest.mark.parametrize(
    "box", [Box(-40, -30, 200, 250), Box(1000, 700, 1260, 930), Box(0, 0, 1200, 900), Box(5, 5, 9, 9)]
)
def test_thumbnail_lies_within_the_picture(box: Box) -> None:
    """Also of a face at its edge, and of one that fills it; a small face is not enlarged."""
    pixels = shown(marked(1200, 900, box), box)
    assert pixels.shape[0] == pixels.shape[1] == min(SIDE, int(1.6 * max(box.x_max - box.x_min, box.y_max - box.y_min)))
    assert red(pixels).any()


def test_noise_makes_no_large_thumbnail() -> None:
    """Its JPEG is coarser then."""
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    assert shown(noise, Box(100, 100, 200, 200)).shape == (SIDE, SIDE, 3)


def test_picture_of_one_pixel_has_a_thumbnail() -> None:
    """As every picture."""
    assert shown(np.zeros((1, 1, 3), dtype=np.uint8), Box(0, 0, 0.5, 0.5)).shape == (1, 1, 3)


def test_face_without_a_thumbnail_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If OpenCV fails."""
    monkeypatch.setattr(model.thumbnails, "SIDE", -1)
    assert thumbnail(np.zeros((9, 9, 3), dtype=np.uint8), Box(0, 0, 9, 9)) is None


def test_faces_to_enrol_alone_have_thumbnails_and_they_are_upright() -> None:
    """The picture lies on its side, with its upper half dark; EXIF says so."""
    stored = Image.new("L", (200, 90), 255)
    stored.paste(0, (0, 0, 100, 90))  # the left half is the upper one after a turn by orientation 6
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = BytesIO()
    stored.save(buffer, "JPEG", exif=exif)
    limits = PictureLimits()
    seen = analyse(FakeEngine(), buffer.getvalue(), limits)
    assert [face.thumbnail for face in seen.faces] == [None] * len(seen.faces)
    enrolled = analyse(FakeEngine(), PictureToEnrol(buffer.getvalue()), limits)
    assert (enrolled.width, len(enrolled.faces)) == (90, 9)
    for face in enrolled.faces:  # this engine finds all of them at the upper edge
        assert face.thumbnail is not None
        assert decode(face.thumbnail).mean() < 10
    assert {face.box for face in enrolled.faces} == {face.box for face in seen.faces}
