"""What surrounds the handlers of the functions: Lambda's context, the queue that invokes, a use case, a driver."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from facerec.answering import PortWrapper, StageTimer
from facerec.aws.sqs.queue import FailedEntry
from facerec.celery_sqs.envelope import task_message
from facerec.celery_sqs.received_task import read_task
from facerec.delivery.driver import TaskDriver, decode_request
from facerec.errors import FacerecError
from facerec.message_base import ObjectRef
from facerec.messages import TASK_NAME, Forwarded, Outcome, RecognitionRequest, RecognitionResult, Request
from facerec.serverless.invocation import Invocation
from tests.fakes.dead_letters import InMemoryDeadLetterQueue

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@dataclass
class Context:
    """An invocation with so much time."""

    seconds: float = 15.0
    function_name: str = "facerec-face-detection"
    memory_limit_in_mb: str = "1769"
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:facerec-face-detection"
    aws_request_id: str = "8d0f3a0e-0000-4000-8000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        return round(self.seconds * 1000)


@dataclass
class InvokingQueue:
    """Keeps the waits that were set, by receipt; raises `outage` while it is set."""

    name: str = "facerec-req-queue"
    waits: dict[str, int] = field(default_factory=dict)
    outage: FacerecError | None = None

    def change_visibility_batch(self, receipts: Sequence[str], seconds: int) -> Sequence[FailedEntry]:
        if self.outage is not None:
            raise self.outage
        assert not self.waits.keys() & set(receipts)
        self.waits |= dict.fromkeys(receipts, seconds)
        return []


@dataclass
class DetectionHalf:
    """A use case that does what the file name says; a photo with another name has two faces, which go onward."""

    seen: list[tuple[RecognitionRequest, int]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    raised: dict[str, Exception] = field(default_factory=dict)
    """By file name."""
    held: threading.Event = field(default_factory=threading.Event)
    """The photo `hold` waits for it."""

    def with_ports(self, wrap: PortWrapper) -> Self:
        return self

    def run(self, request: RecognitionRequest, attempt: int, timer: StageTimer) -> RecognitionResult | Forwarded:
        self.seen.append((request, attempt))
        stem = request.filename.removesuffix(".jpg")
        if stem == "hold":
            self.held.wait()
        if stem in self.raised:
            raise self.raised[stem]
        if stem in set(Outcome):
            return self._result(request, Outcome(stem), attempt)
        return Forwarded(2)

    def fail(self, request: Request, reason: str, attempt: int, *, retryable: bool = False) -> RecognitionResult:
        self.failed.append(reason)
        return self._result(request, Outcome.FAILED, attempt)

    def _result(self, request: Request, outcome: Outcome, attempt: int) -> RecognitionResult:
        return RecognitionResult(
            request_id=request.request_id,
            result="",
            filename=request.filename,
            outcome=outcome,
            detail="the picture is cut off or damaged" if outcome is Outcome.INVALID_IMAGE else None,
            attempt=attempt,
            completed_at=NOW,
        )


@dataclass
class DetectionTier:
    """The half, its dead-letter queue, and drivers for it."""

    half: DetectionHalf = field(default_factory=DetectionHalf)
    dead_letters: InMemoryDeadLetterQueue = field(default_factory=InMemoryDeadLetterQueue)
    max_receives: float = 4

    def driver(self, invocation: Invocation) -> TaskDriver[RecognitionRequest]:
        return TaskDriver(
            self.half,
            decode,
            invocation.guarded(self.dead_letters),
            None,
            invocation.retry_budget,
            max_receives=self.max_receives,
            on_end=invocation.records.append,
        )

    def reasons(self) -> list[str]:
        """Those of the dead letters."""
        with self.dead_letters.look() as letters:
            return [letter.reason for letter in letters]


def decode(body: str) -> tuple[RecognitionRequest, RecognitionRequest]:
    """As the detection function."""
    request = decode_request(read_task(body, [TASK_NAME]).argument, "in")
    return request, request


def request_for(filename: str, request_id: Any) -> RecognitionRequest:
    """A request for a photo in the input bucket."""
    return RecognitionRequest(
        request_id=request_id,
        input=ObjectRef(bucket="in", key=f"{request_id}/{filename}", size=3),
        filename=filename,
        reply_to="facerec-resp-queue",
        submitted_at=NOW,
    )


def sqs_record(number: int, body: object, attempt: int = 1) -> dict[str, Any]:
    """A record of an event of SQS, with this message id and receipt."""
    return {
        "messageId": f"message-{number}",
        "receiptHandle": f"receipt-{number}",
        "body": body if not isinstance(body, RecognitionRequest) else task_message(body),
        "attributes": {"ApproximateReceiveCount": str(attempt), "SentTimestamp": "1545082649183"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:facerec-req-queue",
        "awsRegion": "us-east-1",
    }
