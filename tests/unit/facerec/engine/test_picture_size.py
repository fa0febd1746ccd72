"""How large a picture will be, without native code."""

from io import BytesIO

import pytest
from PIL import Image

from facerec.engine.image_queue import megapixels


def picture(kind: str, width: int, height: int) -> bytes:
    """A picture of that size."""
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_reads_the_header(kind: str) -> None:
    """Width times height."""
    assert megapixels(picture(kind, 500, 200), unknown=8, most=50) == pytest.approx(0.1)


def test_formats_with_native_headers_are_unknown() -> None:
    """WebP and HEIF are not opened in the worker's own process."""
    assert megapixels(picture("WEBP", 500, 200), unknown=8, most=50) == 8
    assert megapixels(b"\0\0\0\x18ftypheic", unknown=8, most=50) == 8


@pytest.mark.parametrize("data", [b"", b"no picture", picture("JPEG", 500, 200)[:30], picture("PNG", 2000, 1000)])
def test_what_is_refused_weighs_nothing(data: bytes) -> None:
    """Nothing of it is decoded."""
    assert megapixels(data, unknown=8, most=1) == 0
