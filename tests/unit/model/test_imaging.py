"""Every kind of picture becomes upright 8-bit RGB, as a viewer would show it."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import model.imaging
from model.faces import Box, JpegFaces, MeasuredFace
from model.header import InvalidImage
from model.imaging import decode, decode_crops, decode_reduced
from model.metadata import ORIENTATION_TAG

WIDTH, HEIGHT = 48, 32

# The stored picture for each value of the tag, if this is the scene.
STORED_AS: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2),
    6: lambda seen: np.rot90(seen, 1),
    7: lambda seen: np.rot90(seen, 2).transpose(1, 0, 2),
    8: lambda seen: np.rot90(seen, -1),
}


def gradient() -> NDArray[np.uint8]:
    """Return a smooth RGB picture that no flip or rotation maps onto itself."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 5, y * 7, 255 - x * 2 - y * 3], axis=-1).astype(np.uint8)


def encoded(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    """Return the picture in a format."""
    stream = BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference of two pictures of one shape."""
    assert first.shape == second.shape
    return float(np.abs(first.astype(int) - second).mean())


def test_rgb_is_unchanged() -> None:
    """Contiguous, as stored."""
    image = decode(encoded(Image.fromarray(gradient())))
    assert np.array_equal(image, gradient())
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@pytest.mark.parametrize(("format_name", "options"), [("JPEG", {"quality": 95}), ("WEBP", {"lossless": True})])
def test_formats_of_the_contract_decode(format_name: str, options: dict[str, object]) -> None:
    """JPEG and WebP."""
    assert difference(decode(encoded(Image.fromarray(gradient()), format_name, **options)), gradient()) < 6


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, format_name: str) -> None:
    """A picture stored turned or mirrored becomes upright."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](gradient())))
    image = decode(encoded(stored, format_name, exif=exif, quality=95))
    assert difference(image, gradient()) < 8
    assert image.flags.c_contiguous


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_unreadable_exif_leaves_the_picture_as_stored() -> None:
    """As viewers do."""
    data = encoded(Image.fromarray(gradient()), "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff garbage")
    assert decode(data).shape == (HEIGHT, WIDTH, 3)


def test_grey_gets_three_equal_channels() -> None:
    """An 8-bit grey picture is a picture."""
    grey = Image.fromarray(gradient()).convert("L")
    assert np.array_equal(decode(encoded(grey)), np.stack([np.asarray(grey)] * 3, axis=-1))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    """The whole range of 16 bits maps onto the whole range of 8."""
    ramp = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    image = decode(encoded(Image.fromarray(ramp)))
    assert image.min() == 0
    assert image.max() == 255
    assert np.abs(image[..., 0] - ramp / 257).max() <= 0.5


def test_one_bit_is_black_and_white() -> None:
    """A 1-bit picture uses the ends of the range."""
    image = decode(encoded(Image.fromarray(gradient()).convert("1")))
    assert set(np.unique(image)) == {0, 255}


def test_palette_shows_its_colours() -> None:
    """An indexed picture is shown in its palette's colours."""
    indexed = Image.fromarray(gradient()).quantize(200)
    assert np.array_equal(decode(encoded(indexed)), np.asarray(indexed.convert("RGB")))


def test_transparent_palette_entry_becomes_white() -> None:
    """Transparent palette entry becomes white."""
    indexed = Image.fromarray(gradient()).quantize(16)
    image = decode(encoded(indexed, transparency=int(np.asarray(indexed)[0, 0])))
    assert image[0, 0].tolist() == [255, 255, 255]
    assert difference(image[-8:, -8:], np.asarray(indexed.convert("RGB"))[-8:, -8:]) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode: str) -> None:
    """Half transparent is half way."""
    picture = Image.new(mode, (3, 1), 0)
    for x, alpha in enumerate((0, 128, 255)):
        picture.putpixel((x, 0), (0, 0, 0, alpha) if mode == "RGBA" else (0, alpha))
    assert decode(encoded(picture))[0, :, 0].tolist() == [255, 127, 0]


