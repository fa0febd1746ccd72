"""What a file carries beside its picture changes nothing, except that it may turn the picture."""

import struct
import tracemalloc
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.header import InvalidImage
from model.imaging import decode
from model.metadata import ORIENTATION_TAG, without_metadata

SCENE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (20, 30, 3), dtype=np.uint8))
TURNED = 6
HEADER_END = 33  # of a PNG: signature and IHDR
MEGABYTE = 1 << 20


def encoded(format_name: str, picture: Image.Image = SCENE, **options: Any) -> bytes:
    """The picture in a format."""
    stream = BytesIO()
    picture.save(stream, format_name, **options)
    return stream.getvalue()


def exif(value: int = TURNED, order: str = "<") -> bytes:
    """A TIFF block with two tags, the second of which is the orientation."""
    mark, first = (b"II*\0" if order == "<" else b"MM\0*"), struct.pack(f"{order}HHII", 0x0100, 4, 1, 30)
    return (
        mark + struct.pack(f"{order}IH", 8, 2) + first + struct.pack(f"{order}HHIHH", ORIENTATION_TAG, 3, 1, value, 0)
    )


XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % TURNED
BOMB = zlib.compress(bytes(64 * MEGABYTE), 9)
NOISE = np.random.default_rng(6).bytes(2 * MEGABYTE)


def chunk(kind: bytes, content: bytes = b"", *, checksum: int | None = None) -> bytes:
    """A PNG chunk."""
    total = zlib.crc32(kind + content) if checksum is None else checksum
    return len(content).to_bytes(4) + kind + content + total.to_bytes(4)


def png(*chunks: bytes, after: bytes = b"", picture: bytes = encoded("PNG")) -> bytes:
    """The scene with chunks before and after its pixels."""
    end = picture.index(b"IEND") - 4
    return picture[:HEADER_END] + b"".join(chunks) + picture[HEADER_END:end] + after + picture[end:]


def segment(marker: int, content: bytes) -> bytes:
    """A JPEG segment."""
    return b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2) + content


def jpeg(*segments: bytes, picture: bytes = encoded("JPEG")) -> bytes:
    """The scene with segments before all others."""
    return picture[:2] + b"".join(segments) + picture[2:]


def webp(*chunks: tuple[bytes, bytes], animated: bool = False) -> bytes:
    """The scene with chunks behind its pixels."""
    more: dict[str, Any] = {"save_all": True, "append_images": [Image.new("RGB", SCENE.size)]} if animated else {}
    data = encoded("WEBP", lossless=True, exif=exif(1), **more)
    data = (
        data[:20] + bytes((data[20] | 0x2C,)) + data[21 : data.index(b"EXIF")]
    )  # there may be a profile, EXIF and XMP
    for kind, content in chunks:
        data += kind + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
    return data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:]


def text(name: bytes, content: bytes) -> bytes:
    """A compressed text of a PNG."""
    return chunk(b"zTXt", name + b"\0\0" + content)


