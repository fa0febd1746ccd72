"""A picture's format and size from its header, without decoding it; imports only Pillow, not numpy."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, cast

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

MEGAPIXEL = 1_000_000

# Importing these plugins registers their formats, so that Pillow does not load its other forty to open a file.
_FORMATS = tuple(
    str(plugin.format)
    for plugin in (JpegImagePlugin.JpegImageFile, PngImagePlugin.PngImageFile, WebPImagePlugin.WebPImageFile)
)
try:
    from pillow_heif import register_heif_opener
except ImportError:
    SUPPORTED = _FORMATS
else:
    register_heif_opener()
    SUPPORTED = (*_FORMATS, "HEIF")

# Pillow warns of sizes, which are checked here, and of flaws that viewers ignore. The filter is for the process,
# because `catch_warnings` around each call is not thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")

_ADVICE = f"send a {', '.join(SUPPORTED[:-1])} or {SUPPORTED[-1]} picture"
_FOREIGN = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"\0\0\1\0": "icon",
    b"8BPS": "Photoshop",
}
_FOREIGN_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC"}

MAX_SIDE = 65_535
"""Pixels of a side: the limit of a JPEG. A PNG of one endless row would need gigabytes in the networks."""
MAX_READS = 10_000
"""Reads of a header: each segment takes a few, and real files have dozens. Millions would take Pillow seconds."""
MAX_TEXT = 2_000_000
"""Characters of a PNG's comments together: four bytes each in memory, a few bits each in a file.

Descriptions written by programs (XMP, a drawing's history) have at most some hundreds of kilobytes.
"""
MAX_PACKED = 50
"""Compressed comments of a PNG; Pillow inflates up to a megabyte of each, in 2 ms. Real files have a handful."""

PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT

DAMAGED = "the picture is cut off or damaged: send the complete file again"


class InvalidImage(ValueError):
    """The bytes are no picture that this system accepts; the text is one sentence for the person who sent it."""


@dataclass(frozen=True)
class ImageHeader:
    """A picture's format, one of `SUPPORTED`, and its size in pixels as stored, before rotation by EXIF."""

    format: str
    width: int
    height: int


def read_header(data: bytes | BinaryIO, max_megapixels: float = 50.0) -> ImageHeader:
    """Return the header; the picture is not decoded, so the rest of it may still be damaged.

    A seekable stream is left at its start. Raises `InvalidImage` for an empty file, an unsupported format, and more
    than `max_megapixels`.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    with opened(stream, max_megapixels) as image:
        header = ImageHeader(_format(image), image.width, image.height)
    stream.seek(0)
    return header


@contextmanager
def opened(stream: BinaryIO, max_megapixels: float) -> Iterator[ImageFile]:
    """Yield the picture with its header checked and its pixels unread; raises `InvalidImage` as `read_header`."""
    stream.seek(0)
    start = stream.read(16)
    if not start:
        raise InvalidImage(f"the file is empty: {_ADVICE}")
    _check_chunks(stream, start)
    counted = _Counted(stream)
    try:
        image = Image.open(cast("BinaryIO", counted), formats=SUPPORTED)
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as exc:
        raise InvalidImage(f"the picture has more than {max_megapixels:g} megapixels: send a smaller one") from exc
    except Exception as exc:  # Pillow raises errors of a dozen types for damaged files
        raise InvalidImage(_refusal(start)) from exc
    counted.reads_left = None  # decoding may read without a limit
    with image:
        megapixels = image.width * image.height / MEGAPIXEL
        if megapixels > max_megapixels:
            raise InvalidImage(
                f"the picture has {megapixels:.1f} megapixels and the limit is {max_megapixels:g}: send a smaller one"
            )
        if max(image.size) > MAX_SIDE:
            raise InvalidImage(f"the picture has a side of more than {MAX_SIDE} pixels: send a smaller one")
        yield image


class _Counted:
    """A stream with a limited number of reads; None in `reads_left` lifts the limit."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.reads_left: int | None = MAX_READS

    def read(self, size: int = -1) -> bytes:
        if self.reads_left is not None:
            self.reads_left -= 1
            if self.reads_left < 0:
                raise InvalidImage(DAMAGED)
        return self._stream.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _check_chunks(stream: BinaryIO, start: bytes) -> None:
    """Reject a PNG with several colour profiles, each of which Pillow inflates to a megabyte, or too many comments.

    PNG, third edition, section 5.6: there is at most one iCCP chunk, before the pixels. Pillow limits comments only
    after it has inflated them.
    """
    if not start.startswith(b"\x89PNG\r\n\x1a\n"):
        return
    stream.seek(8)
    profiles = packed = text_bytes = 0
    for _ in range(MAX_READS):
        head = stream.read(8)
        size, kind = int.from_bytes(head[:4]), head[4:]
        if kind in {b"", b"IDAT", b"IEND"}:
            break
        profiles += kind == b"iCCP"
        packed += kind in {b"iTXt", b"zTXt"}
        text_bytes += size if kind in {b"iTXt", b"zTXt", b"tEXt"} else 0
        if profiles > 1 or packed > MAX_PACKED or text_bytes > MAX_TEXT:
            raise InvalidImage(DAMAGED)
        stream.seek(size + 4, 1)
    stream.seek(0)


def _format(image: ImageFile) -> str:
    # Pillow calls a JPEG with a second picture behind it, as many phones write, "MPO".
    return "JPEG" if image.format == "MPO" else str(image.format)


def _refusal(start: bytes) -> str:
    if start.startswith((b"\xff\xd8", b"\x89PNG")) or start[8:12] == b"WEBP":
        return DAMAGED
    foreign = next((name for magic, name in _FOREIGN.items() if start.startswith(magic)), None)
    if start[4:8] == b"ftyp":
        foreign = _FOREIGN_BRANDS.get(start[8:12])
    if foreign is None or (foreign == "HEIC" and "HEIF" in SUPPORTED):
        return f"the file is not a picture that can be read: {_ADVICE}"
    return f"{foreign} files are not supported: {_ADVICE}"
