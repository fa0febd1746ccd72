"""A proxy in front of the emulated AWS that harms chosen calls: HTTP/1.1, connections kept alive, answers streamed.

Proxies for whole connections, such as toxiproxy, can neither fail one operation of a service nor deliver a message
twice. Each client connection has its own connection to the emulator, and both end together, so that the emulator sees
the same as without the proxy, for example when a client leaves a long poll. Requests are read whole, because they may
be passed on twice; the largest is one photo.
"""

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.faults.rules import Call, Harm, Rule, call_of, deleted, refusal

_PIECE_BYTES = 65_536
_LOOK_SECONDS = 0.05
_BODILESS = frozenset({204, 304})
_CONTINUE = 100
_RST = struct.pack("ii", 1, 0)
"""SO_LINGER for no time at all: closing the connection resets it (socket(7))."""


class FaultyAws:
    """`url` is what a process gets as its endpoint; assign `rules` at any time: the first that applies to a call wins.

    `harmed` counts what was done, by harm and operation. `on_answer` gets every call that the emulator has carried out
    with the status of its answer, also when the caller never saw it; it is called in the proxy's thread.
    """

    def __init__(self, upstream: str, *, seed: int = 0) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.rules: tuple[Rule, ...] = ()
        self.harmed: Counter[str] = Counter()
        self.on_answer: Callable[[Call, int], None] = lambda _call, _status: None

    def serve(self) -> None:
        """Serve until `close`."""
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    def close(self) -> None:
        """End it; every connection breaks."""
        self._loop.call_soon_threadsafe(self._ended.set)

    async def _serve(self) -> None:
        server = await self._loop.create_server(lambda: _Connection(self._converse), sock=self._listener)
        await self._ended.wait()
        server.close()
        await asyncio.sleep(_LOOK_SECONDS)  # for connections that are being accepted; the runner then ends all of them

    async def _converse(self, client: "_Peer") -> None:
        upstream: _Peer | None = None
        try:
            while True:
                head = await _read_head(client.reader)
                if head.fields.get("expect"):
                    client.writer.write(f"HTTP/1.1 {_CONTINUE} Continue\r\n\r\n".encode())
                request = _Request(head, b"".join([piece async for piece in _body(head, client.reader)]))
                if upstream is None or upstream.reader.at_eof():  # a connection that was idle for too long
                    _close(upstream)
                    upstream = _Peer(*await asyncio.open_connection(self._host, self._port))
                await self._exchange(request, client, upstream)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            _close(client)
            _close(upstream)

    async def _exchange(self, request: "_Request", client: "_Peer", upstream: "_Peer") -> None:
        rule = self._rule(request.call)
        harm = None if rule is None else rule.harm
        if rule is not None:
            self.harmed[f"{rule.harm} {request.call.service}.{request.call.operation}"] += 1
            if harm is Harm.RESET_BEFORE:
                _reset(client)
            if harm in {Harm.REFUSE, Harm.SWALLOW}:
                client.writer.write(refusal(request.call, rule) if harm is Harm.REFUSE else deleted(request.call))
                return
            await self._wait(rule)
        for last in (False, True) if harm is Harm.TWICE else (True,):
            upstream.writer.write(request.wire)
            answer = await _read_answer(upstream.reader, bodiless=request.head.first.startswith("HEAD "))
            self.on_answer(request.call, answer.status)
            if harm is Harm.RESET_AFTER:
                _reset(client)
            if last:
                client.writer.write(answer.wire)
            async for piece in _body(answer, upstream.reader):
                if last:
                    client.writer.write(piece)
                    await client.writer.drain()

    def _rule(self, call: Call) -> Rule | None:
        applying = (rule for rule in self.rules if rule.matches(call))
        return next((rule for rule in applying if self._chance.random() < rule.share), None)

    async def _wait(self, rule: Rule) -> None:
        if rule.harm is Harm.DELAY:
            await asyncio.sleep(rule.seconds)
        while rule.harm is Harm.HOLD and rule in self.rules:  # noqa: ASYNC110 - they are assigned in other threads
            await asyncio.sleep(_LOOK_SECONDS)


@contextmanager
def faulty_aws(upstream: str) -> Iterator[FaultyAws]:
    """A proxy that serves within the block."""
    proxy = FaultyAws(upstream)
    thread = threading.Thread(target=proxy.serve, name="faulty-aws", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.close()
        thread.join()


@dataclass(frozen=True, slots=True)
class _Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class _Connection(asyncio.StreamReaderProtocol):
    """A client's connection, whose conversation ends at once when the client leaves."""

    def __init__(self, converse: Callable[[_Peer], Coroutine[Any, Any, None]]) -> None:
        super().__init__(asyncio.StreamReader(limit=_PIECE_BYTES), self._begin)
        self._converse = converse
        self._conversation: asyncio.Task[None] | None = None

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._conversation = asyncio.get_running_loop().create_task(self._converse(_Peer(reader, writer)))

    def eof_received(self) -> bool:
        """Close the connection: no client here half-closes it."""
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the conversation."""
        super().connection_lost(exc)
        if self._conversation is not None:
            self._conversation.cancel()


@dataclass(frozen=True, slots=True)
class _Head:
    """The first part of a message as it came, its first line, and its fields with names in lower case."""

    wire: bytes
    first: str
    fields: dict[str, str]
    bodiless: bool = False

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])


class _Request:
    """A whole request: what goes to the emulator, and which call it is."""

    def __init__(self, head: _Head, body: bytes) -> None:
        method, target, _ = head.first.split(" ", 2)
        lines = head.wire.split(b"\r\n")
        self.head = head
        # The proxy has already answered `Expect: 100-continue`.
        self.wire = b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:")) + body
        self.call = call_of(method, target, head.fields, body)


async def _read_head(reader: asyncio.StreamReader) -> _Head:
    wire = await reader.readuntil(b"\r\n\r\n")
    first, *lines = wire.decode("latin-1").split("\r\n")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return _Head(wire, first, fields)


async def _read_answer(reader: asyncio.StreamReader, *, bodiless: bool) -> _Head:
    head = await _read_head(reader)
    while head.status == _CONTINUE:
        head = await _read_head(reader)
    return _Head(head.wire, head.first, head.fields, bodiless=bodiless or head.status in _BODILESS)


async def _body(head: _Head, reader: asyncio.StreamReader) -> Any:
    """The body's pieces as they come over the wire (RFC 9112, section 6)."""
    if head.bodiless:
        return
    if "chunked" in head.fields.get("transfer-encoding", ""):
        size = -1
        while size != 0:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
        return
    left = int(head.fields.get("content-length", 0))
    while left > 0:
        piece = await reader.read(min(left, _PIECE_BYTES))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        left -= len(piece)
        yield piece


def _reset(peer: _Peer) -> None:
    peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
    peer.writer.transport.abort()
    raise ConnectionResetError


def _close(peer: _Peer | None) -> None:
    if peer is not None:
        peer.writer.close()
