"""The attributes that each queue should have, for `facerec provision` and for the workers' comparison. Pure."""

import json
from collections.abc import Mapping

from facerec.settings import Settings
from facerec.settings.resources import SQS_MESSAGE_BYTES

Attributes = dict[str, str]

_DAY_SECONDS = 86_400
_REQUEST_RETENTION_SECONDS = 4 * _DAY_SECONDS
_DEAD_LETTER_RETENTION_SECONDS = 14 * _DAY_SECONDS
_RESPONSE_RETENTION_SECONDS = 3_600
"""Clients wait for a result for some minutes; the output bucket keeps it for days."""
_WORDS = {
    "DelaySeconds": ("delay", " s", "its usual value"),
    "MaximumMessageSize": ("size limit", " bytes", "FACEREC_QUEUE__MAX_MESSAGE_BYTES"),
    "MessageRetentionPeriod": ("retention", " s", "its usual value"),
    "ReceiveMessageWaitTimeSeconds": ("long poll", " s", "FACEREC_QUEUE__WAIT_TIME_SECONDS"),
    "SqsManagedSseEnabled": ("encryption", "", "on"),
    "VisibilityTimeout": ("visibility timeout", " s", "what FACEREC_APP_TIER and its timeouts need"),
}
"""How people read an attribute: its name, its unit, and where its value comes from."""
_REDRIVE = "RedrivePolicy"


def request_queue(settings: Settings, dead_letter_queue_arn: str) -> Attributes:
    """The queue of tasks."""
    return _work_queue(settings, settings.request_visibility_seconds, dead_letter_queue_arn)


def faces_queue(settings: Settings, dead_letter_queue_arn: str) -> Attributes:
    """The queue of detected faces, which invokes the recognition function."""
    return _work_queue(settings, settings.serverless.visibility_seconds, dead_letter_queue_arn)


def response_queue(settings: Settings) -> Attributes:
    """The queue of results."""
    return _attributes(settings, _RESPONSE_RETENTION_SECONDS, settings.queue.max_message_bytes)


def dead_letter_queue(settings: Settings) -> Attributes:
    """A queue of failures: it takes whatever its queue takes, with a reason."""
    return _attributes(settings, _DEAD_LETTER_RETENTION_SECONDS, SQS_MESSAGE_BYTES)


def events_queue(settings: Settings) -> Attributes:
    """The queue of events for Flower; those that a dead Flower has received are soon visible again."""
    retention_seconds = settings.events.retention_seconds
    return _attributes(settings, retention_seconds, SQS_MESSAGE_BYTES) | {"VisibilityTimeout": "5"}


def _work_queue(settings: Settings, visibility_seconds: int, dead_letter_queue_arn: str) -> Attributes:
    redrive = {"deadLetterTargetArn": dead_letter_queue_arn, "maxReceiveCount": settings.queue.max_receives}
    return _attributes(settings, _REQUEST_RETENTION_SECONDS, settings.queue.max_message_bytes) | {
        "VisibilityTimeout": str(visibility_seconds),
        _REDRIVE: json.dumps(redrive),
    }


def _attributes(settings: Settings, retention_seconds: int, max_message_bytes: int) -> Attributes:
    return {
        "DelaySeconds": "0",
        "MaximumMessageSize": str(max_message_bytes),
        "MessageRetentionPeriod": str(retention_seconds),
        "ReceiveMessageWaitTimeSeconds": str(settings.queue.wait_time_seconds),
        "SqsManagedSseEnabled": "true",
    }


def differing(current: Mapping[str, str], wanted: Attributes) -> Attributes:
    """Those of the wanted attributes that a queue does not have; KMS instead of SQS's own encryption is no difference.

    `current` has all attributes of the queue.
    """
    found = {name: value for name, value in wanted.items() if not _same(current.get(name), value)}
    if "KmsMasterKeyId" in current:
        found.pop("SqsManagedSseEnabled", None)
    return found


def unsupported(current: Mapping[str, str], wanted: Attributes) -> list[str]:
    """The wanted attributes that an endpoint does not know.

    AWS returns every attribute, but a redrive policy only if there is one.
    """
    return sorted(wanted.keys() - current.keys() - {_REDRIVE})


def sentences(current: Mapping[str, str], wanted: Attributes) -> list[str]:
    """A sentence for each difference that matters."""
    missing = unsupported(current, wanted)
    found = []
    for name, value in differing(current, wanted).items():
        if name == _REDRIVE:
            found += _redrive_sentences(json.loads(current.get(name) or "{}"), json.loads(value))
        elif name not in missing:
            words, unit, source = _WORDS[name]
            found.append(f"its {words} is {current[name]}{unit}, not {source} ({value})")
    return found


def _redrive_sentences(current: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    if not current:
        return ["it has no redrive policy: a task that ends every worker would be delivered for ever"]
    target, expected = (str(policy.get("deadLetterTargetArn")) for policy in (current, wanted))
    receives, limit = (str(policy.get("maxReceiveCount")) for policy in (current, wanted))
    found = []
    if target != expected:
        found.append(f"its dead letters go to {_name(target)!r}, not to {_name(expected)!r}")
    if receives != limit:
        found.append(f"it delivers {receives} times, not FACEREC_QUEUE__MAX_RECEIVES ({limit}) times")
    return found


def _name(arn: str) -> str:
    return arn.rsplit(":", 1)[-1]


def _same(current: str | None, wanted: str) -> bool:
    if not current or not wanted.startswith("{"):
        return current == wanted
    read, asked = json.loads(current), json.loads(wanted)
    # Some endpoints return the count as text.
    return {key: str(value) for key, value in read.items()} == {key: str(value) for key, value in asked.items()}
