"""Runs ministack with two gaps closed: `python -m facerec.local.ministack_server`.

- ministack writes S3 objects to disk at once, but tables, queues and instances only at its orderly end. This wrapper
  also writes them a moment after they change, on the event loop that handles the requests, so the state is consistent.
- ministack continues a long poll after its client has left, and delivers the next message to it; its end waits for
  that poll, too. This wrapper ends the poll.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from time import perf_counter
from typing import Any

from ministack import app as ministack  # type: ignore[import-untyped] # it ships no types
from ministack.core.persistence import save_all  # type: ignore[import-untyped] # it ships no types

_SERVICES = {b"DynamoDB_20120810": "dynamodb", b"AmazonSQS": "sqs"}
_READING = (b"BatchGet", b"Describe", b"Get", b"List", b"Query", b"Scan")
_EC2 = b"/ec2/aws4_request"
"""In the signature of EC2's requests, which name their operation in the body."""
_EC2_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
_LONG_POLL = b"AmazonSQS.ReceiveMessage"
_SETTLE_SECONDS = 1.0
_LARGEST_SHARE = 0.05
"""ministack answers no request while it saves: at most this share of the time."""

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, _Receive, _Send], Coroutine[Any, Any, None]]


class Saver:
    """Notes which services have changed, and saves them while `run` runs."""

    def __init__(self) -> None:
        self._states = ministack._build_persistence_save_dict  # noqa: SLF001 - no public way; checked at the start
        self._changed: set[str] = set()
        self._wake = asyncio.Event()

    def note(self, service: str, operation: bytes) -> None:
        """Note an operation that has been answered."""
        if not operation.startswith(_READING):
            self._changed.add(service)
            self._wake.set()

    async def run(self) -> None:
        """Save the services that have changed, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_SETTLE_SECONDS)
            self._wake.clear()
            changed, self._changed = self._changed, set()
            began = perf_counter()
            save_all({name: state for name, state in self._states().items() if name in changed})
            await asyncio.sleep((perf_counter() - began) / _LARGEST_SHARE)


def saving(app: _App) -> _App:
    """The same ASGI app, which saves its state while it runs."""
    saver = Saver()

    async def wrapped(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            task = asyncio.create_task(saver.run())
            try:
                await app(scope, receive, send)
            finally:
                task.cancel()
            return
        body = bytearray()

        async def read() -> _Message:
            message = await receive()
            body.extend(message.get("body", b""))
            return message

        from_ec2 = _EC2 in _header(scope, b"authorization")
        await app(scope, read if from_ec2 else receive, send)
        service, _, operation = _header(scope, b"x-amz-target").partition(b".")
        if service in _SERVICES:
            saver.note(_SERVICES[service], operation)
        elif from_ec2:
            action = _EC2_ACTION.search(body)
            saver.note("ec2", action[1] if action else b"")

    return wrapped


def polling_while_connected(app: _App) -> _App:
    """The same ASGI app, which ends a receive call when its client has left."""

    async def wrapped(scope: _Message, receive: _Receive, send: _Send) -> None:
        if _header(scope, b"x-amz-target") != _LONG_POLL:
            await app(scope, receive, send)
            return
        body_read = asyncio.Event()

        async def read() -> _Message:
            message = await receive()
            if not message.get("more_body"):
                body_read.set()
            return message

        async def client_gone() -> None:
            await body_read.wait()
            while (await receive())["type"] != "http.disconnect":
                continue

        handling, watching = asyncio.create_task(app(scope, read, send)), asyncio.create_task(client_gone())
        try:
            await asyncio.wait({handling, watching}, return_when=asyncio.FIRST_COMPLETED)
            if handling.done():
                handling.result()
        finally:
            handling.cancel()
            watching.cancel()

    return wrapped


def _header(scope: _Message, name: bytes) -> bytes:
    value: bytes = dict(scope.get("headers", ())).get(name, b"")
    return value


if __name__ == "__main__":
    # Until SIGTERM, as configured by ministack's own variables.
    ministack.app = saving(polling_while_connected(ministack.app))
    ministack.main()
