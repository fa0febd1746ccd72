"""A picture file without its metadata, and the one fact of the metadata that counts: how the picture is turned.

A decoder gets only the parts that make the picture. So what a file carries beside it (comments, colour profiles, XMP,
previews) costs no time and no memory of a parser, and damage in it harms nothing.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from model.header import JPEG_START, jpeg_segments

ORIENTATION_TAG = 0x0112  # EXIF 2.3, section 4.6.4
MAX_TEXT_BYTES = 1_000_000
"""How much of a compressed text is inflated to look for the orientation."""

_NUMBER_BYTES = {1: 1, 3: 2, 4: 4}  # TIFF 6.0, section 2: BYTE, SHORT, LONG
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")
_EXIF_START = b"Exif\0\0"

# Segments of a JPEG that a decoder needs (ITU-T T.81, table B.1): frames, tables, and the two that tell the colour
# space. Decoders ignore those two if they are shorter.
_JPEG_TABLES_AND_FRAMES = {*range(0xC0, 0xD0), 0xDB, 0xDD} - {0xC8}
_JPEG_COLOURS = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}
_SCAN, _APP1 = 0xDA, 0xE1
_XMP_START = b"http://ns.adobe.com/xap/1.0/\0"

_WEBP_FLAGS = {b"EXIF": 0x08, b"XMP ": 0x04}  # RFC 9649, section 2.7

_CHUNK_HEAD = struct.Struct(">I4s")
_PNG_HEADER_END = 33  # signature and IHDR
_PNG_END = b"\0\0\0\0IEND\xae\x42\x60\x82"
_PALETTE = 3  # PNG, third edition, section 11.2.1: colour type
_TRANSPARENCY_BYTES = {0: 2, 2: 6}  # section 11.3.1.1: by colour type; a palette has one per colour
_PNG_COLOUR_TYPE = 25  # where the header has it
_PNG_EXIF = b"Raw profile type exif"  # ImageMagick's text, older than the chunk eXIf
_PNG_XMP = b"XML:com.adobe.xmp"


@dataclass(frozen=True, slots=True)
class PictureFile:
    """The parts of a file that a decoder needs, and the two blocks that may say how the picture is turned."""

    picture: bytes
    exif: bytes = b""
    xmp: bytes = b""

    @property
    def orientation(self) -> int:
        """The value of the EXIF tag, from 1 to 8; 1, as stored, if it is missing or unreadable."""
        orientation = _exif_orientation(self.exif.removeprefix(_EXIF_START))
        if orientation is None:
            found = _XMP_ORIENTATION.search(self.xmp)
            orientation = int(found[1]) if found else 1
        return orientation if 1 <= orientation <= 8 else 1  # noqa: PLR2004 - as in the docstring


def without_metadata(data: bytes, format_name: str) -> PictureFile:
    """Return the parts of a file whose header has been checked; a damaged picture stays damaged.

    Raises `InvalidImage` as `model.header.jpeg_segments`.
    """
    if format_name == "JPEG":
        return _jpeg(data)
    if format_name == "PNG":
        return _png(data)
    if format_name == "WEBP":
        return _webp(data)
    return PictureFile(data)  # the decoder of HEIF turns the picture itself


def _exif_orientation(block: bytes) -> int | None:
    """Return the tag's value from the first directory of a TIFF block, or None."""
    if block[:4] not in {b"II*\0", b"MM\0*"}:
        return None
    order: Literal["little", "big"] = "little" if block.startswith(b"II") else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], order)

    directory = number(4, 4)
    first = directory + 2
    for entry in range(first, min(first + 12 * number(directory, 2), len(block) - 11), 12):
        if number(entry, 2) == ORIENTATION_TAG:
            return number(entry + 8, _NUMBER_BYTES.get(number(entry + 2, 2), 0))
    return None


def _jpeg(data: bytes) -> PictureFile:
    parts, exif, xmp = [JPEG_START], [], b""
    for marker, start, end in jpeg_segments(data):
        if marker == _SCAN:
            parts.append(data[start - 4 :])
            break
        if marker in _JPEG_TABLES_AND_FRAMES:
            parts.append(data[start - 4 : end])
        elif marker in _JPEG_COLOURS:
            name, least = _JPEG_COLOURS[marker]
            if data.startswith(name, start) and end - start >= least:
                parts.append(data[start - 4 : end])
        elif marker == _APP1 and data.startswith(_EXIF_START, start):
            exif.append(data[start + len(_EXIF_START) : end])  # a long block continues in the next segment
        elif marker == _APP1 and data.startswith(_XMP_START, start):
            xmp = xmp or data[start + len(_XMP_START) : end]
    return PictureFile(b"".join(parts), b"".join(exif), xmp)


