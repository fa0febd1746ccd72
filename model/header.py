"""A picture's format and size from its header, in Python alone: no native code looks at an untrusted file here."""

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

MEGAPIXEL = 1_000_000

# pillow-heif decodes HEIF in the engine child; its presence is looked up, and nothing of it is loaded.
SUPPORTED = ("JPEG", "PNG", "WEBP", "HEIF") if find_spec("pillow_heif") else ("JPEG", "PNG", "WEBP")

CONTENT_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "HEIF": "image/heif"}

MAX_SIDE = 65_535
"""Pixels of a side: the limit of a JPEG. A PNG of one endless row would need gigabytes in the networks."""
MAX_SEGMENTS = 10_000
"""Segments before a JPEG's pixels. Real files have dozens, or 230 if they carry 15 MB beside the picture."""

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"

_ADVICE = f"send a {', '.join(SUPPORTED[:-1])} or {SUPPORTED[-1]} picture"
NO_PICTURE = f"the file is not a picture that can be read: {_ADVICE}"
DAMAGED = "the picture is cut off or damaged: send the complete file again"
_UNUSUAL = "the picture is stored in a way that cannot be read: save it as an ordinary JPEG or PNG, and send that"
_TOO_MANY_SEGMENTS = (
    f"the picture has more than {MAX_SEGMENTS} segments beside its pixels: save it without metadata, and send that"
)

_FOREIGN = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"\0\0\1\0": "icon",
    b"8BPS": "Photoshop",
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

# The second byte of the markers that have a length and a content (ITU-T T.81, table B.1), and of the end. The search
# for it passes over all else: fill bytes, stuffed bytes, restart marks and what does not belong there.
_MARK = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
_END, _SCAN = 0xD9, 0xDA
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # two are tables, one is reserved, 0xF7 is JPEG-LS's (T.87)
_READABLE_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}  # baseline, extended and progressive; not lossless or hierarchical
_READABLE_COMPONENTS = {1, 3, 4}


class InvalidImage(ValueError):
    """The bytes are no picture that this system accepts; the text is one sentence for the person who sent it."""


@dataclass(frozen=True)
class ImageHeader:
    """A picture's format, one of `SUPPORTED`, and its size in pixels as stored, before rotation by EXIF."""

    format: str
    width: int
    height: int


def read_header(data: bytes, max_megapixels: float = 50.0) -> ImageHeader:
    """Return the header; the picture is not decoded, so the rest of it may still be damaged.

    The size of a HEIF picture is that before it is cropped.

    Raises `InvalidImage` for an empty file, an unsupported format, and more than `max_megapixels`.
    """
    if not data:
        raise InvalidImage(f"the file is empty: {_ADVICE}")
    if data.startswith(JPEG_START):
        header = ImageHeader("JPEG", *_jpeg_size(data))
    elif data.startswith(PNG_START[:4]):
        header = ImageHeader("PNG", *_png_size(data))
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        header = ImageHeader("WEBP", *_webp_size(data))
    elif data[4:8] == b"ftyp" and "HEIF" in SUPPORTED and _foreign(data) == "HEIC":
        header = ImageHeader("HEIF", *_heif_size(data))
    elif foreign := _foreign(data):
        raise InvalidImage(f"{foreign} files are not supported: {_ADVICE}")
    else:
        raise InvalidImage(NO_PICTURE)
    check_size(header.width, header.height, max_megapixels)
    return header


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Raise `InvalidImage` for a picture without pixels, or with too many of them."""
    if min(width, height) < 1:
        raise InvalidImage(DAMAGED)
    megapixels = width * height / MEGAPIXEL
    if megapixels > max_megapixels:
        shown = f"{megapixels:.{1 if round(megapixels, 1) > max_megapixels else 6}f}"
        raise InvalidImage(
            f"the picture has {shown} megapixels and the limit is {max_megapixels:g}: send a smaller one"
        )
    if max(width, height) > MAX_SIDE:
        raise InvalidImage(f"the picture has a side of more than {MAX_SIDE} pixels: send a smaller one")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker's second byte, start and end of the content of each segment up to the first scan, or the end.

    The content of the last one may end beyond the file. Raises `InvalidImage` for more than `MAX_SEGMENTS`.
    """
    at = len(JPEG_START)
    for _ in range(MAX_SEGMENTS):
        mark = _MARK.search(data, at)
        if mark is None or mark[1][0] == _END:
            return
        start = mark.end() + 2
        at = mark.end() + max(2, int.from_bytes(data[mark.end() : start]))
        yield mark[1][0], start, at
        if mark[1][0] == _SCAN:
            return
    raise InvalidImage(_TOO_MANY_SEGMENTS)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """The first frame header has it: ITU-T T.81, section B.2.2."""
    for marker, start, end in jpeg_segments(data):
        if marker in _FRAMES:
            if end > len(data) or end - start < 6:  # noqa: PLR2004 - precision, height, width, components
                break
            precision, components = data[start], data[start + 5]
            height, width = (int.from_bytes(data[at : at + 2]) for at in (start + 1, start + 3))
            # The scan of a picture of height 0 gives the height, which no decoder here reads.
            readable = marker in _READABLE_FRAMES and components in _READABLE_COMPONENTS and height
            if precision != 8 or not readable:  # noqa: PLR2004 - bits
                raise InvalidImage(_UNUSUAL)
            return width, height
    raise InvalidImage(DAMAGED)


