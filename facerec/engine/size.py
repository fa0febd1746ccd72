"""How large a picture will be when it is decoded, told by its first bytes; safe for the worker's own process."""

from model.header import MEGAPIXEL, InvalidImage, read_header


def megapixels(image: bytes, unknown: float, most: float) -> float:
    """The megapixels of a picture; 0 for one of more than `most` and for what is none: it is refused, not decoded.

    Only the headers of JPEG and PNG are read, which Pillow does in Python. Those of WebP and HEIF are parsed by native
    code, which is for the engine's children alone (docs/adr/0002-engine-child.md): they count as `unknown`.
    """
    if image[8:12] == b"WEBP" or image[4:8] == b"ftyp":
        return unknown
    try:
        header = read_header(image, most)
    except InvalidImage:
        return 0.0
    return header.width * header.height / MEGAPIXEL
