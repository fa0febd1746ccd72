"""What a picture's first bytes say, without decoding it; imports nothing but Pillow, for processes without numpy."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, cast

from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.ImageFile import ImageFile

MEGAPIXEL = 1_000_000

# Importing the plugins registers their formats, so that Pillow does not load its other forty when it opens a file.
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

# Pillow warns of sizes that are checked here anyway, and of flaws that a viewer shows the picture in spite of.
# A filter for the process, because `catch_warnings` around each call is not safe among threads.
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
"""What a JPEG can have; a PNG of one endless row would need gigabytes on its way through the networks."""

MAX_READS = 10_000
"""Of a header: each segment or chunk takes a few, and real files have dozens. Millions would cost Pillow seconds."""

MAX_TEXT = 2_000_000
"""What a PNG's comments may have together, in characters: of four bytes each in memory, of a few bits each in a file.

Descriptions that programs write (XMP, a drawing's history) have some hundreds of kilobytes at most.
"""

MAX_PACKED = 50
"""Comments of a PNG that may be packed; Pillow inflates up to a megabyte of each, in 2 ms, also of the unreadable.

Real files have a handful, beside any number of short plain ones.
"""

PngImagePlugin.MAX_TEXT_MEMORY = MAX_TEXT

DAMAGED = "the picture is cut off or damaged: send the complete file again"


class InvalidImage(ValueError):
    """The bytes are no picture that this system takes; its text is one sentence for the person who sent them."""


@dataclass(frozen=True)
class ImageHeader:
    """A picture's format, one of `SUPPORTED`, and its size in pixels as stored, before any rotation by EXIF."""

    format: str
    width: int
    height: int


def read_header(data: bytes | BinaryIO, max_megapixels: float = 50.0) -> ImageHeader:
    """Return what the header says; the picture is not decoded, so its rest may still be damaged.

    A seekable stream is left at its start. Raises `InvalidImage` for an empty file, one that is no picture of a
    supported format, and one of more than `max_megapixels`.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    with opened(stream, max_megapixels) as image:
        header = ImageHeader(_format(image), image.width, image.height)
    stream.seek(0)
    return header


@contextmanager
def opened(stream: BinaryIO, max_megapixels: float) -> Iterator[ImageFile]:
    """Yield the picture, its header read and checked and its pixels not; raises `InvalidImage` as `read_header`."""
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
    except Exception as exc:  # Pillow raises a dozen types at hostile bytes; here each means the same
        raise InvalidImage(_refusal(start)) from exc
    counted.reads_left = None  # decoding reads as often as it must
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
    """A stream that can be read only so often, while `reads_left` is not None."""

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
    """Refuse a PNG of several colour profiles: Pillow inflates each to a megabyte, and a file may hold thousands.

    PNG, third edition, section 5.6: there is at most one iCCP chunk, and it stands before the pixels. Likewise one of
    many comments or long ones: Pillow counts what it keeps of them, and only when it has unpacked it.
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
    # A JPEG with a preview or a second view behind it, as many phones write, is "MPO" to Pillow.
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