def _png_size(data: bytes) -> tuple[int, int]:
    """The first chunk has it: PNG, third edition, section 11.2.1."""
    if data.startswith(PNG_START) and data[12:16] == b"CgBI":
        raise InvalidImage(_UNUSUAL)  # Apple's format for applications, which others cannot decode
    intact = zlib.crc32(data[12:29]).to_bytes(4) == data[29:33]
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not data.startswith(PNG_START + b"\0\0\0\x0dIHDR") or not intact or max(width, height) >= 1 << 31:
        raise InvalidImage(DAMAGED)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """The first chunk has it: RFC 9649, sections 2.5 to 2.7; of an animation it is that of the canvas."""
    kind, content = data[12:16], data[20:30]
    if kind == b"VP8 " and len(content) == 10 and content[3:6] == b"\x9d\x01\x2a":  # noqa: PLR2004 - a key frame
        return _little(content[6:8]) & 0x3FFF, _little(content[8:10]) & 0x3FFF
    if kind == b"VP8L" and len(content) >= 5 and content[0] == 0x2F:  # noqa: PLR2004 - its signature
        bits = _little(content[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(content) == 10:  # noqa: PLR2004 - as above
        return _little(content[4:7]) + 1, _little(content[7:10]) + 1
    raise InvalidImage(DAMAGED)


def _little(number: bytes) -> int:
    return int.from_bytes(number, "little")


def _heif_size(data: bytes) -> tuple[int, int]:
    """The largest extent (`ispe`) among the properties of its items: ISO/IEC 23008-12, section 6.5.3.

    The tiles, the thumbnail and the depth map of a photo are not larger than the photo.
    """
    start, end = 0, len(data)
    for kind, skipped in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        # A file has one of each. To look into many would take seconds.
        found = (box for box in _boxes(data, start, end) if box[0] == kind)
        _, start, end = next(found, (kind, 0, 0))
        start += skipped
    extents = (start + 4 for kind, start, _ in _boxes(data, start, end) if kind == b"ispe")
    sizes = [(int.from_bytes(data[at : at + 4]), int.from_bytes(data[at + 4 : at + 8])) for at in extents]
    if not sizes:
        raise InvalidImage(DAMAGED)
    return max(sizes, key=lambda size: size[0] * size[1])


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each box in a part of a file: ISO/IEC 14496-12, section 4.2."""
    for _ in range(MAX_SEGMENTS):
        size, kind, content = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8], start + 8
        if size == 1:
            size, content = int.from_bytes(data[start + 8 : start + 16]), start + 16
        elif size == 0:
            size = end - start
        if size < content - start or start + size > end:
            return
        yield kind, content, start + size
        start += size


def _foreign(data: bytes) -> str | None:
    """Return the name of a format that is known by its first bytes."""
    if data[4:8] == b"ftyp":
        # The first brand is often a general one, so the compatible ones decide, too.
        size = min(int.from_bytes(data[:4]), 256)
        brands = {data[at : at + 4] for at in (8, *range(16, size, 4))}
        return "AVIF" if brands & _AVIF_BRANDS else "HEIC" if brands & _HEIF_BRANDS else None
    if data.startswith(b"BM") and data[6:10] == bytes(4):
        return "BMP"
    return next((name for magic, name in _FOREIGN.items() if data.startswith(magic)), None)
