"""Bytes → pixels: every supported picture becomes upright 8-bit RGB, as a viewer would show it."""

import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from time import perf_counter

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.faces import JpegFaces, PictureFaces
from model.header import DAMAGED, SUPPORTED, InvalidImage, check_size, read_header
from model.metadata import without_metadata

if "HEIF" in SUPPORTED:
    from pillow_heif import register_heif_opener

    register_heif_opener()

# Pillow warns of flaws that viewers ignore. The filter is for the process, because `catch_warnings` around each call is
# not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

LARGE_PIXELS = 8_000_000  # a picture with more pixels is converted in strips
STRIP_PIXELS = 20_000  # three bytes each: one block of Pillow's raw encoder
_UPRIGHT: dict[int, Callable[[cv2.typing.MatLike], cv2.typing.MatLike]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}

# The markers and fields of an ordinary JPEG (ITU-T T.81).
_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _BASELINE, _ADOBE = 0xDA, 0xC0, 0xEE  # ITU-T T.81, table B.1; what Adobe writes may be in another colour space
_OTHER_FRAMES = frozenset(range(0xC1, 0xD0)) - {0xC4, 0xCC}  # those two are tables; progressive, lossless, arithmetic
_MARK, _RESTART = 0xFF, 0xD0  # the first of eight; a 0 after the mark makes it a pixel's
_LUMA_SAMPLINGS = {0x11, 0x21, 0x12, 0x22}  # 4:4:4, 4:2:2, 4:4:0 and 4:2:0
_SCAN_COMPONENTS = bytes((1, 2, 3))
_REDUCED = {  # OpenCV's names say "grayscale" for the bits that reduce, whatever the colours
    1: 0,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, upright.

    `pixels` are RGB, uint8 (H, W, 3), contiguous and read-only. Each stands for `reduction` by `reduction` pixels of
    the stored picture, whose upright size is `width` by `height`.
    """

    pixels: NDArray[np.uint8]
    width: int
    height: int
    reduction: int


def decode(data: bytes, max_megapixels: float = 50.0) -> NDArray[np.uint8]:
    """Return the picture in full size as RGB, uint8 (H, W, 3), contiguous and read-only, turned upright by its EXIF.

    An animation gives its first frame. Transparent parts become white, as in viewers; the colours hidden there are
    arbitrary. CMYK is converted without its colour profile. 16-bit grey is scaled to 8. The size is checked before
    decoding, so memory stays within 24 bytes per pixel of `max_megapixels`. Raises `InvalidImage` as
    `model.header.read_header`, and for a file that is cut off or damaged.
    """
    return decode_reduced(data, max_megapixels, lambda _width, _height: None).pixels


def decode_reduced(data: bytes, max_megapixels: float, min_side: Callable[[int, int], int | None]) -> Picture:
    """Return the picture as `decode` does; a JPEG at a half, a quarter or an eighth of its size if that is enough.

    `min_side` takes width and height, and returns the least length of the longer side, or None for full size. A
    smaller JPEG takes a third of the time, because libjpeg skips the frequencies that it does not need.
    """
    header = read_header(data, max_megapixels)
    file = without_metadata(data, header.format)
    width, height = header.width, header.height
    # Libjpeg's DCT scaling is the only reduction that saves time: other formats are decoded in full.
    reduction = _reduction(max(width, height), min_side(width, height)) if header.format == "JPEG" else 1
    pixels = decode_plain(file.picture, width, height, reduction) if header.format == "JPEG" else None
    if pixels is None:
        pixels, reduction = _by_pillow(file.picture, header.format, max_megapixels, reduction)
    if header.format == "HEIF":  # its decoder turns and crops
        height, width = pixels.shape[:2]
    upright = _UPRIGHT.get(file.orientation)
    if upright is not None:
        turned = np.asarray(upright(pixels), dtype=np.uint8)
        if (turned.shape[0] < turned.shape[1]) != (pixels.shape[0] < pixels.shape[1]):
            width, height = height, width
        pixels = turned
    pixels.flags.writeable = False
    return Picture(pixels, width, height, reduction)


def decode_crops(faces: JpegFaces, crop_side: int) -> PictureFaces:
    """Return the faces with their crops decoded; `timings_ms` has `decode`.

    Raises `InvalidImage` unless each crop is a JPEG of S x S pixels, S being `crop_side`; its text names the crop. No
    crop of another size is decoded.
    """
    started = perf_counter()
    crops = np.empty((len(faces.crops), crop_side, crop_side, 3), dtype=np.uint8)
    for index, crop in enumerate(faces.crops):
        try:
            header = read_header(crop)
            if (header.format, header.width, header.height) != ("JPEG", crop_side, crop_side):
                found = f"a {header.format} of {header.width} by {header.height} pixels"
                raise InvalidImage(f"it is {found}, not a JPEG of {crop_side} by {crop_side}")  # noqa: TRY301 - as the rest
            crops[index] = decode(crop)
        except InvalidImage as exc:
            raise InvalidImage(f"the crop of face {index} cannot be used: {exc}") from exc
    return PictureFaces(
        width=faces.width,
        height=faces.height,
        faces=faces.faces,
        crops=crops,
        timings_ms={"decode": (perf_counter() - started) * 1000},
        more_faces=faces.more_faces,
    )


def _reduction(side: int, min_side: int | None) -> int:
    """Return the divisor of a side, 1, 2, 4 or 8, that keeps it at least `min_side` long."""
    if min_side is None:
        return 1
    return max(by for by in (1, 2, 4, 8) if by == 1 or side // by >= min_side)


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    if picture.width * picture.height <= LARGE_PIXELS:
        return np.asarray(_rgb(picture))
    # A few rows at a time, so that a conversion's copies are small and fit one block of Pillow's encoder.
    pixels = np.empty((picture.height, picture.width, 3), dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, rows):
        bottom = min(top + rows, picture.height)
        pixels[top:bottom] = np.asarray(_rgb(picture.crop((0, top, picture.width, bottom))))
    return pixels


def _by_pillow(picture: bytes, format_name: str, most: float, reduction: int) -> tuple[NDArray[np.uint8], int]:
    """Return the pixels and their reduction, which is at most that asked for; raises as `model.header.check_size`."""
    try:
        with Image.open(BytesIO(picture), formats=[format_name]) as image:
            size = image.size
            check_size(*size, most)
            if reduction > 1:
                image.draft("RGB", (size[0] // reduction, size[1] // reduction))
                reduction = round(max(size) / max(image.size))
            image.load()
            return _pixels(image), reduction
    except (MemoryError, InvalidImage):
        raise
    except Exception as exc:  # Pillow raises errors of a dozen types for damaged files
        raise InvalidImage(DAMAGED) from exc


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        # Pillow's own conversion clips at 255, which makes a 16-bit picture white.
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        ground = Image.new("RGBA", picture.size, "white")
        ground.alpha_composite(picture)
        return ground.convert("RGB")
    return image.convert("RGB")


def decode_plain(data: bytes, width: int, height: int, reduction: int = 1) -> NDArray[np.uint8] | None:
    """Return an ordinary JPEG as stored, RGB, uint8 (height, width, 3); None for any other or damaged file.

    Width and height are those of the checked header; the result is `reduction` times smaller, rounded up.
    """
    if not _is_plain(data, width, height):
        return None
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION | _REDUCED[reduction]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error:
        return None
    return None if pixels is None else np.asarray(pixels, dtype=np.uint8)


def _is_plain(data: bytes, width: int, height: int) -> bool:
    """Return whether the markers are those of a complete ordinary JPEG of this size."""
    if not (data.startswith(_START) and data.endswith(_END)):
        return False
    frame, at = b"", len(_START)
    while data[at : at + 1] == b"\xff":
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        content = data[at + 4 : at + 2 + length]
        if marker == _SCAN:
            # All three components at once, every coefficient in full.
            whole = len(content) == 10 and content[0] == 3 and content[7:] == b"\0\x3f\0"  # noqa: PLR2004 - B.2.3
            return (
                whole
                and content[1:7:2] == _SCAN_COMPONENTS
                and _is_usual(frame, width, height)
                and _is_one_scan(data, at + 2 + length)
            )
        if length < 2 or marker == _ADOBE or marker in _OTHER_FRAMES or (marker == _BASELINE and frame):  # noqa: PLR2004
            return False
        if marker == _BASELINE:
            frame = content
        at += 2 + length
    return False


def _is_one_scan(data: bytes, start: int) -> bool:
    """Return whether only restart markers interrupt the pixels from `start` to the end of the file.

    Pillow reads on behind the pixels and rejects some files for what follows; OpenCV does not.
    """
    pixels = np.frombuffer(data, dtype=np.uint8, offset=start)
    marks = pixels[1:-1][pixels[:-2] == _MARK]
    return not ((marks != 0) & (marks & 0xF8 != _RESTART)).any()


def _is_usual(frame: bytes, width: int, height: int) -> bool:
    """Return whether a frame's header is that of 8-bit YCbCr, its colours at most halved (T.81, section B.2.2)."""
    return (
        len(frame) == 15  # noqa: PLR2004 - three components of three bytes
        and frame.startswith(struct.pack(">BHHB", 8, height, width, 3))
        and frame[6::3] == _SCAN_COMPONENTS
        and frame[7] in _LUMA_SAMPLINGS
        and frame[10] == frame[13] == 0x11  # noqa: PLR2004 - as in `_LUMA_SAMPLINGS`
    )