def test_transparent_colour_of_an_rgb_png_becomes_white() -> None:
    """Transparent colour of an rgb png becomes white."""
    image = decode(encoded(Image.new("RGB", (4, 4), (10, 20, 30)), transparency=(10, 20, 30)))
    assert (image == 255).all()


def test_cmyk_is_not_inverted() -> None:
    """A print JPEG looks like its RGB original, not like its negative."""
    data = encoded(Image.fromarray(gradient()).convert("CMYK"), "JPEG", quality=95)
    assert difference(decode(data), gradient()) < 10


@pytest.mark.parametrize("format_name", ["PNG", "WEBP"])
def test_animation_gives_its_first_frame(format_name: str) -> None:
    """Animation gives its first frame."""
    later = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("red", "blue")]
    first = Image.fromarray(gradient())
    data = encoded(first, format_name, save_all=True, append_images=later, lossless=True)
    assert np.array_equal(decode(data), gradient())


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_picture_is_refused(format_name: str, kept: float) -> None:
    """With a sentence for the sender."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format_name)
    with pytest.raises(InvalidImage, match="cut off or damaged"):
        decode(data[: int(len(data) * kept)])


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    """A small file that would unfold to gigabytes costs nothing."""
    bomb = encoded(Image.new("1", (20000, 10000)))
    assert len(bomb) < 100_000
    with pytest.raises(InvalidImage, match="megapixels"):
        decode(bomb)


def noise(*shape: int) -> NDArray[np.uint8]:
    """Return an array in which no row resembles another."""
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


IN_STRIPS = {
    "RGB": encoded(Image.fromarray(noise(50, 31, 3))),
    "RGB with a transparent colour": encoded(
        Image.fromarray(noise(50, 31, 3)), transparency=tuple(noise(1, 1, 3)[0, 0].tolist())
    ),
    "RGBA": encoded(Image.fromarray(noise(50, 31, 4))),
    "palette": encoded(Image.fromarray(noise(50, 31, 3)).quantize(200), transparency=bytes(range(200))),
    "grey": encoded(Image.fromarray(noise(50, 31))),
    "grey of 16 bits": encoded(Image.fromarray(noise(50, 62).view(np.uint16))),
    "black and white": encoded(Image.fromarray(noise(50, 31)).convert("1")),
    "CMYK": encoded(Image.fromarray(noise(50, 31, 3)).convert("CMYK"), "JPEG"),
    "WebP": encoded(Image.fromarray(noise(50, 31, 4)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", IN_STRIPS)
def test_large_picture_is_converted_in_strips(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pixels, contiguous and read-only."""
    data = IN_STRIPS[kind]
    whole = decode(data)
    monkeypatch.setattr(model.imaging, "LARGE_PIXELS", 0)
    for strip_pixels in (1, 100, 10**6):
        monkeypatch.setattr(model.imaging, "STRIP_PIXELS", strip_pixels)
        strips = decode(data)
        assert np.array_equal(strips, whole)
        assert strips.flags.c_contiguous
        assert not strips.flags.writeable


PEAK = """
import sys
from pathlib import Path
from model.imaging import decode

def status(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))

large, small = (Path(path).read_bytes() for path in sys.argv[1:])
decode(small)
Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak
before = status("VmRSS")
decode(large)
print(status("VmHWM") - before)
"""


@pytest.mark.parametrize(
    ("mode", "format_name", "orientation"),
    [("RGBA", "PNG", 1), ("I;16", "PNG", 1), ("RGB", "PNG", 6), ("RGB", "JPEG", 6)],
)
def test_large_picture_needs_memory_for_two_copies_at_most(
    mode: str, format_name: str, orientation: int, tmp_path: Path
) -> None:
    """Pillow's four bytes a pixel and our three."""
    large, small = (Image.new(mode, size) for size in ((4000, 2500), (8, 8)))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    for name, picture in (("large", large), ("small", small)):
        (tmp_path / name).write_bytes(encoded(picture, format_name, exif=exif))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, tmp_path / "large", tmp_path / "small"], capture_output=True, check=True
    )
    assert int(done.stdout) / (large.width * large.height) < 8


