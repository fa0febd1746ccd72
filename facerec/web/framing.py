"""Requests as bytes become requests, whoever sends them: what waitress' parser does, within bounds.

A parser runs on the loop that serves everybody, so it may take neither time nor memory beyond what the bytes deserve.
Whatever two servers could read differently is refused, so that nobody smuggles one past a proxy (RFC 9112, 11.2).
"""

from http import HTTPStatus
from io import BytesIO
from typing import Any

import structlog
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask
from waitress.utilities import BadRequest, Error, RequestEntityTooLarge

from facerec.text import one_line
from facerec.web import replies
from facerec.web.chunks import Chunks
from facerec.web.headers import HEADERS
from facerec.web.replies import Reply
from facerec.web.screening import Preview, Screening

log = structlog.get_logger(__name__)

DISCARDED_BYTES = 1_000_000_000
"""How much of a refused body is read for politeness' sake; whoever sends more is cut off."""


class Overloaded(Error):  # type: ignore[misc] # waitress has no annotations
    """There is no room for a body at present."""

    code = 503
    reason = "Service Unavailable"


class Parser(HTTPRequestParser):  # type: ignore[misc] # waitress has no annotations
    """Reads a request; a body that is refused is read to its end, without being kept, before the request is complete.

    A server that answers and closes while the client still sends makes the client's kernel drop the answer.
    """

    expect_continue: bool
    completed: bool
    empty: bool
    error: Error | None
    body_rcv: Any
    path = ""  # waitress writes it into its log, also of a request that never told it
    _discarded: int | None = None

    def __init__(self, adj: Any, *, preview: Preview, address: str) -> None:
        super().__init__(adj)
        self.screening = Screening(preview, address)

    def received(self, data: bytes) -> int:
        """Take the bytes; returns how many of them belong to this request."""
        if self._discarded is not None:
            return self._discard(data)
        try:
            consumed: int = super().received(data)
        except OSError as exc:
            # What does not fit in memory goes to a temporary file.
            log.warning("upload_not_buffered", reason=str(exc))
            self.error, self.completed = Overloaded("no room for the body"), True
            return len(data)
        if self.empty:
            self.empty, self.error = False, BadRequest("blank lines instead of a request")
        if self.completed and isinstance(self.error, RequestEntityTooLarge):
            self.refuse(self.error)
        elif self.screening.turns_away(self):
            self._forget_body()
        if self.completed:
            # Nothing is to come: waitress, if it told the client to go on, would read the next request into this one.
            self.expect_continue = False
        # After an error the connection is closed: what follows would be parsed for nothing.
        return len(data) if self.completed and self.error is not None else consumed

    def parse_header(self, header_plus: bytes) -> None:
        """Read the request line and the headers; refuses what leaves open where the request ends."""
        if b"\r\n " in header_plus or b"\r\n\t" in header_plus:
            raise ParsingError("a header goes on in a second line")
        try:
            super().parse_header(header_plus)
        except ValueError as exc:  # what `urlsplit` and `int` say to "http://[" and to five thousand digits
            raise ParsingError("the address or the length of the body cannot be read") from exc
        codings = _values(header_plus, b"transfer-encoding")
        plain = codings == [b"chunked"] and "CONTENT_LENGTH" not in self.headers and self.version == "1.1"
        if codings and not plain:
            # Waitress skips empty codings, and takes "chunked, chunked" for one.
            raise ParsingError("the length of the body is ambiguous")
        if self.chunked:
            self.body_rcv = Chunks(self.body_rcv.getbuf())

    @property
    def refused(self) -> bool:
        """Whether the body is thrown away as it comes."""
        return self.error is not None or self._discarded is not None

    @property
    def held_bytes(self) -> int:
        """What of the body is kept at present, in memory or in a file."""
        buffer = None if self.body_rcv is None else self.body_rcv.getbuf()
        kept = getattr(buffer, "buf", None)
        return 0 if kept is None or kept.file.closed else len(kept)

    @property
    def missing_bytes(self) -> float:
        """How much of the body is still to come, if it is known."""
        return float("inf") if self.chunked else self.content_length - self.body_bytes_received

    def refuse(self, error: Error) -> None:
        """Forget the body, and answer with the error once the rest has been read."""
        self.error = error
        self._forget_body()

    def _forget_body(self) -> None:
        if self.expect_continue or self.content_length > DISCARDED_BYTES:
            # A client that asks before it sends learns the answer at once.
            self.expect_continue, self.completed = False, True
            return
        kept = self.body_rcv.getbuf()
        self.body_rcv.buf = _Void(len(kept))
        kept.close()
        self._discarded = 0
        self.completed = False

    def _discard(self, data: bytes) -> int:
        consumed: int = self.body_rcv.received(data)
        self.body_bytes_received += consumed
        self._discarded = (self._discarded or 0) + consumed
        self.completed = self.body_rcv.completed or bool(self.body_rcv.error) or self._discarded > DISCARDED_BYTES
        return consumed


