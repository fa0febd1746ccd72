"""Sends bad requests of one kind at a time, in its own process; benchmarks.bad_clients starts it.

    python -m benchmarks.attacks slow_headers --port 8000 --seconds 10

All connections go from 127.0.0.2 to 127.0.0.1. The last line is one JSON object: what was sent, how the server
answered, and what the attack cost this process in CPU time.
"""

import argparse
import asyncio
import json
import random
import resource
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress

from benchmarks import hostile_forms

HOST = "127.0.0.1"
SOURCE = ("127.0.0.2", 0)
"""The address of the attackers; honest clients come from 127.0.0.1."""

MANY = 1000
LARGE = 200
PER_SECOND = 200
WRONG_KEYS_PER_SECOND = 500
LIVELY_BYTES_PER_SECOND = 1_100
DESCRIPTORS = 8192

Counts = Counter[str]
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Target:
    """The server's address, the end of the attack, and the counts so far."""

    def __init__(self, port: int, seconds: float) -> None:
        self.port = port
        self.ends = time.monotonic() + seconds
        self.counts: Counts = Counter()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.ends

    async def connect(self) -> Stream | None:
        """A new connection, or nothing if the server does not take it within 5 s."""
        try:
            stream = await asyncio.wait_for(asyncio.open_connection(HOST, self.port, local_addr=SOURCE), 5)
        except (OSError, TimeoutError):
            self.counts["refused"] += 1
            return None
        self.counts["connections"] += 1
        return stream

    async def reply(self, reader: asyncio.StreamReader) -> None:
        """Count the status of the next reply."""
        try:
            line = await asyncio.wait_for(reader.readline(), max(1.0, self.ends - time.monotonic()))
        except (OSError, TimeoutError, ValueError):
            self.counts["no_reply"] += 1
            return
        words = line.split()
        self.counts[words[1].decode() if len(words) > 1 else "closed"] += 1


async def shut(writer: asyncio.StreamWriter) -> None:
    """Close a connection, whatever its state."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def drip(target: Target, head: bytes, drop: bytes) -> None:
    """Send a head, then a piece every second; reconnect whenever the server closes the connection."""
    await asyncio.sleep(random.random())  # noqa: S311 - spreads the load
    while not target.over:
        stream = await target.connect()
        if stream is None:
            continue
        reader, writer = stream
        with suppress(OSError):
            writer.write(head)
            while not reader.at_eof() and time.monotonic() < target.ends:
                await asyncio.sleep(1)
                writer.write(drop)
                await writer.drain()
        if not target.over:
            target.counts["cut_off"] += 1
        await shut(writer)


async def slow_headers(target: Target) -> None:
    """A thousand heads that never end."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    await asyncio.gather(*(drip(target, head, b"a") for _ in range(MANY)))


