"""The frames of AWS's event stream, in which the Greengrass nucleus talks with components.

A frame is: its length, the length of its headers, a CRC of both, the headers, the payload, a CRC of all. Numbers are
big-endian. The format is that of https://smithy.io/2.0/aws/amazon-eventstream.html.
"""

import asyncio
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from zlib import crc32

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_INT, _STRING = 4, 7
"""The types of headers that the protocol with the nucleus needs."""


class MessageType(IntEnum):
    """What a frame is, in the header `:message-type`."""

    APPLICATION_MESSAGE = 0
    APPLICATION_ERROR = 1
    PING = 2
    PING_RESPONSE = 3
    CONNECT = 4
    CONNECT_ACK = 5
    PROTOCOL_ERROR = 6
    INTERNAL_ERROR = 7


class Flag(IntFlag):
    """The header `:message-flags`."""

    NONE = 0
    CONNECTION_ACCEPTED = 1
    TERMINATE_STREAM = 2


class BadFrame(Exception):
    """The bytes are no frame, or the frame is too large; the connection must end."""


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """One frame; stream 0 is the connection itself."""

    type: MessageType
    flags: Flag
    stream: int
    headers: Mapping[str, str]
    """The other headers."""
    payload: bytes


def encode(frame: StreamFrame) -> bytes:
    """Return the frame's bytes."""
    numbers = {":message-type": frame.type, ":message-flags": frame.flags, ":stream-id": frame.stream}
    headers = b"".join(_name(name) + struct.pack(">Bi", _INT, value) for name, value in numbers.items())
    for name, text in frame.headers.items():
        value = text.encode()
        headers += _name(name) + struct.pack(">BH", _STRING, len(value)) + value
    length = _PRELUDE.size + len(headers) + len(frame.payload) + _CRC.size
    prelude = struct.pack(">II", length, len(headers))
    body = prelude + _CRC.pack(crc32(prelude)) + headers + frame.payload
    return body + _CRC.pack(crc32(body))


async def read_frame(reader: asyncio.StreamReader, max_bytes: int) -> StreamFrame:
    """Read the next frame; raises `BadFrame`, and `asyncio.IncompleteReadError` at the end of the stream."""
    prelude = await reader.readexactly(_PRELUDE.size)
    length, headers_length, prelude_crc = _PRELUDE.unpack(prelude)
    if crc32(prelude[: -_CRC.size]) != prelude_crc:
        raise BadFrame("the checksum of the prelude is wrong")
    if length > max_bytes:
        raise BadFrame(f"the frame has {length} bytes; the largest may have {max_bytes}")
    if length < _PRELUDE.size + headers_length + _CRC.size:
        raise BadFrame("the headers are longer than the frame")
    rest = await reader.readexactly(length - _PRELUDE.size)
    content, (crc,) = rest[: -_CRC.size], _CRC.unpack(rest[-_CRC.size :])
    if crc32(prelude + content) != crc:
        raise BadFrame("the checksum of the frame is wrong")
    numbers, texts = _parse_headers(content[:headers_length])
    try:
        kind, flags, stream = (
            MessageType(numbers[":message-type"]),
            Flag(numbers[":message-flags"]),
            numbers[":stream-id"],
        )
    except (KeyError, ValueError) as exc:
        raise BadFrame(f"a header is missing or wrong: {exc}") from exc
    return StreamFrame(kind, flags, stream, texts, content[headers_length:])


def _name(name: str) -> bytes:
    return bytes([len(name)]) + name.encode()


def _parse_headers(encoded: bytes) -> tuple[dict[str, int], dict[str, str]]:
    numbers: dict[str, int] = {}
    texts: dict[str, str] = {}
    at = 0
    try:
        while at < len(encoded):
            end = at + 1 + encoded[at]
            name, kind, at = encoded[at + 1 : end].decode(), encoded[end], end + 1
            if kind == _INT:
                (numbers[name],) = struct.unpack_from(">i", encoded, at)
                at += 4
            elif kind == _STRING:
                (size,) = struct.unpack_from(">H", encoded, at)
                texts[name] = encoded[at + 2 : at + 2 + size].decode()
                at += 2 + size
            else:
                raise BadFrame(f"header {name!r} is neither a number nor a text")
    except (IndexError, UnicodeDecodeError, struct.error) as exc:
        raise BadFrame("the headers cannot be read") from exc
    return numbers, texts
