"""kombu's SQS transport as Celery uses it here, with what it lacks in version 5.7.

Each difference, and why:

- the client: one per process instead of one per channel (making one costs about as much as sending twenty tasks), with
  boto3's own credential chain (kombu's asynchronous receive signs with that client's credentials, so those of an
  instance role are refreshed), and with short timeouts, since messages are given back on the event loop;
- queues: found by name and never created, and looked up again when they have gone; kombu lists all queues, or creates
  one with wrong attributes, and keeps to the URLs that it knows;
- sending: to standard queues only, without what every receiver takes for granted (`facerec.celery_sqs.envelope`);
- receiving: one that fails (a refused connection, any status, throttling, a queue that is gone, no answer in time) is
  an empty one and a pause that grows; with kombu's own each of these ends the worker, but for
  the last, for which it waits without end;
- reading: what is no task goes to the dead-letter queue with the reason, beside the event loop
  (`facerec.celery_sqs.dead_letter_writer`); with kombu's own it ends the worker, or is delivered again and again;
- deleting: several messages with one call, beside the event loop; kombu deletes each on it;
- visibility: receives ask for the timeout of our settings, and what is held is extended;
- draining: no receive begins while the process's intake is closed;
- giving back: a rejected message comes back after a pause that grows with each delivery, or goes to the dead-letter
  queue after its last; kombu deletes it where the queue has no redrive policy. One that is rejected to be requeued, and
  what was not begun at shutdown, is visible at once unless a long poll of this process is open; kombu hides it for a
  long poll's time in any case.
"""

import random
from typing import TYPE_CHECKING, Any

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from kombu.transport import SQS
from vine import ensure_promise

from facerec.aws.sqs.queue import QUEUE_MISSING, check_taken, pause_seconds, url_in
from facerec.celery_sqs.consumer_gate import INTAKE
from facerec.celery_sqs.envelope import compact
from facerec.celery_sqs.in_flight import HoldingChannel, broker_client, request_id_of
from facerec.celery_sqs.receiver import Receiver, check_task
from facerec.errors import FacerecError, QueueMissing

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = structlog.get_logger(__name__)


