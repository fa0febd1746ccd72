"""A picture's header, and the sentences for invalid pictures."""

import subprocess
import sys
import tracemalloc
import zlib
from contextlib import suppress
from io import BytesIO

import pytest
from PIL import Image
from pydantic import ValidationError

from facerec.settings import Settings
from model.header import SUPPORTED, ImageHeader, InvalidImage, read_header
from model.imaging import decode


def encoded(format_name: str, size: tuple[int, int] = (30, 20), mode: str = "RGB", **options: object) -> bytes:
    """Return a picture of one colour in a format."""
    stream = BytesIO()
    Image.new(mode, size).save(stream, format_name, **options)
    return stream.getvalue()


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_header_has_format_and_size(format_name: str) -> None:
    """By the content, not the name."""
    assert read_header(encoded(format_name)) == ImageHeader(format_name, 30, 20)


def test_every_format_of_the_contract_is_supported() -> None:
    """JPEG, PNG and WebP always, HEIF if its decoder is installed."""
    assert SUPPORTED[:3] == ("JPEG", "PNG", "WEBP")


def test_stream_is_left_at_its_start() -> None:
    """The caller stores the same stream."""
    stream = BytesIO(encoded("JPEG"))
    stream.seek(7)
    read_header(stream)
    assert stream.tell() == 0


def test_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    """Phones append a preview or a depth map."""
    stream = BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "MPO", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    assert read_header(stream.getvalue()) == ImageHeader("JPEG", 30, 20)


def test_header_does_not_decode_the_picture() -> None:
    """A picture cut off after its header has a size."""
    data = encoded("JPEG", (2000, 1500))
    assert read_header(data[: len(data) // 2]).width == 2000


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"dear sir or madam, " * 20, "not a picture that can be read"),
        (encoded("GIF", mode="P"), "GIF files are not supported"),
        (encoded("BMP"), "BMP files are not supported"),
        (encoded("TIFF"), "TIFF files are not supported"),
        (b"%PDF-1.7\n", "PDF files are not supported"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "AVIF files are not supported"),
        (encoded("JPEG")[:40], "cut off or damaged"),
        (encoded("PNG")[:20], "cut off or damaged"),
        (encoded("WEBP")[:25], "cut off or damaged"),
        (encoded("PNG", (8000, 7500), mode="1"), "60.0 megapixels"),
        (encoded("PNG", (20000, 10000), mode="1"), "more than 50 megapixels"),
        (encoded("PNG", (70000, 20), mode="1"), "a side of more than 65535 pixels"),
    ],
)
def test_refusal_is_one_sentence_that_says_what_to_do(data: bytes, words: str) -> None:
    """The person who uploaded sees it."""
    with pytest.raises(InvalidImage, match=words) as refusal:
        read_header(data)
    assert "send " in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_animated_gif_is_refused() -> None:
    """An animation is no portrait."""
    frames = [Image.new("P", (30, 20), number) for number in range(3)]
    stream = BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidImage, match="GIF files are not supported"):
        read_header(stream.getvalue())


def test_megapixel_limit_is_the_callers() -> None:
    """The limit itself is allowed."""
    data = encoded("PNG", (1000, 1000))
    assert read_header(data, max_megapixels=1.0).height == 1000
    with pytest.raises(InvalidImage, match=r"limit is 0\.9"):
        read_header(data, max_megapixels=0.9)


@pytest.mark.filterwarnings("ignore:Image size")
def test_largest_megapixel_limit_is_below_pillows() -> None:
    """Largest megapixel limit is below pillows."""
    limit = Settings(max_megapixels=178).max_megapixels
    assert read_header(encoded("PNG", (13_340, 13_340), "1"), limit).width == 13_340
    with pytest.raises(ValidationError, match="less than or equal to 178"):
        Settings(max_megapixels=178.9)


@pytest.mark.parametrize("position", range(0, 400, 7))
def test_damaged_bytes_raise_only_invalid_image(position: int) -> None:
    """Whatever Pillow raises."""
    for format_name in SUPPORTED[:3]:
        data = encoded(format_name)
        with suppress(InvalidImage):
            read_header(data[:position] + b"\xff\x00\xff" + data[position + 3 :])


def test_header_imports_neither_numpy_nor_opencv() -> None:
    """Header imports neither numpy nor opencv."""
    code = "import sys, model.header; sys.exit(bool({'numpy', 'cv2', 'torch', 'openvino'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A PNG chunk."""
    return len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4)


