"""Pictures of many shapes, made from the samples: whole, small, odd, tilted, cut, composed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.faces import DetectedFace
from model.imaging import decode

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PHOTOS = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in {".jpg", ".jpeg", ".png", ".webp"})
assert PHOTOS, f"there are no sample pictures under {EXAMPLES}"


@cache
def photo(path: Path) -> Image.Image:
    """Return a sample, decoded once."""
    return Image.fromarray(decode(path.read_bytes()))


def shorter_side(image: Image.Image, pixels: int) -> Image.Image:
    """Return the picture scaled to a shorter side, its proportions kept."""
    scale = pixels / min(image.size)
    return image.resize((round(image.width * scale), round(image.height * scale)))


def pasted_off_the_edge(image: Image.Image) -> Image.Image:
    """Return the picture moved left and up, so that a face may be cut by the edge."""
    return image.transform(
        image.size, Image.Transform.AFFINE, (1, 0, image.width * 0.3, 0, 1, image.height * 0.15), fillcolor="grey"
    )


VARIANTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "at 250 pixels": lambda image: shorter_side(image, 250),
    "at 64 by 64": lambda image: ImageOps.fit(image, (64, 64)),
    "at an odd size": lambda image: image.resize((307, 411)),
    "tilted": lambda image: shorter_side(image, 300).rotate(17, Image.Resampling.BILINEAR),
    "on its side": lambda image: shorter_side(image, 200).rotate(90, expand=True),
    "grey": lambda image: shorter_side(image, 220).convert("L").convert("RGB"),
    "cut by the edge": lambda image: pasted_off_the_edge(shorter_side(image, 300)),
}


def group() -> Image.Image:
    """Return samples of different sizes side by side, smaller ones upon them."""
    canvas = Image.new("RGB", (1201, 763), "slategrey")
    for number, path in enumerate(PHOTOS[:12]):
        size = (290, 180, 95)[number % 3]
        canvas.paste(ImageOps.fit(photo(path), (size, size)), (number % 4 * 300 + 3, number // 4 * 250 + 5))
    return canvas


def noise() -> Image.Image:
    """Return a picture that gives P-Net very much to propose and O-Net nothing to keep."""
    coarse = np.random.default_rng(6).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((401, 322), Image.Resampling.BICUBIC)


COMPOSED: dict[str, Callable[[], Image.Image]] = {
    "a group": group,
    "noise": noise,
    "10 by 10": lambda: Image.new("RGB", (10, 10), "grey"),
    "a strip": lambda: photo(PHOTOS[0]).resize((900, 21)),
    "the smallest": lambda: ImageOps.fit(photo(PHOTOS[0]), (21, 21)),
}
PICTURES: dict[str, Callable[[], Image.Image]] = COMPOSED | {
    f"{path.relative_to(EXAMPLES)} {name}": lambda path=path, variant=variant: variant(photo(path))
    for path in PHOTOS
    for name, variant in VARIANTS.items()
}


@dataclass(frozen=True)
class Expected:
    """A picture with the reference's results; `embeddings` are in the order of `faces`."""

    image: NDArray[np.uint8]
    faces: list[DetectedFace]
    crops: list[NDArray[np.uint8]]
    embeddings: NDArray[np.float32]
