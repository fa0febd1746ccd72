"""File names, and the keys of inputs and outputs in the object store: pure.

Inputs and outputs are keyed by the request id, so two uploads with one file name never mix. S3 allows keys of
1 024 bytes; the message has the true file name, so the name in a key may be shortened.
"""

import re
from pathlib import PurePosixPath
from uuid import UUID

from facerec.text import is_text

MAX_KEY_BYTES = 1024
"""S3's limit."""

SNAPSHOTS_PREFIX = "!snapshots/"
"""Of the published snapshots in the gallery bucket; no photo is below it, for `!` is in no collection's name."""

JOBS_PREFIX = "jobs/"
"""Of what belongs to jobs in the input bucket; no upload is below it, for its key begins with a UUID."""

MAX_FILE_NAME = 255
"""The most characters of a file name, everywhere: common file systems allow 255 bytes."""

MAX_NAME_BYTES = 200
"""The most bytes of a file name within a key; leaves room for the request id and a prefix."""

_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What S3's answers cannot quote: botocore cannot read them then, not even that there is no such object."""

_LONGEST_EXTENSION = 16
"""In bytes, with its dot; a longer one is no extension."""

_UNSAFE = frozenset('/\\{}^%`[]"<>~#|?*:&$@=;+,\x7f')
"""The characters that S3's documentation says to avoid or to handle with care, except the space."""


def base_name(filename: str) -> str:
    """The file name that a client sent, as every tier reads and keeps it; idempotent.

    It is the last path part without control characters, or `upload` if nothing is left. A name of more than 255
    characters is cut, and keeps its extension.
    """
    last = filename.replace("\\", "/").rsplit("/", 1)[-1]
    cleaned = "".join(c for c in last if is_text(c) or c == "\u200d")
    if len(cleaned) > MAX_FILE_NAME:
        extension = _extension(cleaned)
        cleaned = cleaned[: MAX_FILE_NAME - len(extension)] + extension
    return cleaned if any(not c.isspace() and c not in ".\u200d" for c in cleaned) else "upload"


def safe_name(filename: str) -> str:
    """A file name that is safe as the last part of a key; a long one is shortened but keeps its extension."""
    name = "".join("_" if c in _UNSAFE else c for c in base_name(filename)).strip()
    if len(name.encode()) <= MAX_NAME_BYTES:
        return name
    extension = _extension(name)
    room = MAX_NAME_BYTES - len(extension.encode())
    return name.removesuffix(extension).encode()[:room].decode(errors="ignore") + extension


def input_key(request_id: UUID, filename: str) -> str:
    """`<request_id>/<name>`: the web tier stores an upload there."""
    return f"{request_id}/{safe_name(filename)}"


def faces_key(request_id: UUID, filename: str) -> str:
    """`<request_id>/<name>.faces`: the detection stores crops there; never the key of an upload of this name."""
    return f"{input_key(request_id, filename)}.faces"


def target_key(request_id: UUID, filename: str) -> str:
    """`<request_id>/target/<name>`: the second photo of a comparison; never the key of a first one, of any name."""
    return f"{request_id}/target/{safe_name(filename)}"


def output_key(request_id: UUID, filename: str) -> str:
    """`<request_id>/<stem>.json`: the worker stores the result there."""
    return f"{request_id}/{copy_key(filename)}.json"


def copy_key(filename: str) -> str:
    """`<stem>`: the key of a result's bare name, with `FACEREC_KEY_STYLE=filename`."""
    name = safe_name(filename)
    stem = PurePosixPath(name).stem
    return stem if stem.strip(".") else name  # S3 refuses a key that is a step in a path, as `..` of `...jpg`


def is_key(text: str) -> bool:
    """Whether S3 takes the text as a key, and can name it in its answers."""
    return not _NOT_IN_XML.search(text) and 0 < len(text.encode()) <= MAX_KEY_BYTES


def request_prefix(request_id: UUID) -> str:
    """The prefix of every key of one request."""
    return f"{request_id}/"


def job_prefix(job_id: UUID) -> str:
    """`jobs/<job_id>/`: the prefix of what belongs to a job, beside the objects of its requests."""
    return f"{JOBS_PREFIX}{job_id}/"


def _extension(name: str) -> str:
    extension = PurePosixPath(name).suffix
    return extension if len(extension.encode()) <= _LONGEST_EXTENSION else ""