PROFILE = b"ICC_PROFILE\0"
PNGS = {
    "text of 2 MB": png(chunk(b"tEXt", b"Comment\0" + NOISE)),
    "packed text of 2 MB": png(text(b"Comment", zlib.compress(NOISE))),
    "international text of 2 MB": png(chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(NOISE))),
    "colour profile of 2 MB": png(chunk(b"iCCP", b"p\0\0" + zlib.compress(NOISE))),
    "EXIF of 2 MB": png(chunk(b"eXIf", exif(1) + NOISE)),
    "texts that expand to 6 GB": png(*[text(b"XML:com.adobe.xmp", BOMB)] * 100),
    "EXIF text that expands to 64 MB": png(text(b"Raw profile type exif", BOMB)),
    "colour profiles that expand to 6 GB": png(*[chunk(b"iCCP", b"p\0\0" + BOMB)] * 100),
    "thousands of chunks": png(*[chunk(b"prVt"), chunk(b"tEXt", b"a\0b")] * 20_000),
    "thousands of chunks behind the pixels": png(after=chunk(b"tEXt", b"a\0b") * 40_000),
    "text behind the pixels": png(after=text(b"Comment", zlib.compress(NOISE))),
    "text whose checksum is wrong": png(chunk(b"tEXt", b"a\0b", checksum=1)),
    "EXIF whose checksum is wrong": png(chunk(b"eXIf", exif(), checksum=1)),
    "wrong checksum behind the pixels": png(after=chunk(b"tEXt", b"a\0b", checksum=1)),
    "damaged colour profile": png(chunk(b"iCCP", b"p\0\0" + NOISE[:500])),
    "colour profile of an unknown method": png(chunk(b"iCCP", b"p\0\7" + zlib.compress(b"profile"))),
    "colour profile without a name": png(chunk(b"iCCP", b"")),
    "damaged text": png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + NOISE[:500]), chunk(b"zTXt", b"a")),
    "damaged EXIF": png(chunk(b"eXIf", exif()[:25] + NOISE[:500])),
    "damaged EXIF text": png(text(b"Raw profile type exif", zlib.compress(b"\nexif\n 9\nno hexadecimals"))),
    "short chunks": png(*map(chunk, (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tRNS", b"eXIf", b"tEXt", b"iTXt"))),
    "transparency of a wrong size": png(chunk(b"tRNS", b"\0\1")),
    "palette that nothing uses": png(chunk(b"PLTE", b"odd.", checksum=1)),
    "animation without frames": png(chunk(b"acTL", struct.pack(">II", 9, 0)), chunk(b"fcTL", bytes(26))),
    "frames in disorder": png(chunk(b"acTL", struct.pack(">II", 2, 0)), after=chunk(b"fdAT", b"\0\0\0\7" + NOISE[:99])),
    "something behind its end": png() + NOISE,
    "cut off behind its pixels": png()[:-12],
}
PROFILE_PARTS = [segment(0xE2, PROFILE + bytes((number, 99)) + NOISE[:60_000]) for number in range(1, 40)]
JPEGS = {
    "segments of 2 MB": [segment(0xEB, NOISE[at : at + 65_000]) for at in range(0, len(NOISE), 65_000)],
    "colour profile in too few parts": PROFILE_PARTS,
    "short colour profile": [segment(0xE2, PROFILE)],
    "thousands of comments": [segment(0xFE, b"a")] * 9_000,
    "long XMP": [segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + NOISE[:60_000])],
    "EXIF in many parts": [segment(0xE1, b"Exif\0\0" + part) for part in (exif(1), *[NOISE[:60_000]] * 30)],
    "damaged EXIF": [segment(0xE1, b"Exif\0\0" + exif()[:25] + NOISE[:500])],
    "empty EXIF": [segment(0xE1, b"Exif\0\0")],
    "EXIF of endless tags": [segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(60_000))],
    "damaged list of pictures": [segment(0xE2, b"MPF\0" + NOISE[:50]), segment(0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff")],
    "damaged Photoshop block": [segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\2ab" + b"8BIM")],
    "short Adobe segment": [segment(0xEE, b"Adobe")],
    "short JFIF segment": [segment(0xE0, b"JFIF\0")],
}
WEBPS = {
    "no more": webp(),
    "EXIF of 2 MB": webp((b"EXIF", exif(1) + NOISE)),
    "damaged EXIF": webp((b"EXIF", exif()[:25] + NOISE[:500])),
    "colour profile of 2 MB": webp((b"ICCP", NOISE)),
    "XMP of 2 MB": webp((b"XMP ", NOISE)),
    "thousands of chunks": webp(*[(b"prVt", b"a")] * 20_000),
    "animation": webp((b"EXIF", NOISE), animated=True),
    "something behind its end": webp() + NOISE,
}


@pytest.mark.parametrize("kind", PNGS)
def test_png_is_decoded_whatever_it_carries(kind: str) -> None:
    """With the same pixels, in memory of a few copies of the file."""
    tracemalloc.start()
    try:
        pixels = decode(PNGS[kind])
        assert tracemalloc.get_traced_memory()[1] < 5 * len(PNGS[kind]) + 4 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert np.array_equal(pixels, np.asarray(SCENE))


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpeg_is_decoded_whatever_it_carries(kind: str, options: dict[str, Any]) -> None:
    """By both decoders, also with a second picture or anything else behind it."""
    picture = encoded("JPEG", **options)
    data = jpeg(*JPEGS[kind], picture=picture)
    for behind in (b"", picture, NOISE):
        assert np.array_equal(decode(data + behind), decode(picture))


@pytest.mark.parametrize("kind", WEBPS)
def test_webp_is_decoded_whatever_it_carries(kind: str) -> None:
    """With the same pixels."""
    assert np.array_equal(decode(WEBPS[kind]), np.asarray(SCENE))


@pytest.mark.parametrize("picture", [SCENE.quantize(64), SCENE.convert("1"), SCENE.convert("I;16")])
@pytest.mark.parametrize("ancillary", [[], [chunk(b"iCCP", b"p\0\0" + NOISE)]])
def test_png_of_any_kind_keeps_its_colours(picture: Image.Image, ancillary: list[bytes]) -> None:
    """Palette and depth; Pillow decodes the file alone."""
    data = encoded("PNG", picture)
    assert np.array_equal(decode(png(*ancillary, picture=data)), decode(data))
    assert picture.mode != "P" or np.array_equal(decode(data), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("checksum", [None, 1])
def test_transparency_with_a_wrong_checksum_is_ignored(checksum: int | None) -> None:
    """As by other decoders; with the right one the colour becomes white."""
    data = encoded("PNG", Image.new("RGB", (3, 3), (1, 2, 3)))
    transparent = png(chunk(b"tRNS", b"\0\1\0\2\0\3", checksum=checksum), picture=data)
    assert decode(transparent)[0, 0].tolist() == ([255, 255, 255] if checksum is None else [1, 2, 3])


def hexadecimal(block: bytes) -> bytes:
    """The text in which ImageMagick wrote a block."""
    return b"\nexif\n%8d\n%s\n" % (len(block) + 6, (b"Exif\0\0" + block).hex().encode())


LONG = text(b"Comment", zlib.compress(NOISE))
SIDEWAYS = {
    "PNG": png(LONG, chunk(b"eXIf", exif())),
    "PNG, MSB first": png(chunk(b"eXIf", exif(order=">")), LONG),
    "PNG, behind the pixels": png(LONG, after=chunk(b"eXIf", exif())),
    "PNG, text": png(LONG, chunk(b"tEXt", b"Raw profile type exif\0" + hexadecimal(exif()))),
    "PNG, packed text": png(LONG, text(b"Raw profile type exif", zlib.compress(hexadecimal(exif())))),
    "PNG, XMP": png(LONG, chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
    "PNG, packed XMP": png(
        LONG, chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0en\0n\0" + zlib.compress(XMP + bytes(2 * MEGABYTE)))
    ),
    "JPEG": jpeg(*PROFILE_PARTS, segment(0xE1, b"Exif\0\0" + exif())),
    "JPEG, MSB first": jpeg(segment(0xE1, b"Exif\0\0" + exif(order=">"))),
    "JPEG, EXIF in two parts": jpeg(*(segment(0xE1, b"Exif\0\0" + part) for part in (exif()[:12], exif()[12:]))),
    "JPEG, XMP": jpeg(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)),
    "WebP": webp((b"EXIF", exif() + NOISE)),
    "WebP, XMP": webp((b"XMP ", XMP)),
    "WebP, as in a JPEG": webp((b"EXIF", b"Exif\0\0" + exif())),
}


@pytest.mark.parametrize("kind", SIDEWAYS)
def test_picture_is_turned_whatever_the_file_carries(kind: str) -> None:
    """The orientation counts wherever it stands."""
    assert decode(SIDEWAYS[kind]).shape == (30, 20, 3)


@pytest.mark.parametrize("value", [0, 9, 65_535])
def test_orientation_that_does_not_exist_turns_nothing(value: int) -> None:
    """As in viewers."""
    assert decode(png(chunk(b"eXIf", exif(value)))).shape == (20, 30, 3)


def test_exif_goes_before_xmp() -> None:
    """Programs that turn the pixels update the one, and may forget the other."""
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    assert decode(jpeg(xmp, segment(0xE1, b"Exif\0\0" + exif(1)))).shape == (20, 30, 3)


@pytest.mark.parametrize("data", [png(chunk(b"eXIf", exif())), jpeg(*JPEGS["damaged EXIF"]), *WEBPS.values()])
def test_file_cut_off_anywhere_is_a_picture_or_a_sentence(data: bytes) -> None:
    """Also in the middle of its metadata."""
    for end in range(100, min(len(data), 3000), 7):
        try:
            assert decode(data[:end]).shape[2] == 3
        except InvalidImage as exc:
            assert "send the complete file" in str(exc)  # noqa: PT017 - a picture is right, too


def test_jpeg_gives_its_decoder_no_metadata() -> None:
    """Neither Pillow nor OpenCV parses any."""
    picture = without_metadata(jpeg(*JPEGS["long XMP"], *PROFILE_PARTS), "JPEG").picture
    assert picture == encoded("JPEG")


def test_pixels_may_have_many_chunks() -> None:
    """One byte each, and empty ones between them."""
    data = encoded("PNG")
    start = data.index(b"IDAT")
    pixels = data[start + 4 :][: int.from_bytes(data[start - 4 : start])]
    pieces = b"".join(chunk(b"IDAT", pixels[i : i + 1]) + chunk(b"IDAT") * 50 for i in range(len(pixels)))
    assert np.array_equal(decode(data[:HEADER_END] + pieces + chunk(b"IEND")), np.asarray(SCENE))


@pytest.mark.parametrize("missing", [12, 16, 18, 20])
def test_png_without_its_last_bytes_is_decoded(missing: int) -> None:
    """Behind the pixels are two checksums and the end."""
    assert np.array_equal(decode(encoded("PNG")[:-missing]), np.asarray(SCENE))