@pytest.mark.parametrize("segment", [b"\xff\xe1\x00\x02", b"\xff\xfe\x00\x02", b"\xff", b"\xff\x00", b"\xff\xd0"])
def test_jpeg_of_endless_segments_is_refused(segment: bytes) -> None:
    """Pillow would read every one of them, for seconds."""
    data = encoded("JPEG")
    assert read_header(data[:2] + segment * 100 + data[2:]).width == 30
    with pytest.raises(InvalidImage, match="damaged"):
        read_header(data[:2] + segment * 20_000 + data[2:])


def test_png_of_endless_chunks_is_refused() -> None:
    """Likewise."""
    data = encoded("PNG")
    assert read_header(data[:33] + chunk(b"prVt") * 100 + data[33:]).width == 30
    with pytest.raises(InvalidImage, match="damaged"):
        read_header(data[:33] + chunk(b"prVt") * 20_000 + data[33:])


def test_png_of_several_colour_profiles_is_refused() -> None:
    """A kilobyte of each becomes a megabyte."""
    data = encoded("PNG")
    profile = chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    assert read_header(data[:33] + profile + data[33:]).width == 30
    with pytest.raises(InvalidImage, match="damaged"):
        read_header(data[:33] + profile * 2 + data[33:])


FOUR_BYTES_EACH = "\N{GRINNING FACE}".encode()
"""One such letter in a text, and Python keeps every letter of it in four bytes."""


def comment(number: int, text: bytes, *, packed: bool) -> bytes:
    """A PNG chunk of text under a name of its own."""
    return chunk(b"iTXt", b"c%d\0%c\0\0\0" % (number, packed) + (zlib.compress(text, 9) if packed else text))


@pytest.mark.parametrize("packed", [True, False])
def test_png_comments_have_a_bounded_size(packed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Sixteen uploads are read together; compressed, the file has 40 kB."""
    text = FOUR_BYTES_EACH + b"x" * (2**20 - 4 if packed else 14_000_000)
    comments = b"".join(comment(number, text, packed=packed) for number in range(40 if packed else 1))
    data = encoded("PNG")
    data = data[:33] + comments + data[33:]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidImage, match="damaged"):
            read_header(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "unreadable",
    [
        chunk(b"iTXt", b"c\0\1\0\0\0" + zlib.compress(b"x" * 1_000_000 + b"\xff")),
        chunk(b"zTXt", b"c\0\0" + zlib.compress(b"x" * 1_000_000)[:-4] + b"sum?"),
    ],
)
def test_png_of_many_compressed_comments_is_refused(unreadable: bytes) -> None:
    """Pillow would inflate all of them."""
    data = encoded("PNG")
    assert read_header(data[:33] + unreadable * 5 + data[33:]).width == 30
    with pytest.raises(InvalidImage, match="damaged"):
        read_header(data[:33] + unreadable * 1_000 + data[33:])


@pytest.mark.parametrize("packed", [True, False])
def test_png_with_long_descriptions_is_accepted(packed: bool) -> None:  # noqa: FBT001 - as above
    """As picture editors write, before or after the pixels."""
    data = encoded("PNG")
    end = data.index(b"IEND") - 4
    xmp = b"XML:com.adobe.xmp\0%c\0\0\0" % packed
    xmp += zlib.compress(b"<rdf:li>x</rdf:li>" * 6_000) if packed else b"<rdf:li>x</rdf:li>" * 6_000
    comments = chunk(b"iTXt", xmp) + comment(1, b"y" * 800_000, packed=packed) + chunk(b"tEXt", b"Software\0camera")
    for described in (data[:33] + comments + data[33:], data[:end] + comments + data[end:]):
        assert read_header(described).width == 30
        assert decode(described).shape == (20, 30, 3)


def test_pixels_may_have_many_chunks() -> None:
    """The limit is for the header."""
    data = encoded("PNG", (300, 200))
    start = data.index(b"IDAT")
    pixels = data[start + 4 :][: int.from_bytes(data[start - 4 : start])]
    pieces = b"".join(chunk(b"IDAT", pixels[i : i + 1]) + chunk(b"IDAT") * 50 for i in range(len(pixels)))
    assert decode(data[:33] + pieces + chunk(b"IEND")).shape == (200, 300, 3)
