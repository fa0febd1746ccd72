"""Bytes → pixels: every kind of picture that a person may send becomes upright 8-bit RGB, as a viewer would show it."""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from model.header import DAMAGED, InvalidImage, opened
from model.plain_jpeg import decode_plain

LARGE_PIXELS = 8_000_000
STRIP_PIXELS = 20_000  # three bytes each: one block of Pillow's raw encoder

ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
_UPRIGHT: dict[int, Callable[[cv2.typing.MatLike], cv2.typing.MatLike]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright.

    `pixels` are RGB, uint8 (H, W, 3), contiguous and read-only, each standing for `reduction` by `reduction` pixels of
    the picture itself, whose size is `width` by `height`.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    reduction: int


def decode(data: bytes, max_megapixels: float = 50.0) -> NDArray[np.uint8]:
    """Return the picture in full size as RGB, uint8 (H, W, 3), contiguous and read-only, turned upright by its EXIF.

    Of an animation the first frame counts. Transparent parts show white, the ground that viewers put behind them (the
    colours hidden there are arbitrary). CMYK is converted without its colour profile. 16-bit grey is scaled to 8.
    Memory stays within 24 bytes a pixel of `max_megapixels`, because the size is checked before anything is decoded.
    Raises `InvalidImage` as `model.header.read_header`, and for a file that is cut off or damaged.
    """
    return decode_reduced(data, max_megapixels, lambda _width, _height: None).pixels


def decode_reduced(data: bytes, max_megapixels: float, least_side: Callable[[int, int], int | None]) -> Picture:
    """Return the picture as `decode` does, a JPEG at a half, a quarter or an eighth of its size where that is enough.

    `least_side` takes width and height, and returns how long the longer side must stay, or None for full size. A
    smaller JPEG costs a third of the time, because libjpeg leaves out the frequencies that it does not need.
    """
    with opened(BytesIO(data), max_megapixels) as image:
        width, height = image.size
        # Libjpeg's DCT scaling is the only reduction that saves time: other formats are decoded in full.
        reduction = _reduction(max(width, height), least_side(width, height)) if image.format == "JPEG" else 1
        pixels = decode_plain(data, width, height, reduction) if image.format == "JPEG" else None
        if pixels is None:
            if reduction > 1:
                image.draft("RGB", (width // reduction, height // reduction))
                reduction = round(max(width, height) / max(image.size))
            pixels = _loaded(image)
        upright = _upright(image)
    del image  # it holds the picture once more, and some decoders several times
    if upright is not None:
        turned = np.asarray(upright(pixels), dtype=np.uint8)
        if (turned.shape[0] < turned.shape[1]) != (pixels.shape[0] < pixels.shape[1]):
            width, height = height, width
        pixels = turned
    pixels.flags.writeable = False
    return Picture(pixels, width, height, reduction)


def _reduction(side: int, least_side: int | None) -> int:
    """Return by how much a side may be divided, 1, 2, 4 or 8, so that it stays at least as long as asked for."""
    if least_side is None:
        return 1
    return max(by for by in (1, 2, 4, 8) if by == 1 or side // by >= least_side)


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.width * picture.height <= LARGE_PIXELS:
        return np.asarray(_rgb(picture))
    # Of a few rows at a time, a conversion's copies are small, and Pillow hands over at once what fits its block.
    pixels = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        pixels[top:bottom] = np.asarray(_rgb(picture.crop((0, top, picture.width, bottom))))
    return pixels


def _loaded(image: ImageFile) -> NDArray[np.uint8]:
    try:
        image.load()
        return _pixels(image)
    except MemoryError:
        raise
    except Exception as exc:  # Pillow raises a dozen types at damaged bytes; here each means the same
        raise InvalidImage(DAMAGED) from exc


def _upright(image: ImageFile) -> Callable[[cv2.typing.MatLike], cv2.typing.MatLike] | None:
    """Return what turns the stored picture as its EXIF says, or nothing where it says nothing."""
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
