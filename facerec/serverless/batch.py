"""A batch of SQS messages: delivered at once by threads, within the time of the invocation, with partial failures."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from facerec.aws.sqs.queue import FailedEntry
from facerec.celery_sqs.in_flight import redelivery_seconds
from facerec.delivery.driver import TaskDelivery, TaskDriver
from facerec.delivery.stale_tasks import Requeued
from facerec.errors import FacerecError, InvalidMessage
from facerec.serverless.events import sqs_delivery
from facerec.serverless.invocation import Invocation, Unfinished

log = structlog.get_logger(__name__)

_SOON_SECONDS = 1
"""The wait before an unfinished message is delivered again: there was only too little time."""
_Processor: Any = BatchProcessor
"""Powertools' class lacks type annotations."""


class MessageQueue(Protocol):
    """The queue that invokes the function."""

    name: str

    def change_visibility_batch(self, receipts: Sequence[str], seconds: int) -> Sequence[FailedEntry]:
        """Hide messages for so many seconds from now; returns those that SQS has not changed."""


class Messages:
    """Answers events of one queue; `driver` makes the driver of an invocation's deliveries.

    What is not deleted is reported in `batchItemFailures`, each message once, and becomes visible after a short wait:
    the queue's own visibility timeout is six times the function's time limit. An unreadable record is reported, too;
    after its last delivery SQS moves it to the dead-letter queue.
    """

    def __init__(
        self,
        queue: MessageQueue,
        request_id: Callable[[str], str],
        driver: Callable[[Invocation], TaskDriver[Any]],
        *,
        max_receives: int,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._request_id = request_id
        self._driver = driver
        self._max_receives = max_receives
        self._jitter = jitter

    def answer(self, event: Mapping[str, Any], invocation: Invocation) -> dict[str, Any]:
        """Process the messages; returns the failures as Lambda's event source mapping reads them."""
        driver = self._driver(invocation)

        def deliver(record: Mapping[str, Any]) -> None:
            try:
                driver.handle(sqs_delivery(record, self._request_id))
            except Requeued:
                return  # it was sent again, so this one is to be deleted

        processor = _ThreadedProcessor(invocation, give_up=lambda record: self._give_up(driver, record))
        with processor(event["Records"], deliver):
            processor.process()
        self._show_again(processor.failed)
        failures = processor.response()["batchItemFailures"]
        return {"batchItemFailures": list({failure["itemIdentifier"]: failure for failure in failures}.values())}

    def _give_up(self, driver: TaskDriver[Any], record: Mapping[str, Any]) -> bool:
        """Dead-letter an unfinished message after its last delivery, since SQS would do so without a reason."""
        delivery = sqs_delivery(record, self._request_id)
        return delivery.attempt >= self._max_receives and driver.give_up(
            delivery, "it was not finished within the time limit of the function"
        )

    def _show_again(self, failed: Sequence[tuple[Mapping[str, Any], Exception]]) -> None:
        waits: dict[int, list[str]] = {}
        for record, problem in failed:
            delivery = self._delivery(record, problem)
            receipt = record.get("receiptHandle")
            if delivery is None or not isinstance(receipt, str):
                continue
            unfinished = isinstance(problem, Unfinished)
            seconds = _SOON_SECONDS if unfinished else redelivery_seconds(delivery.attempt, self._jitter())
            waits.setdefault(seconds, []).append(receipt)
        for seconds, receipts in waits.items():
            try:
                self._queue.change_visibility_batch(receipts, seconds)
            except FacerecError as exc:
                log.warning("messages_not_given_back", count=len(receipts), reason=str(exc))

    def _delivery(self, record: Mapping[str, Any], problem: Exception) -> TaskDelivery | None:
        """The delivery of a failed record, after a log line for what the driver has not logged."""
        try:
            delivery = sqs_delivery(record, self._request_id)
        except InvalidMessage as exc:
            log.error("record_unreadable", message_id=record.get("messageId"), reason=str(exc))  # noqa: TRY400 - the reason says it all
            return None
        known = {"request_id": delivery.request_id, "attempt": delivery.attempt}
        if isinstance(problem, Unfinished):
            log.warning("delivery_unfinished", reason=str(problem), **known)
        elif not isinstance(problem, FacerecError):
            log.error("delivery_failed", exc_info=problem, **known)
        return delivery


class _ThreadedProcessor(_Processor):  # type: ignore[misc]  # untyped on purpose, see above
    """Powertools' processor with a thread for each record, and an end that Lambda does not have to enforce."""

    def __init__(self, invocation: Invocation, *, give_up: Callable[[Mapping[str, Any]], bool]) -> None:
        super().__init__(EventType.SQS, raise_on_entire_batch_failure=False)
        self._invocation = invocation
        self._give_up = give_up
        self.failed: list[tuple[Mapping[str, Any], Exception]] = []

    def process(self) -> list[Any]:
        """Return Powertools' entry of each record."""
        ends = self._invocation.map(self.handler, self.records)
        return [self._entry(record, end) for record, end in zip(self.records, ends, strict=True)]

    def _entry(self, record: Mapping[str, Any], end: Exception | None) -> Any:
        # Lambda takes an empty identifier for a failure of the whole batch: nothing is lost.
        shown = SQSRecord({"messageId": "", **record})
        if end is None or (isinstance(end, Unfinished) and self._give_up(record)):
            return self.success_handler(shown, None)
        self.failed.append((record, end))
        return self.failure_handler(shown, (type(end), end, end.__traceback__))
