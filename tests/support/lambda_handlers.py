"""A handler for tests of the local Lambda service: each event says what the function does."""

import ctypes
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def handler(event: dict[str, Any], context: Any) -> Any:
    """Do what the event asks for; for records of a queue or a request, what their bodies ask for."""
    if "Records" in event:
        asked = [(record["messageId"], json.loads(record["body"])) for record in event["Records"]]
        failed = [message_id for message_id, one in asked if _do(one, event, context) == "failed"]
        return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}
    if "requestContext" in event:
        return _do({"do": event["rawPath"].strip("/") or "echo"}, event, context)
    return _do(event, event, context)


def _do(asked: dict[str, Any], event: dict[str, Any], context: Any) -> Any:
    if "note" in asked:  # what has begun, for a test in another process
        with Path(asked["note"]).open("a") as file:
            file.write(f"{json.dumps([os.getpid(), asked])}\n")
    action = _ACTIONS.get(asked.get("do", "echo"))
    return asked.get("do") if action is None else action(asked, event, context)


def _raise(*_: Any) -> None:
    raise ValueError("bad")


def _context(_asked: Any, _event: Any, context: Any) -> dict[str, Any]:
    return {"name": context.function_name, "left": context.get_remaining_time_in_millis()}


_BINARY = {"statusCode": 201, "headers": {"Content-Type": "image/png"}, "body": "iVBORw==", "isBase64Encoded": True}
_ACTIONS: dict[str, Callable[[dict[str, Any], dict[str, Any], Any], Any]] = {
    "binary": lambda *_: _BINARY,
    "context": _context,
    "crash": lambda *_: ctypes.string_at(0),  # a segmentation fault
    "echo": lambda _asked, event, _context: event,
    "environ": lambda *_: dict(os.environ),
    "large": lambda *_: "x" * (7 << 20),
    "raise": _raise,
    "sleep": lambda asked, *_: time.sleep(asked.get("seconds", 60)),
}
