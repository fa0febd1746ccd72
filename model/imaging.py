"""Bytes → pixels: every kind of picture that a person may send becomes upright 8-bit RGB, as a viewer would show it."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from model.header import DAMAGED, InvalidImage, opened
from model.plain_jpeg import decode_plain

LARGE_PIXELS = 8_000_000
STRIP_PIXELS = 20_000  # three bytes each: one block of Pillow's raw encoder

ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, max_megapixels: float = 50.0) -> NDArray[np.uint8]:
    """Return the picture as RGB, uint8 (H, W, 3), contiguous and read-only, turned upright by its EXIF orientation.

    Of an animation the first frame counts. Transparent parts show white, the ground that viewers put behind them (the
    colours hidden there are arbitrary). CMYK is converted without its colour profile. 16-bit grey is scaled to 8.
    Memory stays within 24 bytes a pixel of `max_megapixels`, because the size is checked before anything is decoded.
    Raises `InvalidImage` as `model.header.read_header`, and for a file that is cut off or damaged.
    """
    with opened(BytesIO(data), max_megapixels) as image:
        plain = decode_plain(data, *image.size) if image.format == "JPEG" else None
        if plain is None:
            picture, turn = _loaded(image)
        elif (turn := _turn(image)) is not None:
            picture = Image.fromarray(plain)
        else:
            plain.flags.writeable = False
            return plain
    return _pixels(picture if turn is None else picture.transpose(turn))


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.width * picture.height <= LARGE_PIXELS:
        return np.asarray(picture)
    # Pillow would hold what it hands over twice more meanwhile; what fits one of its blocks it hands over at once.
    pixels = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, picture.width, bottom)))
    pixels.flags.writeable = False
    return pixels


def _loaded(image: ImageFile) -> tuple[Image.Image, Image.Transpose | None]:
    try:
        image.load()
        return _rgb(image), _turn(image)
    except MemoryError:
        raise
    except Exception as exc:  # Pillow raises a dozen types at damaged bytes; here each means the same
        raise InvalidImage(DAMAGED) from exc


def _turn(image: ImageFile) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(int(image.getexif().get(ORIENTATION_TAG, 1)))
    except Exception:  # noqa: BLE001 - unreadable EXIF of any kind: viewers show such a picture as stored
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which turns a 16-bit picture white.
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        return ground.convert("RGB")
    return image.convert("RGB")
