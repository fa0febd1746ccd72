"""A task's message as it is sent to SQS: Celery's message without the values that are defaults. Pure.

An ordinary request fits into 1 024 bytes, the least possible `MaximumMessageSize` of a queue. As Celery and kombu write
it, it has 1 400. Any Celery worker can read it, and monitors show the same.
"""

import json
from typing import Any

from facerec.messages import TASK_NAME, RecognitionRequest

_DEFAULTS: dict[str, Any] = {
    "shadow": None,
    "eta": None,
    "expires": None,
    "group": None,
    "group_index": None,
    "retries": 0,
    "timelimit": [None, None],
    "parent_id": None,
    "kwargsrepr": "",
    "ignore_result": None,
    "replaced_task_nesting": 0,
    "stamped_headers": None,
    "stamps": {},
}
"""Headers that Celery 5 reads with these defaults."""

_UNUSED = frozenset(
    {
        "argsrepr",  # a copy of the header
        "kwargsrepr",
        "correlation_id",  # of replies, which are not sent
        "reply_to",
        "delivery_mode",  # of AMQP
        "priority",
        "delivery_tag",  # replaced by the receipt at each receive
    }
)
"""Properties that have no meaning in a task on SQS."""


def compact(message: dict[str, Any]) -> str:
    """The message as JSON in ASCII without spaces; a task (content JSON, not encoded) without its default values."""
    headers, properties = message.get("headers") or {}, message.get("properties") or {}
    if "task" in headers and message.get("content-type") == "application/json" and not properties.get("body_encoding"):
        message = message | {
            "body": _compact_body(message["body"]),
            "headers": {name: value for name, value in headers.items() if not is_default(name, value)},
            "properties": {
                name: value
                for name, value in properties.items()
                if name not in _UNUSED and not (name == "body_encoding" and value is None)
            },
        }
    return _json(message)


def task_message(request: RecognitionRequest) -> str:
    """A request as a task's message: what the web tier's Celery would send, for senders without Celery."""
    argument = request.model_dump(mode="json", exclude_none=True)
    return _json(
        {
            "headers": {"lang": "py", "task": TASK_NAME, "id": str(request.request_id)},
            "properties": {},
            "body": _json([[argument], {}, {}]),
            "content-type": "application/json",
            "content-encoding": "utf-8",
        }
    )


def is_default(name: str, value: Any) -> bool:
    """Whether Celery reads a header without this value as it reads this value."""
    return name in _DEFAULTS and value == _DEFAULTS[name]


def _compact_body(body: str) -> str:
    args, kwargs, embed = json.loads(body)
    return _json([args, kwargs, {name: value for name, value in embed.items() if value is not None}])


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