def test_one_pixel_is_a_picture() -> None:
    """One pixel is a picture."""
    assert decode(encoded(Image.new("RGB", (1, 1), "red"))).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("kind", ["ordinary", "progressive", "grey", "CMYK"])
@pytest.mark.parametrize(("min_side", "reduction"), [(None, 1), (1001, 1), (501, 1), (500, 2), (240, 4), (10, 8)])
def test_large_jpeg_is_decoded_reduced(kind: str, min_side: int | None, reduction: int) -> None:
    """At most eight times, with the longer side as long as asked; the size is the original's."""
    image = Image.fromarray(gradient()).resize((1001, 800)).convert({"grey": "L", "CMYK": "CMYK"}.get(kind, "RGB"))
    data = encoded(image, "JPEG", quality=95, progressive=kind == "progressive")
    picture = decode_reduced(data, 50, lambda width, height: min_side if (width, height) == (1001, 800) else None)
    assert (picture.width, picture.height, picture.reduction) == (1001, 800, reduction)
    assert picture.pixels.shape == (-(-800 // reduction), -(-1001 // reduction), 3)
    assert not picture.pixels.flags.writeable
    shrunk = Image.fromarray(decode(data)).resize(
        (picture.pixels.shape[1], picture.pixels.shape[0]), Image.Resampling.BOX
    )
    assert difference(np.asarray(shrunk), picture.pixels) < 3


FACE = MeasuredFace(Box(1, 2, 3, 4), 0.9, (), ())


def jpeg_faces(*crops: bytes) -> JpegFaces:
    """Faces with these crops."""
    return JpegFaces(40, 30, (FACE,) * len(crops), crops, more_faces=2)


def square(side: int, format_name: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """A square picture."""
    return encoded(Image.fromarray(gradient()).resize((side, side)).convert(mode), format_name, **options)


CROP = square(24, quality=95)


def test_crops_are_decoded_in_their_order() -> None:
    """As pictures are; grey and progressive ones are crops, too."""
    crops = square(24, quality=95), square(24, mode="L"), square(24, progressive=True)
    faces = decode_crops(jpeg_faces(*crops), 24)
    assert (faces.width, faces.height, faces.faces, faces.more_faces) == (40, 30, (FACE,) * 3, 2)
    assert faces.crops.shape == (3, 24, 24, 3)
    assert all(np.array_equal(crop, decode(data)) for crop, data in zip(faces.crops, crops, strict=True))
    assert set(faces.timings_ms) == {"decode"}


@pytest.mark.parametrize(
    ("crop", "reason"),
    [
        (square(25), "a JPEG of 25 by 25 pixels, not a JPEG of 24 by 24"),
        (square(1000, mode="L"), "a JPEG of 1000 by 1000"),
        (square(24, "PNG"), "a PNG of 24 by 24"),
        (square(24)[:400], "cut off or damaged"),
        (b"", "empty"),
        (b"no picture", "not a picture"),
    ],
)
def test_other_crops_are_refused(crop: bytes, reason: str) -> None:
    """With the number of the face; a large one is not decoded."""
    with pytest.raises(InvalidImage, match=rf"crop of face 1 .*{reason}"):
        decode_crops(jpeg_faces(square(24), crop), 24)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8), st.integers(0, 10_000))
def test_damaged_crop_is_decoded_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    """A device sends what it likes; nothing else happens."""
    crop = bytearray(CROP)
    for place, value in changes:
        crop[place % len(crop)] = value
    try:
        faces = decode_crops(jpeg_faces(bytes(crop[: len(crop) - cut % 200 if cut % 2 else None])), 24)
    except InvalidImage:
        return
    assert faces.crops.shape == (1, 24, 24, 3)
