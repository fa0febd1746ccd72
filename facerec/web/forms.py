"""Photos in the bodies of requests: multipart forms, and base64 in JSON."""

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import IO

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from facerec.object_keys import base_name
from facerec.web import replies
from facerec.web.replies import Declined

FORM_OVERHEAD_BYTES = 64 * 1024
"""The part of a body beside its files: boundaries, part headers with a long file name, a few small fields."""

FORM_MEMORY_BYTES = 256 * 1024
"""The limit of all small fields together. Werkzeug applies it to its read buffer, too, which has 64 KiB and a part of a
boundary also while it reads a file: a limit near that size would refuse files by chance."""

_EMPTY_EXTENDED = re.compile(r"(?:utf-8|iso-8859-1)'[a-z0-9-]*'", re.IGNORECASE)
"""An extended value (RFC 8187) without characters."""


class UploadRequest(Request):
    """A request whose files stay in memory, and whose malformed form is an error instead of an empty one."""

    def make_form_data_parser(self) -> FormDataParser:
        """Return Werkzeug's parser, set to raise errors."""
        parser = super().make_form_data_parser()
        parser.silent = False
        return parser

    def _get_file_stream(
        self,
        total_content_length: int | None,
        content_type: str | None,
        filename: str | None = None,
        content_length: int | None = None,
    ) -> IO[bytes]:
        """Keep a file in memory: the body's size is limited already, and the file lives only until it is stored."""
        del total_content_length, content_type, filename, content_length
        return BytesIO()

    def close(self) -> None:
        """Free the files and the body, which the server would keep until the request is answered."""
        super().close()
        self.environ["wsgi.input"].close()


@dataclass(frozen=True, slots=True)
class Photo:
    """One file of a request."""

    filename: str
    """As the client sent it: the last path part, without control characters."""
    body: bytes = field(repr=False)


def allow_body(form: Request, max_upload_bytes: int, *, photos: int = 1, base64: bool = False) -> None:
    """Let the body of a request have so many photos; by default it has one, as bytes. Call it before it is read."""
    size = max_upload_bytes * photos
    form.max_content_length = (size * 4 // 3 if base64 else size) + FORM_OVERHEAD_BYTES


def read_photo(form: Request, field_name: str, max_upload_bytes: int) -> Photo:
    """Return the form's one file; raises as `read_photos`."""
    return read_photos(form, [field_name], max_upload_bytes)[0]


def read_photos(form: Request, field_names: Sequence[str], max_upload_bytes: int) -> list[Photo]:
    """Return one file for each of these fields, which are all files of the form.

    Raises `Declined` with the reply that says what is wrong with the form.
    """
    if form.mimetype != "multipart/form-data":
        # Not parsed: a large urlencoded body would cost seconds and hundreds of megabytes.
        raise Declined(replies.no_file(field_names[0]))
    try:
        files = form.files
    except RequestEntityTooLarge as exc:
        limit = form.max_content_length
        whole = form.content_length is None or limit is None or form.content_length > limit
        reply = replies.too_large if whole else replies.form_too_large
        raise Declined(reply(max_upload_bytes)) from exc
    except UnicodeDecodeError as exc:
        raise Declined(replies.unreadable_form("a name in it is not UTF-8")) from exc
    except ValueError as exc:
        raise Declined(replies.unreadable_form("it is damaged or incomplete")) from exc
    chosen = [(name, part) for name, part in files.items(multi=True) if not _is_left_empty(part)]
    parts: list[FileStorage] = []
    for wanted in field_names:
        part = next((part for name, part in chosen if name == wanted), None)
        if part is None:
            raise Declined(replies.no_file(wanted))
        parts.append(part)
    if len(chosen) > len(parts):
        raise Declined(replies.several_files())
    return [_checked(base_name(_file_name(part)), part.read(), max_upload_bytes) for part in parts]


def read_json(form: Request, max_upload_bytes: int) -> object:
    """Return the value of the body, which is JSON; raises `Declined`."""
    try:
        return json.loads(form.get_data())
    except RequestEntityTooLarge as exc:
        raise Declined(replies.too_large(max_upload_bytes)) from exc
    except (ValueError, RecursionError) as exc:
        raise Declined(replies.unreadable_json()) from exc


def decode_photo(text: object, filename: str, max_upload_bytes: int) -> Photo:
    """Return a photo that came as base64 text in JSON; raises `Declined`."""
    if not isinstance(text, str):
        raise Declined(replies.unreadable_form("a picture in it is not base64 text"))
    try:
        body = b64decode(text, validate=True)
    except (binascii.Error, ValueError) as exc:
        raise Declined(replies.unreadable_form("a picture in it is not base64 text")) from exc
    return _checked(base_name(filename), body, max_upload_bytes)


def _checked(filename: str, body: bytes, max_upload_bytes: int) -> Photo:
    if not body:
        raise Declined(replies.empty_file())
    if len(body) > max_upload_bytes:
        raise Declined(replies.too_large(max_upload_bytes))
    return Photo(filename, body)


def _is_left_empty(part: FileStorage) -> bool:
    """Return whether a file input was left empty: without a file name and without a byte it is no file."""
    if _file_name(part) or part.stream.read(1):
        part.stream.seek(0)
        return False
    return True


def _file_name(part: FileStorage) -> str:
    """Return the part's file name; Werkzeug takes an empty `filename*=UTF-8''` for a name."""
    name = part.filename or ""
    return "" if _EMPTY_EXTENDED.fullmatch(name) else name
