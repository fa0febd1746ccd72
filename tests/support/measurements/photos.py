"""The photos of a measurement: by size (thumbnails of 64 px, middling ones of 250 px, large ones) and in batches."""

from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from model.header import MEGAPIXEL, read_header

if TYPE_CHECKING:
    from model.engines import Engine

SIZES = ("64", "250", "large")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_LONGEST_SIDE = {"64": 96, "250": 400}
_SURROUNDINGS = 2.0  # sides of the square about a face, in sides of its box
_JPEG_QUALITY = 92


def paths(folder: Path) -> list[Path]:
    """The pictures below a folder, in the order of their names."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def by_size(folder: Path, limit: int, opened: "Callable[[], Engine]") -> dict[str, list[bytes]]:
    """Return up to `limit` photos of each size, spread over the folder and its subfolders, duplicates left out.

    A size that the folder lacks is made from its large photos: each face that the opened engine finds, with its
    surroundings, scaled.
    """
    found: dict[str, dict[bytes, None]] = {size: {} for size in SIZES}
    for path in paths(folder):
        data = path.read_bytes()
        with Image.open(BytesIO(data)) as image:
            longest = max(image.size)
        size = next((size for size, side in _LONGEST_SIDE.items() if longest <= side), "large")
        found[size][data] = None
    photos = {size: _spread(list(found[size]), limit) for size in SIZES}
    if not photos["64"] or not photos["250"]:
        squares = list(_faces(photos["large"], opened()))
        for size in ("64", "250"):
            photos[size] = photos[size] or _spread([_scaled(square, int(size)) for square in squares], limit)
    if not any(photos.values()):
        raise SystemExit(f"there are no photos in {folder}")
    return photos


def _spread(photos: list[bytes], limit: int) -> list[bytes]:
    return [photos[index * len(photos) // limit] for index in range(limit)] if len(photos) > limit else photos


def _faces(photos: Iterable[bytes], engine: "Engine") -> Iterable[Image.Image]:
    from model.imaging import decode  # noqa: PLC0415 - imported after the process has been pinned

    for data in photos:
        pixels = decode(data)
        image = Image.fromarray(pixels)
        for face in engine.detect(pixels):
            box = face.box
            reach = _SURROUNDINGS * max(box.x_max - box.x_min, box.y_max - box.y_min) / 2
            x, y = (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2
            reach = min(reach, x, y, image.width - x, image.height - y)
            yield image.crop((round(x - reach), round(y - reach), round(x + reach), round(y + reach)))


def _scaled(square: Image.Image, side: int) -> bytes:
    stream = BytesIO()
    square.resize((side, side), Image.Resampling.LANCZOS).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def grouped(photos: list[bytes], most: int, megapixels: float) -> list[list[bytes]]:
    """Return the photos in as few batches as a worker would make of them, of nearly as many photos each.

    A batch has `most` photos at most, and `megapixels` together or a single one.
    """
    sizes = [header.width * header.height / MEGAPIXEL for header in map(read_header, photos)]
    for count in range(-(-len(photos) // most), len(photos)):
        ends = [number * len(photos) // count for number in range(count + 1)]
        spans = [slice(first, last) for first, last in pairwise(ends)]
        if all(span.stop - span.start == 1 or sum(sizes[span]) <= megapixels for span in spans):
            return [photos[span] for span in spans]
    return [[photo] for photo in photos]
