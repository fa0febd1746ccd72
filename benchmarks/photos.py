"""The photos of a measurement, as bytes and by size: thumbnails of 64 px, middling ones of 250 px, and large ones."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from PIL import Image

from model.packs.catalogue import DEFAULT

SIZES = ("64", "250", "large")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_LONGEST_SIDE = {"64": 96, "250": 400}
_SURROUNDINGS = 2.0  # sides of the square about a face, in sides of its box
_JPEG_QUALITY = 92


def by_size(folder: Path, limit: int) -> dict[str, list[bytes]]:
    """Return up to `limit` photos of each size, spread over the folder and its subfolders, duplicates left out.

    A size that the folder lacks is made from its large photos: each of their faces with its surroundings, scaled.
    """
    found: dict[str, dict[bytes, None]] = {size: {} for size in SIZES}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        data = path.read_bytes()
        with Image.open(BytesIO(data)) as image:
            longest = max(image.size)
        size = next((size for size, side in _LONGEST_SIDE.items() if longest <= side), "large")
        found[size][data] = None
    photos = {size: _spread(list(found[size]), limit) for size in SIZES}
    if not photos["64"] or not photos["250"]:
        squares = list(_faces(photos["large"]))
        for size in ("64", "250"):
            photos[size] = photos[size] or _spread([_scaled(square, int(size)) for square in squares], limit)
    if not any(photos.values()):
        raise SystemExit(f"there are no photos in {folder}")
    return photos


def _spread(photos: list[bytes], limit: int) -> list[bytes]:
    return [photos[index * len(photos) // limit] for index in range(limit)] if len(photos) > limit else photos


def _faces(photos: Iterable[bytes]) -> Iterable[Image.Image]:
    from benchmarks.measure import pack_artefact  # noqa: PLC0415 - only where faces must be cut out
    from model.engines import open_engine  # noqa: PLC0415 - same
    from model.imaging import decode  # noqa: PLC0415 - same

    engine = open_engine(pack_artefact(DEFAULT))  # one for all: every pack is measured on the same photos
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
