"""Pictures without a face, made from a seed: noise, text, gradients, patterns, one colour; in several sizes."""

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZES = ((64, 64), (250, 250), (640, 480), (1280, 960))
_WORDS = ("invoice", "number", "total", "fox", "jumps", "over", "lazy", "0123456789", "due", "date", "thank", "you")

Pixels = NDArray[np.uint8]


def faceless(seed: int = 0, sizes: Sequence[tuple[int, int]] = SIZES) -> dict[str, bytes]:
    """Return the pictures as JPEG and PNG files by name; the same seed gives the same ones."""
    random = np.random.default_rng(seed)
    return {
        f"{name} {width}x{height}": _encoded(drawn(random, width, height), "PNG" if number % 2 else "JPEG")
        for width, height in sizes
        for number, (name, drawn) in enumerate(KINDS.items())
    }


def _encoded(pixels: Pixels, form: str) -> bytes:
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def _noise(random: np.random.Generator, width: int, height: int) -> Pixels:
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _clouds(random: np.random.Generator, width: int, height: int) -> Pixels:
    """Noise of few waves, whose shadows are as large as a face's."""
    coarse = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def _skin(random: np.random.Generator, width: int, height: int) -> Pixels:
    """A surface in the colour of skin, with grain."""
    grain = random.normal(0, 12, (height, width, 1))
    return (np.array([205, 160, 135]) + grain).clip(0, 255).astype(np.uint8)


def _text(random: np.random.Generator, width: int, height: int) -> Pixels:
    page = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(max(9, height // 30))
    for top in range(2, height, max(12, height // 22)):
        pen.text((3, top), " ".join(random.choice(_WORDS, 30)), "black", font)
    return np.asarray(page)


def _gradient(_random: np.random.Generator, width: int, height: int) -> Pixels:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, 255 - across], axis=2).astype(np.uint8)


def _spotlight(_random: np.random.Generator, width: int, height: int) -> Pixels:
    """A round gradient, as bright in the middle as a face."""
    across, down = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    shade = 255 * np.clip(1 - np.hypot(across, down), 0, 1)
    return np.repeat(shade[..., np.newaxis], 3, axis=2).astype(np.uint8)


def _stripes(_random: np.random.Generator, width: int, height: int) -> Pixels:
    shade = (np.arange(width) // max(2, width // 20) % 2 * 255).astype(np.uint8)
    return np.broadcast_to(shade[np.newaxis, :, np.newaxis], (height, width, 3)).copy()


def _chessboard(_random: np.random.Generator, width: int, height: int) -> Pixels:
    side = max(2, width // 12)
    rows, columns = np.indices((height, width)) // side
    return np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)


def _rings(_random: np.random.Generator, width: int, height: int) -> Pixels:
    rows, columns = np.indices((height, width))
    distance = np.hypot(rows - height / 2, columns - width / 2)
    shade = (127 + 127 * np.sin(distance / max(2, width / 60))).astype(np.uint8)
    return np.repeat(shade[..., np.newaxis], 3, axis=2)


def _discs(random: np.random.Generator, width: int, height: int) -> Pixels:
    """Discs of all sizes and colours, anywhere."""
    page = Image.new("RGB", (width, height), "grey")
    pen = ImageDraw.Draw(page)
    for _ in range(40):
        x, y, radius = (int(random.integers(0, most)) for most in (width, height, max(3, width // 10)))
        red, green, blue = random.integers(0, 256, 3).tolist()
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), (red, green, blue))
    return np.asarray(page)


def _plain(random: np.random.Generator, width: int, height: int) -> Pixels:
    return np.broadcast_to(random.integers(0, 256, 3, dtype=np.uint8), (height, width, 3)).copy()


KINDS: dict[str, Callable[[np.random.Generator, int, int], Pixels]] = {
    "noise": _noise,
    "clouds": _clouds,
    "skin": _skin,
    "text": _text,
    "gradient": _gradient,
    "spotlight": _spotlight,
    "stripes": _stripes,
    "chessboard": _chessboard,
    "rings": _rings,
    "discs": _discs,
    "plain": _plain,
}


def seeded(count: int, sizes: Sequence[tuple[int, int]] = SIZES) -> Iterator[tuple[str, bytes]]:
    """Yield the pictures of so many seeds, with their names."""
    for seed in range(count):
        for name, data in faceless(seed, sizes).items():
            yield f"{name} of seed {seed}", data