async def slow_bodies(target: Target) -> None:
    """A thousand bodies that never end: half at a byte a second, half a little faster than the server demands."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    head += b"Content-Length: 15000000\r\n\r\n--X\r\n"
    drops = (b"a", b"a" * LIVELY_BYTES_PER_SECOND)
    await asyncio.gather(*(drip(target, head, drops[number % 2]) for number in range(MANY)))


async def send_form(target: Target, body: bytes) -> None:
    """One upload, with its reply."""
    stream = await target.connect()
    if stream is None:
        return
    reader, writer = stream
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += b"Content-Type: multipart/form-data; boundary=%s\r\n" % hostile_forms.BOUNDARY
    try:
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 65_536):
            writer.write(body[start : start + 65_536])
            await asyncio.wait_for(writer.drain(), max(0.1, target.ends - time.monotonic()))
    except (OSError, TimeoutError):
        target.counts["unsent"] += 1
    else:
        target.counts["megabytes"] += len(body) // 1_000_000
    await target.reply(reader)
    await shut(writer)


async def large_uploads(target: Target) -> None:
    """Two hundred valid pictures of 15 MB at once: a small picture and padding."""
    body = hostile_forms.form(hostile_forms.PICTURE + bytes(15_000_000 - len(hostile_forms.PICTURE)))
    await asyncio.gather(*(send_form(target, body) for _ in range(LARGE)))


async def oversize_uploads(target: Target) -> None:
    """Two hundred of 16 MB."""
    body = hostile_forms.form(bytes(16_000_000))
    await asyncio.gather(*(send_form(target, body) for _ in range(LARGE)))


async def at_rate(target: Target, per_second: float, step: Callable[[int], Awaitable[None]]) -> None:
    """Begin a step again and again, at most 200 at a time."""
    running: set[asyncio.Task[None]] = set()
    number, began = 0, time.monotonic()
    while not target.over:
        await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
        if len(running) < LARGE:
            task = asyncio.ensure_future(step(number))
            running.add(task)
            task.add_done_callback(running.discard)
        number += 1
    await asyncio.gather(*running)


async def send_raw(target: Target, message: bytes, *, end: bool = False) -> None:
    """Send a message as written and count its first reply; with `end` no server waits for more of it."""
    stream = await target.connect()
    if stream is None:
        return
    reader, writer = stream
    with suppress(OSError):
        writer.write(message)
        await writer.drain()
        if end:
            writer.write_eof()
    await target.reply(reader)
    await shut(writer)


async def malformed_forms(target: Target) -> None:
    """Damaged forms, two hundred a second."""
    dice = random.Random(5)  # noqa: S311 - a reproducible choice
    await at_rate(target, PER_SECOND, lambda _: send_raw(target, hostile_forms.malformed(dice)))


async def header_injection(target: Target) -> None:
    """Header injections and request smuggling, two hundred a second."""
    shapes = hostile_forms.injections()
    await at_rate(target, PER_SECOND, lambda number: send_raw(target, shapes[number % len(shapes)], end=True))


async def wrong_keys(target: Target) -> None:
    """Uploads with a key that does not exist, five hundred a second; every other one looks like a key."""
    body = hostile_forms.form(hostile_forms.PICTURE)

    def key(number: int) -> bytes:
        return b"frk_%012x_%s" % (number, b"A" * 43) if number % 2 else b"wrong-key-%d" % number

    def message(number: int) -> bytes:
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Api-Key: %s\r\n" % key(number)
        head += b"Content-Type: multipart/form-data; boundary=%s\r\n" % hostile_forms.BOUNDARY
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body

    await at_rate(target, WRONG_KEYS_PER_SECOND, lambda number: send_raw(target, message(number)))


async def idle(target: Target) -> None:
    """Six hundred connections stay silent after a request, two hundred do not read, fifty a second are reset."""
    await asyncio.gather(
        *(keep_silent(target) for _ in range(600)),
        *(never_read(target) for _ in range(200)),
        at_rate(target, 50, lambda _: vanish(target)),
    )


async def keep_silent(target: Target) -> None:
    """One request, then nothing until the server closes."""
    while not target.over:
        stream = await target.connect()
        if stream is None:
            continue
        reader, writer = stream
        with suppress(OSError, TimeoutError):
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(reader.read(), max(0.1, target.ends - time.monotonic()))
        await shut(writer)


async def never_read(target: Target) -> None:
    """Send requests one after the other, and read no reply."""
    loop = asyncio.get_running_loop()
    with socket.socket() as bare:
        bare.setblocking(False)
        bare.bind(SOURCE)
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(loop.sock_connect(bare, (HOST, target.port)), 5)
            target.counts["connections"] += 1
            while not target.over:
                request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
                await asyncio.wait_for(loop.sock_sendall(bare, request), max(0.1, target.ends - time.monotonic()))
                await asyncio.sleep(1)


async def pipelining(target: Target) -> None:
    """A thousand connections that each request a thousand pages in one packet, and read none."""
    await asyncio.gather(*(ask_for_much(target) for _ in range(MANY)))


async def ask_for_much(target: Target) -> None:
    """Send a packet of requests every second; reconnect whenever the server closes the connection."""
    loop = asyncio.get_running_loop()
    requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1500
    await asyncio.sleep(random.random())  # noqa: S311 - spreads the load
    while not target.over:
        with socket.socket() as bare:
            bare.setblocking(False)
            bare.bind(SOURCE)
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            try:
                await asyncio.wait_for(loop.sock_connect(bare, (HOST, target.port)), 5)
                target.counts["connections"] += 1
                while not target.over:
                    await asyncio.wait_for(loop.sock_sendall(bare, requests), max(0.1, target.ends - time.monotonic()))
                    await asyncio.sleep(1)
            except TimeoutError:
                target.counts["stuck"] += 1
            except OSError:
                target.counts["cut_off"] += 1
                await asyncio.sleep(1)


async def vanish(target: Target) -> None:
    """Half an upload, then a reset."""
    stream = await target.connect()
    if stream is None:
        return
    _, writer = stream
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=X\r\n"
    with suppress(OSError):
        writer.write(head + b"Content-Length: 2000000\r\n\r\n" + bytes(1_000_000))
        await writer.drain()
    target.counts["vanished"] += 1
    writer.transport.abort()


ATTACKS: dict[str, Callable[[Target], Coroutine[None, None, None]]] = {
    attack.__name__: attack
    for attack in (
        slow_headers,
        slow_bodies,
        large_uploads,
        oversize_uploads,
        wrong_keys,
        malformed_forms,
        header_injection,
        idle,
        pipelining,
    )
}


def main() -> None:
    """Attack, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))
    target = Target(options.port, options.seconds)
    asyncio.run(ATTACKS[options.attack](target))
    print(json.dumps(dict(target.counts) | {"cpu_s": round(time.process_time(), 2)}))


if __name__ == "__main__":
    main()
