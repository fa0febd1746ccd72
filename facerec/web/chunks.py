"""Bodies in chunks (RFC 9112, section 7.1), read to the letter and in linear time.

Waitress' own reader takes a bare line feed behind a size for a part of it, forgives blank lines, looks at no trailer,
and copies the rest of its bytes for every chunk. What another server reads differently smuggles a request past it.
"""

from enum import Enum, auto
from typing import Any

from waitress.rfc7230 import CHUNK_EXT_RE, HEADER_FIELD_RE, ONLY_HEXDIG_RE
from waitress.utilities import BadRequest, Error

CONTROL_BYTES = 4096
"""The longest chunk size with its extensions, and the longest trailer."""

CHUNK_OVERHEAD_BYTES = 64 * 1024
"""What sizes and line ends of chunks may take beyond a sixteenth of the body: chunks of a few bytes are an attack."""

_CHUNK_OVERHEAD_PART = 16


class _Line(Enum):
    SIZE = auto()
    END_OF_CHUNK = auto()
    TRAILER = auto()


class Chunks:
    """Puts a body together in `buf`; has what waitress asks of a reader of bodies."""

    def __init__(self, buf: Any) -> None:
        self.buf = buf
        self.completed = False
        self.error: Error | None = None
        self._expected = _Line.SIZE
        self._line = b""
        self._control = 0
        self._missing = 0
        self._length = 0
        self._overhead = 0

    def received(self, data: bytes) -> int:
        """Take the bytes; returns how many of them belong to this body."""
        taken = 0
        while taken < len(data) and not self.completed and self.error is None:
            if self._missing:
                taken += self._take_body(data[taken : taken + self._missing])
            else:
                newline = data.find(b"\n", taken)
                taken += self._take_line(data[taken : newline + 1] if newline >= 0 else data[taken:])
        return taken

    def _take_body(self, piece: bytes) -> int:
        self.buf.append(piece)
        self._missing -= len(piece)
        self._length += len(piece)
        return len(piece)

    def _take_line(self, piece: bytes) -> int:
        self._line += piece
        self._control += len(piece)
        self._overhead += len(piece)
        if self._control > CONTROL_BYTES:
            self.error = BadRequest("a chunk's size or the trailer is too long")
        elif self._overhead > CHUNK_OVERHEAD_BYTES + self._length // _CHUNK_OVERHEAD_PART:
            self.error = BadRequest("the chunks are too small")
        elif self._line.endswith(b"\n"):
            line, self._line = self._line, b""
            if line.endswith(b"\r\n"):
                self._read(line[:-2])
            else:
                self.error = BadRequest("a line of the chunks ends without CR")
        return len(piece)

    def _read(self, line: bytes) -> None:
        if self._expected is _Line.TRAILER:
            self.completed = not line
            # `fullmatch`, as the patterns end with "$", which also stands before a last line feed.
            if line and not HEADER_FIELD_RE.fullmatch(line):
                self.error = BadRequest("Invalid trailer")
            return
        self._control = 0
        if self._expected is _Line.END_OF_CHUNK:
            self._expected = _Line.SIZE
            if line:
                self.error = BadRequest("Chunk not properly terminated")
            return
        size, semicolon, extensions = line.partition(b";")
        if not ONLY_HEXDIG_RE.fullmatch(size):
            self.error = BadRequest("Invalid chunk size")
        elif not CHUNK_EXT_RE.fullmatch(semicolon + extensions):
            self.error = BadRequest("Invalid chunk extension")
        else:
            self._missing = int(size, 16)
            self._expected = _Line.END_OF_CHUNK if self._missing else _Line.TRAILER

    def getfile(self) -> Any:
        """The body, to be read."""
        return self.buf.getfile()

    def getbuf(self) -> Any:
        """What keeps the body."""
        return self.buf

    def __len__(self) -> int:
        """How much of the body there is."""
        return len(self.buf)
