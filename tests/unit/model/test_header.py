"""A picture's header, and the sentences for invalid pictures."""

import subprocess
import sys
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

import model.header
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


def test_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    """Phones append a preview or a depth map."""
    stream = BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "MPO", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    assert read_header(stream.getvalue()) == ImageHeader("JPEG", 30, 20)


def test_header_does_not_decode_the_picture() -> None:
    """A picture cut off after its header has a size."""
    data = encoded("JPEG", (2000, 1500))
    assert read_header(data[: len(data) // 2]).width == 2000


def patched(data: bytes, at: int, value: bytes) -> bytes:
    """The bytes with some replaced."""
    return data[:at] + value + data[at + len(value) :]


FRAME = encoded("JPEG").index(b"\xff\xc0")
FOREIGN = "files are not supported: send a JPEG"
NO_PICTURE = "not a picture that can be read: send a JPEG"
DAMAGED = "cut off or damaged: send the complete file"
UNUSUAL = "stored in a way that cannot be read: save it as an ordinary JPEG or PNG"
REFUSALS = {
    "nothing": (b"", "empty"),
    "text": (b"dear sir or madam, " * 20, NO_PICTURE),
    "text that begins as a BMP": (b"BMW is a make of cars. " * 20, NO_PICTURE),
    "video": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", NO_PICTURE),
    "GIF": (encoded("GIF", mode="P"), f"GIF {FOREIGN}"),
    "BMP": (encoded("BMP"), f"BMP {FOREIGN}"),
    "TIFF": (encoded("TIFF"), f"TIFF {FOREIGN}"),
    "PDF": (b"%PDF-1.7\n", f"PDF {FOREIGN}"),
    "AVIF": (b"\0\0\0\x14ftypavif\0\0\0\0avif", f"AVIF {FOREIGN}"),
    "AVIF of a general brand": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", f"AVIF {FOREIGN}"),
    "JPEG cut off in its tables": (encoded("JPEG")[:40], DAMAGED),
    "JPEG cut off in its pixels": (encoded("JPEG", (300, 200))[:-400], DAMAGED),
    "JPEG cut off in its metadata": (encoded("JPEG", comment=b"x" * 500)[:200], DAMAGED),
    "JPEG without a frame": (patched(encoded("JPEG"), FRAME, b"\xff\xfe"), DAMAGED),
    "JPEG of 12 bits": (patched(encoded("JPEG"), FRAME + 4, b"\x0c"), UNUSUAL),
    "JPEG of two colours": (patched(encoded("JPEG"), FRAME + 9, b"\2"), UNUSUAL),
    "JPEG without a height": (patched(encoded("JPEG"), FRAME + 5, b"\0\0"), UNUSUAL),
    "JPEG without a width": (patched(encoded("JPEG"), FRAME + 7, b"\0\0"), DAMAGED),
    "lossless JPEG": (patched(encoded("JPEG"), FRAME, b"\xff\xc3"), UNUSUAL),
    "JPEG-LS": (b"\xff\xd8\xff\xf7\0\x0b\x08\0\x14\0\x1e\1\1\x11\0" + bytes(100), UNUSUAL),
    "JPEG of endless segments": (encoded("JPEG")[:2] + b"\xff\xfe\0\2" * 20_000 + encoded("JPEG")[2:], "segments"),
    "PNG cut off in its header": (encoded("PNG")[:20], DAMAGED),
    "PNG cut off in its pixels": (encoded("PNG", (300, 200))[:-40], DAMAGED),
    "PNG without a height": (patched(encoded("PNG"), 20, bytes(4)), DAMAGED),
    "PNG with a damaged size": (patched(encoded("PNG"), 16, b"\x7f"), DAMAGED),
    "PNG of Apple's": (encoded("PNG")[:8] + b"\0\0\0\4CgBI" + bytes(8) + encoded("PNG")[8:], UNUSUAL),
    "PNG as text": (encoded("PNG").replace(b"\r\n", b"\n", 1), DAMAGED),
    "WebP cut off in its header": (encoded("WEBP")[:25], DAMAGED),
    "WebP cut off in its pixels": (encoded("WEBP", lossless=True)[:-4], DAMAGED),
    "60 megapixels": (encoded("PNG", (8000, 7500), mode="1"), "60.0 megapixels and the limit is 50: send a smaller"),
    "200 megapixels": (encoded("PNG", (20000, 10000), mode="1"), "200.0 megapixels and the limit is 50"),
    "a little more than 50 megapixels": (
        encoded("PNG", (25_000, 2001), mode="1"),
        "50.025000 megapixels and the limit",
    ),
    "a long side": (encoded("PNG", (70000, 20), mode="1"), "a side of more than 65535 pixels: send a smaller"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_refusal_is_one_true_sentence_that_says_what_to_do(kind: str) -> None:
    """The person who uploaded sees it, whether the header or the decoder is the reason."""
    data, words = REFUSALS[kind]
    with pytest.raises(InvalidImage, match=words) as refusal:
        decode(data)
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


def test_header_is_read_without_native_code() -> None:
    """The web tier reads it: a decoder there could be attacked."""
    code = "import sys, model.header; sys.exit(bool({'numpy', 'cv2', 'PIL', 'torch'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("segment", [b"\xff\xe1\x00\x02", b"\xff\xfe\x00\x02"])
def test_jpeg_of_thousands_of_segments_is_read(segment: bytes) -> None:
    """Up to a limit: millions would take a second."""
    data = encoded("JPEG")
    assert read_header(data[:2] + segment * 5_000 + data[2:]).width == 30
    with pytest.raises(InvalidImage, match="more than 10000 segments"):
        read_header(data[:2] + segment * 20_000 + data[2:])


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\x00", b"\xff\xd0", b"\0"])
def test_jpeg_may_have_fill_bytes(filling: bytes) -> None:
    """Before any marker, as many as there are."""
    data = encoded("JPEG")
    assert read_header(data[:2] + filling * 1_000_000 + data[2:]).width == 30


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 80},
        {"lossless": True},
        {"quality": 80, "icc_profile": b"profile" * 1000},
        {"quality": 80, "exif": b"Exif\0\0II*\0", "xmp": b"<xmp/>"},
        {"save_all": True, "append_images": [Image.new("RGB", (999, 999))]},
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@settings(max_examples=8)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_webp_has_the_size_that_pillow_finds(mode: str, options: dict[str, Any], width: int, height: int) -> None:
    """VP8, VP8L and VP8X; of an animation the canvas."""
    if frames := options.get("append_images"):
        options = options | {"append_images": [frames[0].resize((width, height)).convert(mode)]}
    data = encoded("WEBP", (width, height), mode, **options)
    with Image.open(BytesIO(data)) as image:
        assert read_header(data) == ImageHeader("WEBP", *image.size)


@pytest.mark.parametrize(("width", "height"), [(16_383, 1), (1, 16_383)])
@pytest.mark.parametrize("lossless", [True, False])
def test_webp_has_the_largest_sides_of_its_format(width: int, height: int, lossless: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Fourteen bits each."""
    data = encoded("WEBP", (width, height), lossless=lossless)
    assert read_header(data) == ImageHeader("WEBP", width, height)


def test_webp_canvas_of_a_bomb_is_refused() -> None:
    """Its header can announce more pixels than any picture has."""
    data = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6
    with pytest.raises(InvalidImage, match=r"megapixels and the limit is 50"):
        read_header(data)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_header_that_is_cut_off_anywhere_is_refused(format_name: str) -> None:
    """Or it has the right size."""
    data = encoded(format_name, exif=b"Exif\0\0II*\0")
    for end in range(12, len(data)):
        with suppress(InvalidImage):
            assert read_header(data[:end]) == ImageHeader(format_name, 30, 20)


def box(kind: bytes, *contents: bytes) -> bytes:
    """A box of a HEIF file."""
    content = b"".join(contents)
    return (8 + len(content)).to_bytes(4) + kind + content


def heif(*sizes: tuple[int, int]) -> bytes:
    """The header of a HEIF file with items of these sizes."""
    extents = (box(b"ispe", bytes(4), width.to_bytes(4), height.to_bytes(4)) for width, height in sizes)
    meta = box(b"meta", bytes(4), box(b"hdlr", bytes(20)), box(b"iprp", box(b"ipco", box(b"hvcC"), *extents)))
    return box(b"ftyp", b"heic", bytes(4), b"mif1heic") + meta + box(b"mdat", bytes(9))


def test_heif_has_the_size_of_its_largest_item(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its tiles and its thumbnail, if its decoder is installed."""
    monkeypatch.setattr(model.header, "SUPPORTED", SUPPORTED[:3])
    with pytest.raises(InvalidImage, match="HEIC files are not supported"):
        read_header(heif((4032, 3024)))
    monkeypatch.setattr(model.header, "SUPPORTED", (*SUPPORTED[:3], "HEIF"))
    assert read_header(heif((512, 512), (4032, 3024), (320, 240))) == ImageHeader("HEIF", 4032, 3024)
    with pytest.raises(InvalidImage, match=r"70\.0 megapixels"):
        read_header(heif((10_000, 7000)))
    for end in range(20, len(heif((40, 30)))):
        with suppress(InvalidImage):
            assert read_header(heif((40, 30))[:end]).width == 40


@pytest.mark.parametrize("kind", [b"meta", b"iprp", b"ipco"])
def test_heif_counts_the_first_box_of_a_kind(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has one; to look into thousands of them would take the web tier seconds."""
    monkeypatch.setattr(model.header, "SUPPORTED", (*SUPPORTED[:3], "HEIF"))
    small, large = (box(b"ispe", bytes(4), side.to_bytes(4), side.to_bytes(4)) for side in (40, 60_000))
    nested = {b"ispe": [small]}
    for outer, inner in ((b"ipco", b"ispe"), (b"iprp", b"ipco"), (b"meta", b"iprp")):
        filling = [bytes(4)] if outer == b"meta" else []
        nested[outer] = [box(outer, *filling, *nested[inner])]
        if outer == kind:
            nested[outer] += [box(outer, *filling, large)] * 5
    assert read_header(box(b"ftyp", b"heic", bytes(4), b"mif1heic") + b"".join(nested[b"meta"])).width == 40
