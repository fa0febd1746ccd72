"""The frames of AWS's event stream."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facerec.local.edge.event_stream import BadFrame, Flag, MessageType, StreamFrame, encode, read_frame

LIMIT = 1_000_000
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=40).filter(
    lambda name: name not in {":message-type", ":message-flags", ":stream-id"}
)
FRAMES = st.builds(
    StreamFrame,
    st.sampled_from(MessageType),
    st.sampled_from([Flag.NONE, Flag.CONNECTION_ACCEPTED, Flag.TERMINATE_STREAM]),
    st.integers(0, 2**31 - 1),
    st.dictionaries(NAMES, st.text(max_size=100), max_size=5),
    st.binary(max_size=1000),
)


def read(data: bytes, max_bytes: int = LIMIT) -> StreamFrame:
    """The first frame of the bytes, after which the stream ends."""

    async def work() -> StreamFrame:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await read_frame(reader, max_bytes)

    return asyncio.run(work())


@given(FRAMES)
def test_frame_is_read_as_it_was_written(frame: StreamFrame) -> None:
    """With every header."""
    assert read(encode(frame)) == frame


@given(FRAMES, st.data())
def test_damaged_frame_is_no_frame(frame: StreamFrame, data: st.DataObject) -> None:
    """Any changed bit is found by a checksum, or makes the frame too long for the stream."""
    encoded = bytearray(encode(frame))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises((BadFrame, asyncio.IncompleteReadError)):
        read(bytes(encoded))


def test_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    """Its prelude says how long it is."""
    encoded = encode(StreamFrame(MessageType.APPLICATION_MESSAGE, Flag.NONE, 1, {}, bytes(1000)))
    with pytest.raises(BadFrame, match=f"has {len(encoded)} bytes; the largest may have 1000"):
        read(encoded[:12], max_bytes=1000)
