"""Reading the one file out of an upload's form."""

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

FIELD = "inputFile"

FORM_OVERHEAD_BYTES = 64 * 1024
"""What a body may have beyond its file: boundaries, part headers with a long file name, a few small fields."""

FORM_MEMORY_BYTES = 256 * 1024
"""What the small fields may take together. Werkzeug holds its read buffer, 64 KiB and a part of a boundary, to the same
limit, also while it reads a file: a limit near that size refuses files by chance."""

MAX_FORM_PARTS = 20


class UploadRequest(Request):
    """A request whose files stay in memory, and whose malformed form is an error instead of an empty one."""

    def make_form_data_parser(self) -> FormDataParser:
        """Werkzeug's parser, told to say what is wrong."""
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
        """Free the files and the body they came in, which the server would keep until the request is answered."""
        super().close()
        self.environ["wsgi.input"].close()


@dataclass(frozen=True, slots=True)
class Upload:
    """The one file of a form."""

    filename: str
    """As the client sent it: the last path part, without control characters."""
    body: bytes = field(repr=False)


def read_upload(request: Request, max_upload_bytes: int) -> Upload:
    """The form's file; raises `Declined` with the reply that tells what is wrong with the form."""
    part = _only_file(request, max_upload_bytes)
    body = part.read()
    if not body:
        raise Declined(replies.empty_file())
    if len(body) > max_upload_bytes:
        raise Declined(replies.too_large(max_upload_bytes))
    return Upload(base_name(part.filename or ""), body)


def _only_file(request: Request, max_upload_bytes: int) -> FileStorage:
    if request.mimetype != "multipart/form-data":
        # Not even looked at: a large urlencoded body would cost seconds and hundreds of megabytes to parse.
        raise Declined(replies.no_file())
    try:
        files = request.files
    except RequestEntityTooLarge as exc:
        raise Declined(replies.too_large(max_upload_bytes)) from exc
    except UnicodeDecodeError as exc:
        raise Declined(replies.unreadable_form("a name in it is not UTF-8")) from exc
    except ValueError as exc:
        raise Declined(replies.unreadable_form("it is damaged or incomplete")) from exc
    part = files.get(FIELD)
    if part is None:
        raise Declined(replies.no_file())
    if sum(len(parts) for _, parts in files.lists()) > 1:
        raise Declined(replies.several_files())
    return part
