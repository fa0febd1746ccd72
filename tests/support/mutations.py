"""Damaged pictures: seeds of every format made from real photos, and the ways in which files go bad."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from tests.support.measurements import photos

PNG_START = b"\x89PNG\r\n\x1a\n"
SIDES = (48, 96, 160)  # pixels: a fuzz run is about variety, not about size
HEADER_BYTES = 256
REPAIRED = 0.7  # share of PNGs whose checksums are made good


def seeds(folder: Path) -> list[bytes]:
    """Return the photos below a folder as they are, and small in every format and mode that the decoder knows."""
    paths = photos.paths(folder)
    found = [path.read_bytes() for path in paths]
    for number, path in enumerate(paths):
        with Image.open(path) as photo:
            picture = photo.convert("RGB")
        picture.thumbnail((SIDES[number % len(SIDES)],) * 2)
        found += _encodings(picture)
    if not found:
        raise SystemExit(f"there is no JPEG, PNG or WebP below {folder}")
    return found


def _encodings(picture: Image.Image) -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    transparent = picture.convert("RGBA")
    transparent.putalpha(picture.convert("L"))
    deep = Image.frombytes("I;16", picture.size, bytes(2 * picture.width * picture.height))
    forms: list[tuple[Image.Image, str, dict[str, object]]] = [
        (picture, "JPEG", {"quality": 90}),
        (picture, "JPEG", {"progressive": True, "exif": exif.tobytes()}),
        (picture.convert("L"), "JPEG", {}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture, "PNG", {}),
        (transparent, "PNG", {}),
        (picture.quantize(64), "PNG", {"transparency": 3}),
        (deep, "PNG", {}),
        (picture, "WEBP", {"quality": 80}),
        (transparent, "WEBP", {"lossless": True}),
    ]
    encoded = []
    for image, form, options in forms:
        stream = io.BytesIO()
        image.save(stream, form, **options)
        encoded.append(stream.getvalue())
    return encoded


def mutated(rng: random.Random, pool: Sequence[bytes]) -> bytes:
    """Return one damaged picture; the same generator state gives the same bytes."""
    content = bytearray(rng.choice(pool))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(MUTATIONS)(rng, content, pool)
        if not content:
            break
    if content.startswith(PNG_START) and rng.random() < REPAIRED:
        _repair_checksums(content)
    return bytes(content)


def _flip(rng: random.Random, content: bytearray, _pool: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 2, 8, 40))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _overwrite(rng: random.Random, content: bytearray, _pool: Sequence[bytes]) -> None:
    start = rng.randrange(len(content))
    length = min(rng.choice((1, 4, 32, 256)), len(content) - start)
    content[start : start + length] = rng.randbytes(length)


def _truncate(rng: random.Random, content: bytearray, _pool: Sequence[bytes]) -> None:
    del content[rng.randrange(len(content)) :]


def _cut_out(rng: random.Random, content: bytearray, _pool: Sequence[bytes]) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice((1, 2, 16, 200))]


def _repeat(rng: random.Random, content: bytearray, _pool: Sequence[bytes]) -> None:
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.choice((2, 16, 200, 2000))] * rng.choice((1, 3))


def _splice(rng: random.Random, content: bytearray, pool: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    del content[rng.randrange(len(content)) :]
    content += other[rng.randrange(len(other)) :]


def _edit_header(rng: random.Random, content: bytearray, _pool: Sequence[bytes]) -> None:
    """Put extreme numbers where sizes, depths, lengths and counts are written."""
    start = rng.randrange(min(HEADER_BYTES, len(content)))
    value = rng.choice(
        (b"\0", b"\xff", b"\x7f\xff", b"\xff\xff", b"\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\x1f\x40")
    )
    content[start : start + len(value)] = value


MUTATIONS: tuple[Callable[[random.Random, bytearray, Sequence[bytes]], None], ...] = (
    _flip,
    _overwrite,
    _truncate,
    _cut_out,
    _repeat,
    _splice,
    _edit_header,
    _edit_header,
)


def _repair_checksums(content: bytearray) -> None:
    """Make a PNG's chunks pass their check, so that the damage reaches what is behind it."""
    at = len(PNG_START)
    while at + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, at)
        end = at + 8 + length
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[at + 4 : end]))
        at = end + 4
