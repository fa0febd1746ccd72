"""Pictures as clients send them, good and bad, made from one portrait."""

import io
import os
from collections.abc import Callable

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.support.processes import CHECKOUT

PORTRAIT = CHECKOUT / "examples/probes/image_01.jpg"
"""A photo of Barack Obama that is not the enrolled one."""

EXIF_ORIENTATION = 0x0112


def portrait() -> Image.Image:
    """The portrait, decoded."""
    with Image.open(PORTRAIT) as picture:
        return picture.convert("RGB")


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    """The picture's bytes in a format."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def exif_rotated() -> bytes:
    """The portrait lying on its side, with the EXIF tag that puts it upright."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    return encoded(portrait().transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif.tobytes(), quality=92)


def sixteen_bit() -> Image.Image:
    """The portrait in grey with 16 bits a pixel, using the whole range."""
    grey = portrait().convert("L")
    return Image.frombytes("I;16", grey.size, b"".join(bytes((value, value)) for value in grey.tobytes()))


def palette_with_transparency() -> bytes:
    """A palette PNG one of whose colours is transparent."""
    return encoded(portrait().quantize(128), transparency=0)


def long_text() -> PngInfo:
    """A packed text of 1.2 MB, as programs write that keep a drawing's history."""
    info = PngInfo()
    info.add_text("Comment", "stroke " * 180_000, zip=True)
    return info


def animated_gif() -> bytes:
    """Two frames: a format we do not read."""
    frame = portrait().resize((80, 100))
    return encoded(frame, "GIF", save_all=True, append_images=[frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])


GOOD: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: encoded(portrait().convert("CMYK"), "JPEG", quality=92),
    "grey.jpg": lambda: encoded(portrait().convert("L"), "JPEG", quality=92),
    "sixteen_bit.png": lambda: encoded(sixteen_bit()),
    "palette.png": palette_with_transparency,
    "rotated.jpg": exif_rotated,
    "described.png": lambda: encoded(portrait(), pnginfo=long_text(), icc_profile=os.urandom(1_500_000)),
    "portrait.webp": lambda: encoded(portrait(), "WEBP", quality=90),
}
"""Pictures with a face that must be found, and recognised."""

BAD: dict[str, tuple[Callable[[], bytes], int]] = {
    "empty.jpg": (lambda: b"", 400),
    "text.jpg": (lambda: b"this is not a picture\n" * 20, 415),
    "truncated.jpg": (lambda: PORTRAIT.read_bytes()[:20_000], 415),
    "animated.gif": (animated_gif, 415),
    "sixty_megapixels.png": (lambda: encoded(Image.new("L", (10_000, 6_000), 90)), 415),
    "twenty_megabytes.jpg": (lambda: PORTRAIT.read_bytes() + bytes(20_000_000), 413),
}
"""Pictures that are refused, with the status of the contract."""