def _webp(data: bytes) -> PictureFile:
    """Keep the file as it is: its decoder copies metadata and parses none. The header announces what counts."""
    found: dict[bytes, bytes] = {}
    if data[12:16] == b"VP8X":
        at = 12
        while at + 8 <= len(data):
            kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            if data[20] & _WEBP_FLAGS.get(kind, 0):
                found.setdefault(kind, data[at + 8 : at + 8 + size])
            at += 8 + size + size % 2
    return PictureFile(data, found.get(b"EXIF", b""), found.get(b"XMP ", b""))


def _png(data: bytes) -> PictureFile:
    """Keep the header, a palette, transparency, the pixels and the end; of an animation the first picture.

    An ancillary chunk with a wrong checksum is ignored, as by other decoders.
    """
    kept: dict[bytes, bytes] = {}
    blocks: dict[bytes, bytes] = {}
    pixels_start = pixels_end = 0
    for kind, start, end in _png_chunks(data):
        if kind == b"IDAT":
            pixels_start = pixels_start or start - 8
            if pixels_end in {0, start - 8}:  # the chunks of the pixels follow one another
                pixels_end = end + 4
        elif kind in {b"PLTE", b"tRNS"}:
            if not pixels_start and _is_needed(data, kind, start, end):
                kept.setdefault(kind, data[start - 8 : end + 4])
        elif (name := _png_block_name(data, kind, start)) and name not in blocks and _is_intact(data, start, end):
            blocks[name] = data[start:end] if kind == name else _text(kind, data[start + len(name) + 1 : end])
    before = (kept.get(kind, b"") for kind in (b"PLTE", b"tRNS"))
    closing = _PNG_END if pixels_end <= len(data) else b""  # a decoder would take it for a cut chunk's content
    picture = b"".join((data[:_PNG_HEADER_END], *before, data[pixels_start:pixels_end], closing))
    exif = blocks.get(b"eXIf") or _unhex(blocks.get(_PNG_EXIF, b""))
    return PictureFile(picture, exif, blocks.get(_PNG_XMP, b""))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of the content of each chunk behind the header; the last may end beyond the file."""
    at = _PNG_HEADER_END
    while at + 8 <= len(data):
        size, kind = _CHUNK_HEAD.unpack_from(data, at)
        if kind == b"IEND":
            return
        yield kind, at + 8, at + 8 + size
        at += 12 + size


def _is_intact(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start - 4 : end]) == int.from_bytes(data[end : end + 4])


def _is_needed(data: bytes, kind: bytes, start: int, end: int) -> bool:
    """Return whether the palette is one of the picture's colours, or the transparency fits these."""
    colour_type, size = data[_PNG_COLOUR_TYPE], end - start
    if kind == b"PLTE":
        return colour_type == _PALETTE
    fits = 1 <= size <= 256 if colour_type == _PALETTE else size == _TRANSPARENCY_BYTES.get(colour_type)  # noqa: PLR2004 - as many as colours
    return fits and _is_intact(data, start, end)


def _png_block_name(data: bytes, kind: bytes, start: int) -> bytes | None:
    """Return the name of a chunk that may tell the orientation."""
    if kind == b"eXIf":
        return kind
    if kind not in {b"tEXt", b"zTXt", b"iTXt"}:
        return None
    return next((name for name in (_PNG_EXIF, _PNG_XMP) if data.startswith(name + b"\0", start)), None)


def _text(kind: bytes, content: bytes) -> bytes:
    """Return the text behind a keyword, of which no more than `MAX_TEXT_BYTES` are inflated: section 11.3.3."""
    if kind == b"tEXt":
        return content
    packed = kind == b"zTXt" or content[:1] == b"\1"
    # Before the text stand a method of compression; in iTXt a flag, a method, a language and a translated keyword.
    text = content[1:] if kind == b"zTXt" else content[2:].split(b"\0", 2)[-1]
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT_BYTES) if packed else text
    except zlib.error:
        return b""


def _unhex(profile: bytes) -> bytes:
    """Return the EXIF block of ImageMagick's text, which has two lines for name and length, and hexadecimal ones."""
    try:
        return bytes.fromhex(b"".join(profile.strip().split(b"\n")[2:]).decode("ascii"))
    except ValueError:
        return b""
