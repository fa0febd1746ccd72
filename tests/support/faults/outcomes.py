"""The outcome of every upload, by its client and by what AWS holds once the queues are empty."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facerec.messages import Outcome
from tests.support.faults.clients import ClientOutcome, Photo
from tests.support.faults.proxied_system import ProxiedSystem
from tests.support.faults.rules import Call
from tests.support.load import percentile

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COUNTS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible", "ApproximateNumberOfMessagesDelayed")
_LOOK_SECONDS = 0.25
_QUIET_LOOKS = 4
_RECEIVE_AT_ONCE = 10
_OK = 200
_DONE = frozenset(Outcome)

Row = dict[str, Any]


class AcceptedTasks:
    """The tasks that SQS accepted: the system owes an answer to each, even if its sender saw an error."""

    def __init__(self, request_queue: str) -> None:
        self._queue = f"/{request_queue}"
        self._lock = threading.Lock()
        self._bodies: list[str] = []

    def note(self, call: Call, status: int) -> None:
        """Record a call that AWS answered with this status; for `FaultyAws.on_answer`."""
        if call.service == "sqs" and call.operation.startswith("SendMessage") and status == _OK:
            asked = json.loads(call.body)
            if asked["QueueUrl"].endswith(self._queue):
                with self._lock:
                    self._bodies.append(call.body.decode())

    def ids(self) -> set[str]:
        """Every id in their bodies, those of the requests among them."""
        with self._lock:
            return {found for body in self._bodies for found in _ID.findall(body)}

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._bodies.clear()


@dataclass(frozen=True, slots=True)
class FinalState:
    """What AWS holds: the file name of each input, all outputs, and the dead letters' reasons, by request id.

    `handled` counts, from the workers' logs, how often they finished a task; `redelivered` are the tasks that were
    delivered more than once.
    """

    inputs: dict[str, str]
    outputs: dict[str, list[dict[str, Any]]]
    dead: dict[str, str | None]
    handled: Mapping[str, int]
    redelivered: AbstractSet[str] = frozenset()


def wait_until_idle(system: ProxiedSystem, limit_seconds: float) -> bool:
    """Wait until the request queue and the response queue stay empty; returns whether they did in time."""
    sqs = system.aws("sqs")
    urls = [sqs.get_queue_url(QueueName=f"{system.prefix}-{name}-queue")["QueueUrl"] for name in ("req", "resp")]

    deadline, quiet = time.monotonic() + limit_seconds, 0
    while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
        quiet = 0 if any(held(sqs, url) for url in urls) else quiet + 1
        time.sleep(_LOOK_SECONDS)
    return quiet >= _QUIET_LOOKS


def held(sqs: Any, url: str) -> int:
    """How many messages a queue has: waiting, in flight and delayed."""
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(_COUNTS))["Attributes"]
    return sum(int(counts[name]) for name in _COUNTS)


def final_state(system: ProxiedSystem) -> FinalState:
    """Read everything without the proxy, and take the dead letters out of their queue."""
    s3 = system.aws("s3")

    def keys(bucket: str) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=f"{system.prefix}-{bucket}-bucket")
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    outputs: dict[str, list[dict[str, Any]]] = {}
    for key in keys("out"):
        body = s3.get_object(Bucket=f"{system.prefix}-out-bucket", Key=key)["Body"].read()
        outputs.setdefault(key.partition("/")[0], []).append(json.loads(body))
    inputs = dict(key.split("/", 1) for key in keys("in") if _ID.match(key))
    lines = (line for worker in system.workers for line in system.log(worker).splitlines() if '"recognised"' in line)
    ends = [json.loads(line) for line in lines]
    handled = Counter(end["request_id"] for end in ends if end["outcome"] in _DONE)
    redelivered = {end["request_id"] for end in ends if end["attempt"] > 1}
    return FinalState(inputs, outputs, dict(_dead_letters(system)), handled, redelivered)


def _dead_letters(system: ProxiedSystem) -> list[tuple[str, str | None]]:
    sqs = system.aws("sqs")
    url = sqs.get_queue_url(QueueName=f"{system.prefix}-req-queue-dlq")["QueueUrl"]
    found: list[tuple[str, str | None]] = []
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=_RECEIVE_AT_ONCE, MessageAttributeNames=["All"], WaitTimeSeconds=0
    ).get("Messages"):
        for message in messages:
            reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue")
            found += [(request_id, reason) for request_id in set(_ID.findall(message["Body"]))]
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def judge(outcomes: Sequence[ClientOutcome], left: FinalState, sent: set[str], report: Callable[[str], None]) -> Row:
    """Count the outcomes of these clients' photos; `sent` are the ids of the tasks that SQS accepted.

    Each wrong or lost photo, and each wrong dead letter, is reported. Outputs of other photos do not count; an output
    without a photo is wrong.
    """
    by_name = {outcome.photo.filename: outcome.photo for outcome in outcomes}
    ours = {request_id: name for request_id, name in left.inputs.items() if name in by_name}
    outputs = {
        request_id: results
        for request_id, results in left.outputs.items()
        if request_id in ours or request_id not in left.inputs
    }
    accepted = ours.keys() & sent
    dead = {request_id: reason for request_id, reason in left.dead.items() if request_id in ours}
    amiss = {task: why for task, why in dead.items() if why is None or by_name[ours[task]].answer is not None}
    lost = {task for task in accepted if not outputs.get(task) and dead.get(task) is None}
    lost |= {task for task in accepted - dead.keys() if any(map(_failed, outputs.get(task, [])))}
    wrong = [outcome.text or "" for outcome in outcomes if outcome.text is not None and not _right(outcome)]
    wrong += [
        f"stored {result['filename']}: {result['result']}"
        for request_id, results in outputs.items()
        for result in results
        if not _right_result(request_id, result, by_name)
    ]
    wrong += [
        f"fetched {outcome.photo.filename} under {outcome.request_id}: {outcome.fetched}"
        for outcome in outcomes
        if outcome.fetched is not None
        and not _right_result(outcome.request_id or "", outcome.fetched, {outcome.photo.filename: outcome.photo})
    ]
    unserved = [outcome for outcome in outcomes if not _served(outcome) and outcome.request_id not in lost]
    twice = [request_id for request_id, results in outputs.items() if len(results) > 1]
    twice += [outcome.request_id or "" for outcome in outcomes if _differs(outcome, outputs)]
    _report(
        report,
        lost=[f"{task} of {ours[task]}" for task in lost],
        unserved=[f"{outcome.photo.filename} {outcome.told or ''}" for outcome in unserved],
        wrong=wrong,
        twice=twice,
        dead=[f"{ours[task]}: {why}" for task, why in amiss.items()],
    )
    seconds = [outcome.seconds for outcome in outcomes if outcome.text is not None]
    return {
        "requests": len(outcomes),
        "answered": sum(outcome.text is not None for outcome in outcomes),
        "fetched": sum(outcome.fetched is not None for outcome in outcomes),
        "told": sum(outcome.told is not None for outcome in outcomes),
        "accepted": len(accepted),
        "sent_again": sum(outcome.refused + outcome.broken for outcome in outcomes),
        "handled": sum(left.handled.get(task, 0) for task in accepted),
        "redelivered": len(accepted & left.redelivered),
        "wrong": len(wrong),
        "lost": len(lost) + len(unserved),
        "duplicates_visible": len(twice),
        "dlq": len(dead),
        "dlq_amiss": len(amiss),
        "p50_s": round(percentile(seconds, 50), 2) if seconds else None,
        "p95_s": round(percentile(seconds, 95), 2) if seconds else None,
    }


def _served(outcome: ClientOutcome) -> bool:
    """Whether the client has its answer; a final refusal or a failure is an answer only to poison."""
    failed = outcome.told is not None or (outcome.fetched is not None and _failed(outcome.fetched))
    return outcome.photo.answer is None if failed else outcome.text is not None or outcome.fetched is not None


def _failed(result: Mapping[str, Any]) -> bool:
    return bool(result["outcome"] == Outcome.FAILED)


def _right(outcome: ClientOutcome) -> bool:
    return outcome.text == f"{Path(outcome.photo.filename).stem}:{outcome.photo.answer}"


def _right_result(request_id: str, result: dict[str, Any], photos: dict[str, Photo]) -> bool:
    """Whether a stored result is this request's own, and names its person."""
    photo = photos.get(result["filename"])
    if result["request_id"] != request_id or photo is None:
        return False
    if _failed(result):
        return True  # a failure without poison, or without a dead letter, is counted as lost
    return bool(result["result"] == photo.answer)


def _differs(outcome: ClientOutcome, outputs: dict[str, list[dict[str, Any]]]) -> bool:
    """Whether the client's answer differs from the result stored under its request id."""
    stored = outputs.get(outcome.request_id or "", [])
    return outcome.text is not None and [result["result"] for result in stored[:1]] != [outcome.text.rpartition(":")[2]]


def _report(report: Callable[[str], None], **found: list[str]) -> None:
    for what, lines in found.items():
        for line in lines[:5]:
            report(f"{what}: {line}")
