"""Runs ministack with gaps closed: `python -m facerec.local.ministack_server [NAME …]`.

The names are those by which it may be addressed, beside those of loopback.

- ministack writes S3 objects to disk at once, but tables, queues and instances only at its orderly end. This wrapper
  also writes them a moment after they change, on the event loop that handles the requests, so the state is consistent.
- ministack continues a long poll after its client has left, and delivers the next message to it; its end waits for
  that poll, too. This wrapper ends the poll.
- ministack parses the condition of a query again for each item of the partition. This wrapper keeps what was parsed.
- ministack answers every web page that a browser on this machine shows. This wrapper refuses that (`page_check`).
- ministack's MQTT listener, which is off unless it is asked for, serves every client (`edge.mqtt_listener`).
"""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping, Sequence
from functools import lru_cache
from time import perf_counter
from typing import Any

from ministack import app as ministack  # type: ignore[import-untyped] # it ships no types
from ministack.core.persistence import save_all  # type: ignore[import-untyped] # it ships no types
from ministack.services import dynamodb  # type: ignore[import-untyped] # it ships no types

from facerec.local.edge.mqtt_listener import ENABLED, make_strict
from facerec.local.page_check import CORS_PREFIX, refusal

_SERVICES = {b"DynamoDB_20120810": "dynamodb", b"AmazonSQS": "sqs"}
_READING = (b"BatchGet", b"Describe", b"Get", b"List", b"Query", b"Scan")
_SIGNED_FOR = re.compile(rb"/(\w+)/aws4_request")
"""The service in the signature of a request."""
_NAMED_IN_BODY = {b"ec2": "ec2", b"iam": "iam"}
"""Services whose requests name their operation in the body."""
_ACTION = re.compile(rb"(?:^|&)Action=(\w+)")
_OF_STACKS = ("cloudformation", "iam", "iot")
"""What a stack may change, also after the request: each further request about it notes that."""
_LONG_POLL = b"AmazonSQS.ReceiveMessage"
_SETTLE_SECONDS = 1.0
_LARGEST_SHARE = 0.05
"""ministack answers no request while it saves: at most this share of the time."""

_PARSERS = ("_tokenize", "_condition_syntax_error")
_KEPT_EXPRESSIONS = 1_000

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


def saving(app: _App, saver: Saver) -> _App:
    """The same ASGI app, which saves its state while it runs."""

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

        signed = _SIGNED_FOR.search(_header(scope, b"authorization"))
        signed_for = signed[1] if signed else b""
        await app(scope, read if signed_for in _NAMED_IN_BODY else receive, send)
        service, _, operation = _header(scope, b"x-amz-target").partition(b".")
        if service in _SERVICES:
            saver.note(_SERVICES[service], operation)
        elif signed_for in _NAMED_IN_BODY:
            action = _ACTION.search(body)
            saver.note(_NAMED_IN_BODY[signed_for], action[1] if action else b"")
        elif signed_for == b"cloudformation":
            for changed in _OF_STACKS:
                saver.note(changed, b"")
        elif signed_for == b"iot" and scope["method"] != "GET":
            saver.note("iot", b"")

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


def for_programs(app: _App, names: Sequence[str] = ()) -> _App:
    """The same ASGI app, which refuses the requests of web pages and sends no CORS headers."""

    async def wrapped(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return

        async def without_cors(message: _Message) -> None:
            if "headers" in message:
                prefix = CORS_PREFIX.encode()
                kept = [line for line in message["headers"] if not line[0].lower().startswith(prefix)]
                message = {**message, "headers": kept}
            await send(message)

        refused = refusal(
            host=_lines(scope, b"host"),
            target=scope.get("raw_path", b"/").decode("latin-1"),
            origin=_lines(scope, b"origin"),
            fetch_site=_lines(scope, b"sec-fetch-site"),
            names=names,
        )
        if refused is None:
            await app(scope, receive, without_cors)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: an answer with status 403
        else:
            status, sentence = refused
            headers = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": status.value, "headers": headers})
            await send({"type": "http.response.body", "body": sentence.encode()})

    return wrapped


def keep_parsed_expressions() -> None:
    """Let ministack's DynamoDB parse each expression once: a query of 10 000 items takes 40 % of the time."""
    for name in _PARSERS:
        setattr(dynamodb, name, lru_cache(_KEPT_EXPRESSIONS)(getattr(dynamodb, name)))


def _header(scope: _Message, name: bytes) -> bytes:
    value: bytes = dict(scope.get("headers", ())).get(name, b"")
    return value


def _lines(scope: _Message, name: bytes) -> str | None:
    """All lines of a header as one value with commas, or None."""
    found = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ",".join(found) if found else None


if __name__ == "__main__":
    # Until SIGTERM, as configured by ministack's own variables.
    names, sys.argv[1:] = sys.argv[1:], []  # ministack reads them, too
    saver = Saver()
    keep_parsed_expressions()
    if os.environ[ENABLED] == "1":
        make_strict(os.environ["BIND_HOST"], lambda: saver.note("sqs", b"SendMessage"))
    ministack.app = for_programs(saving(polling_while_connected(ministack.app), saver), names)
    ministack.main()