class Channel(HoldingChannel):
    """One consumer or producer; `transport_options`: region, endpoint_url, wait_time_seconds, visibility_timeout.

    And for consumers: `task_queue`, where everything but `tasks` is put into `dead_letter_queue`, and so is what is
    rejected in the last of `max_receives` deliveries.
    """

    _asynsqs: Receiver | None = None
    _failures = 0

    def new_sqs_client(self, *_args: Any, **_credentials: Any) -> "SQSClient":
        """The process's client."""
        return broker_client(self.region, self.transport_options.get("endpoint_url"))

    def asynsqs(self, queue: str | None = None) -> Receiver:
        """The asynchronous client, which never raises."""
        del queue
        if self._asynsqs is None:
            self._asynsqs = Receiver(
                sqs_connection=self.sqs(),
                region=self.region,
                wait_seconds=self.wait_time_seconds,
                on_outcome=self._received,
            )
        return self._asynsqs

    def _update_queue_cache(self, queue_name_prefix: str) -> None:
        """Override kombu's listing of every queue."""

    def _new_queue(self, queue: str, **_kwargs: Any) -> str:
        """The queue's URL; raises `QueueMissing`, `Transient`, and botocore's errors, which kombu knows."""
        if queue not in self._queue_cache:
            try:
                self._queue_cache[queue] = url_in(queue, self.sqs().get_queue_url(QueueName=queue))
            except ClientError as exc:
                if exc.response["Error"]["Code"] in QUEUE_MISSING:
                    raise QueueMissing(queue) from exc
                raise
        url: str = self._queue_cache[queue]
        return url

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        body = compact(message)
        delay = self._resolve_delay_seconds(message["properties"]) or 0
        try:
            reply = self.sqs().send_message(QueueUrl=self._new_queue(queue), MessageBody=body, DelaySeconds=delay)
        except ClientError as exc:
            if exc.response["Error"]["Code"] not in QUEUE_MISSING:
                raise
            # The remembered URL may be of a queue that was made anew since.
            del self._queue_cache[queue]
            reply = self.sqs().send_message(QueueUrl=self._new_queue(queue), MessageBody=body, DelaySeconds=delay)
        check_taken(queue, reply)

    def _get_async(self, queue: str, count: int = 1, callback: Any = None) -> Any:
        try:
            return super()._get_async(queue, count, callback)
        except Exception as exc:  # noqa: BLE001 - its URL is not known any more, and anything may answer for SQS
            self._not_begun(exc)
            answered = ensure_promise(callback)
            answered(0)
            return answered

    def _get_from_sqs(
        self, queue_name: str, queue_url: str, connection: Receiver, count: int = 1, callback: Any = None
    ) -> Any:
        answered = ensure_promise(callback)

        def received(messages: dict[str, Any]) -> None:
            try:
                answered(messages)
            finally:
                INTAKE.end(self, empty=not messages.get("Messages"))

        if not INTAKE.begin(self):
            answered({})
            return answered
        try:
            return connection.receive_message(
                queue_name,
                queue_url,
                number_messages=count,
                visibility_timeout=self.visibility_timeout,
                wait_time_seconds=self.wait_time_seconds,
                callback=received,
            )
        except Exception as exc:  # noqa: BLE001 - such as: no credentials to sign with, at the moment
            self._not_begun(exc)
            received({})
            return answered

    def _not_begun(self, exc: Exception) -> None:
        """What escapes from a timer of the event loop ends the polling for good, after one line in the log."""
        if not self._failures and not isinstance(exc, FacerecError | BotoCoreError | ClientError):
            log.error("receive_not_begun", exc_info=exc)
        self._received(str(exc) or repr(exc))

    def _received(self, failure: str | None) -> None:
        if failure is None:
            if self._failures:
                log.info("queue_reachable_again", failures=self._failures)
            self._failures = 0
            return
        if not self._failures:
            log.warning("queue_unreachable", reason=failure)
        self._failures += 1
        if any(code in failure for code in QUEUE_MISSING):
            self._queue_cache.clear()

    def _loop1(self, queue: str, messages_fetched: int | None = None) -> None:
        if self._failures:
            pause = pause_seconds(self._failures, random.random())  # noqa: S311 - no secret
            self.hub.call_later(pause, self._schedule_queue, queue)
        else:
            super()._loop1(queue, messages_fetched)

    def _on_messages_ready(self, queue: str, qname: str, messages: dict[str, Any]) -> int:
        received = messages.get("Messages") or []
        callback = self.connection._callbacks.get(qname)  # noqa: SLF001 - as in the method that is overridden
        if callback is None:  # the consumer has gone meanwhile
            released: int = super()._on_messages_ready(queue, qname, messages)
            return released
        for message in received:
            self._take(message, queue, qname, callback)
        return len(received)

    def _take(self, message: dict[str, Any], queue_url: str, queue: str, callback: Any) -> None:
        opened = None
        try:
            payload = self._message_to_python(message, queue, queue_url)
            if queue == self.transport_options.get("task_queue"):
                opened = self.Message(payload, channel=self)
                check_task(opened, self.transport_options["tasks"])
        except Exception as exc:  # noqa: BLE001 - what other senders put into the queue can break anything
            self.cast_off(message, queue_url, f"it cannot be read: {_words(exc)}", opened)
            return
        try:
            callback(payload)
        except Exception as exc:
            # It stays in the queue, and comes back when its visibility timeout is over.
            log.exception(
                "message_not_taken",
                message_id=message.get("MessageId"),
                request_id=request_id_of(opened),
                reason=repr(exc),
            )
            self.qos.ack(message["ReceiptHandle"])


def _words(exc: Exception) -> str:
    """For an operator: the message of an error that has one of its own, and what kind of error it is else."""
    return (str(exc) if isinstance(exc, FacerecError | TypeError | ValueError) else "") or repr(exc)


class Transport(SQS.Transport):
    """Register as `broker_transport="facerec.celery_sqs.transport:Transport"`."""

    Channel = Channel
