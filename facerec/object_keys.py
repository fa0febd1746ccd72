"""The keys of inputs and outputs in the object store: pure.

What is recognised is always the object under the request id, so two uploads of one name never mix. S3 allows keys of
1 024 bytes; the true file name travels in the message, so a key's name may be shortened.
"""

from pathlib import PurePosixPath
from uuid import UUID

from facerec.text import is_text

MAX_KEY_BYTES = 1024
"""Of a key in S3."""

MAX_NAME_BYTES = 200
"""Leaves room for the request id and a prefix, and stays below the 255 bytes of common file systems."""

_UNSAFE = frozenset('/\\{}^%`[]"<>~#|?*:&$@=;+,\x7f')
"""S3's documented characters to avoid or to handle with care, without the space."""


def base_name(filename: str) -> str:
    """The last path part of a client's file name, without control characters; `upload` where nothing is left."""
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    cleaned = "".join(c for c in last if is_text(c) or c == "\u200d")
    return cleaned if any(not c.isspace() and c not in ".\u200d" for c in cleaned) else "upload"


def safe_name(filename: str) -> str:
    """A file name that is safe and short as the last part of a key; keeps the extension when it shortens."""
    name = "".join("_" if c in _UNSAFE else c for c in base_name(filename)).strip()
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    path = PurePosixPath(name)
    suffix = path.suffix if len(path.suffix.encode()) <= 16 else ""  # noqa: PLR2004 - longer is no extension
    room = MAX_NAME_BYTES - len(suffix.encode())
    return path.stem.encode()[:room].decode(errors="ignore") + suffix


def input_key(request_id: UUID, filename: str) -> str:
    """`<request_id>/<name>`: where the web tier stores an upload."""
    return f"{request_id}/{safe_name(filename)}"


def output_key(request_id: UUID, filename: str) -> str:
    """`<request_id>/<stem>.json`: where the worker stores the result."""
    return f"{request_id}/{copy_key(filename)}.json"


def copy_key(filename: str) -> str:
    """`<stem>`: where the bare name goes as well, with `FACEREC_KEY_STYLE=filename`."""
    return PurePosixPath(safe_name(filename)).stem


def request_prefix(request_id: UUID) -> str:
    """What every key of one request begins with."""
    return f"{request_id}/"
