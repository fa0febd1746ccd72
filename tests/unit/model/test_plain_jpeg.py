"""OpenCV decodes the JPEGs on which it agrees with Pillow, and no others."""

import random
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import model.imaging
from model.header import InvalidImage
from model.imaging import decode, decode_plain
from model.metadata import ORIENTATION_TAG

SIZE = (61, 45)
EXIF = Image.Exif()
EXIF[ORIENTATION_TAG] = 6


def photo(size: tuple[int, int] = SIZE) -> Image.Image:
    """Return a picture with soft and hard edges in every channel."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    noise = np.random.default_rng(3).integers(0, 90, (size[1], size[0], 3))
    return Image.fromarray((np.stack([x * 4, y * 5, (x // 8 + y // 8) % 2 * 200], axis=-1) + noise).astype(np.uint8))


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    """Return a picture as a JPEG, this module's photo unless another is given."""
    stream = BytesIO()
    (image or photo()).save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels as stored."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image)


PLAIN = {
    "4:4:4": jpeg(subsampling=0),
    "4:2:2": jpeg(subsampling=1),
    "4:2:0": jpeg(subsampling=2),
    "rough": jpeg(quality=5),
    "fine": jpeg(quality=100),
    "own tables": jpeg(optimize=True),
    "restarts": jpeg(restart_marker_blocks=2),
    "one pixel": jpeg(photo((1, 1))),
    "one row": jpeg(photo((97, 1))),
    "one column": jpeg(photo((1, 97))),
    "whole blocks": jpeg(photo((64, 64))),
    "comments and profiles": jpeg(comment=b"hello", icc_profile=b"profile" * 20_000, exif=EXIF, dpi=(72, 72)),
}

OTHERS = {
    "grey": jpeg(photo().convert("L")),
    "CMYK": jpeg(photo().convert("CMYK")),
    "progressive": jpeg(progressive=True),
    "RGB": jpeg(keep_rgb=True),
    "Adobe": jpeg().replace(b"\xff\xdb", b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x01\xff\xdb", 1),
    "arithmetic": jpeg().replace(b"\xff\xc0", b"\xff\xc9", 1),
    "extended": jpeg().replace(b"\xff\xc0", b"\xff\xc1", 1),
    "other components": jpeg().replace(
        b"\x01\x22\x00\x02\x11\x01\x03\x11\x01", b"\x00\x22\x00\x01\x11\x01\x02\x11\x01"
    ),
    "something behind it": jpeg() + b"\0",
    "no end": jpeg()[:-2],
    "cut off": jpeg()[:-200] + b"\xff\xd9",
    "two scans": jpeg()[:-2] + jpeg()[jpeg().index(b"\xff\xda") :],
    "no scan": jpeg()[: jpeg().index(b"\xff\xda")] + b"\xff\xd9",
    "no markers": b"\xff\xd8 what is this \xff\xd9",
    "endless segment": b"\xff\xd8\xff\xe0\0\0" + jpeg()[2:],
    "a PNG": b"\x89PNG\r\n\x1a\n\xff\xd9",
    "nothing": b"",
}
TAKEN_THOUGH_CUT_OFF = {"cut off"}
"""A picture that ends too early with the mark of an end: Pillow shows it, and so do we."""


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_jpeg_has_the_pixels_of_pillow(kind: str) -> None:
    """To the last bit, as stored."""
    pixels = decode_plain(PLAIN[kind], *by_pillow(PLAIN[kind]).shape[1::-1])
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(PLAIN[kind]))


@pytest.mark.parametrize("kind", sorted(OTHERS.keys() - TAKEN_THOUGH_CUT_OFF))
def test_other_pictures_are_left_to_pillow(kind: str) -> None:
    """Every kind of JPEG that is not ordinary."""
    assert decode_plain(OTHERS[kind], *SIZE) is None


def test_plain_jpeg_must_have_the_size_of_the_header() -> None:
    """Plain jpeg must have the size of the header."""
    assert decode_plain(jpeg(), *SIZE) is not None
    assert decode_plain(jpeg(), SIZE[1], SIZE[0]) is None


def outcome(data: bytes) -> NDArray[np.uint8] | str:
    """Return the picture, or why it is refused."""
    try:
        return decode(data)
    except InvalidImage as exc:
        return str(exc)


@pytest.fixture
def pillows(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], NDArray[np.uint8] | str]:
    """What becomes of a file where Pillow alone decodes."""

    def alone(data: bytes) -> NDArray[np.uint8] | str:
        with monkeypatch.context() as patch:
            patch.setattr(model.imaging, "decode_plain", lambda *_: None)
            return outcome(data)

    return alone


@pytest.mark.parametrize("turn", range(1, 9))
def test_turned_picture_has_the_pixels_of_pillow(
    turn: int, pillows: Callable[[bytes], NDArray[np.uint8] | str]
) -> None:
    """For every orientation, contiguous and read-only."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = turn
    data = jpeg(exif=exif)
    pixels = decode(data)
    assert np.array_equal(pixels, pillows(data))
    assert pixels.flags.c_contiguous
    assert not pixels.flags.writeable


def test_damaged_picture_is_treated_as_by_pillow(pillows: Callable[[bytes], NDArray[np.uint8] | str]) -> None:
    """Refused with the same words, or the same pixels."""
    rng = random.Random(8)  # noqa: S311 - repeatable, not secret
    files = [*PLAIN.values()] * 3 + [*OTHERS.values()]
    by_opencv = 0
    for _ in range(1500):
        data = bytearray(rng.choice(files))
        for _ in range(rng.choice((1, 2, 5))):
            at, length = rng.randrange(len(data) + 1), rng.choice((1, 1, 8, 100))
            damage = rng.choice((rng.randbytes(length), b"", bytes(data[:at][-length:]) * 2, b"\xff\xda", b"\xff\xd9"))
            data[at : at + length] = damage
        if rng.random() < 0.5:
            data += b"\xff\xd9"
        file = bytes(data)
        by_opencv += decode_plain(file, *SIZE) is not None
        ours, theirs = outcome(file), pillows(file)
        assert type(ours) is type(theirs)
        assert np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours == theirs
    assert by_opencv > 50  # the comparison sees both