class Surplus(Parser):
    """One request too many; whatever came with it is not looked at."""

    def received(self, data: bytes) -> int:
        """Take all of the bytes."""
        self.error, self.completed = BadRequest("too many requests at once"), True
        return len(data)


class _Void:
    """A buffer that keeps nothing but the count."""

    def __init__(self, length: int) -> None:
        self._length = length

    def append(self, data: bytes) -> None:
        self._length += len(data)

    def getfile(self) -> BytesIO:
        """What was kept."""
        return BytesIO()

    def close(self) -> None:
        """There is nothing to free."""

    def __len__(self) -> int:
        return self._length


class Refusal(ErrorTask):  # type: ignore[misc] # waitress has no annotations
    """Words the errors that are found before the application like ours: plain text, one sentence."""

    def execute(self) -> None:
        """Answer and close."""
        error = self.request.error
        status = HTTPStatus(error.code)
        headers: list[tuple[str, str]] = []
        if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            sentence = replies.too_large(self.channel.server.max_upload_bytes).text
        elif isinstance(error, Overloaded):
            reply = replies.crowded()
            sentence, headers = reply.text, [("Retry-After", str(reply.retry_after_seconds))]
        elif status < HTTPStatus.INTERNAL_SERVER_ERROR:
            sentence = f"this is no proper HTTP request ({_reason(error.body)}): use an HTTP client"
        else:
            sentence = f"the request cannot be answered ({_reason(error.body)})"
        log.info("request_refused", status=int(status), reason=sentence)
        self.channel.server.refused(int(status))
        body = sentence.encode()
        self.status = f"{int(status)} {status.phrase}"
        self.response_headers += [*plain_headers(), *headers]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def _values(header_plus: bytes, name: bytes) -> list[bytes]:
    """The values of a header as they were sent, one for each time."""
    headers = (line.partition(b":") for line in header_plus.split(b"\r\n")[1:])
    return [value.strip(b" \t").lower() for key, _, value in headers if key.lower() == name]


def _reason(said: str) -> str:
    """What waitress says, without the line that it quotes: that may hold a key, and is logged."""
    return one_line(said.partition('"')[0]).strip()


def plain_headers() -> list[tuple[str, str]]:
    """The headers of every plain-text reply."""
    return [("Content-Type", "text/plain; charset=utf-8"), *HEADERS.items()]


def last_words(reply: Reply) -> bytes:
    """A whole reply for a client whose request never became one."""
    status, body = HTTPStatus(reply.status), reply.text.encode()
    headers = [*plain_headers(), ("Connection", "close"), ("Content-Length", str(len(body)))]
    if reply.retry_after_seconds is not None:
        headers.append(("Retry-After", str(reply.retry_after_seconds)))
    lines = (f"HTTP/1.1 {int(status)} {status.phrase}", *(f"{name}: {value}" for name, value in headers))
    return "\r\n".join((*lines, "", "")).encode() + body
