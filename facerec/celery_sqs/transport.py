"""kombu's SQS transport with what it lacks in version 5.7; ADRs 12 and 18 give the reasons.

- The client: one per process, with boto3's own credential chain and short timeouts. kombu makes one per channel, which
  costs about as much as sending twenty tasks.
- Queues: found by name and never created. kombu lists all queues, or creates one with wrong attributes.
- Sending: to standard queues only, without the values that are defaults (`facerec.celery_sqs.envelope`).
- Receiving: Celery's synchronous loop with one short long poll at a time, behind the process's consumer gate. A receive
  that fails counts as an empty one, and a backoff follows. With kombu's transport it ends the worker.
- Several queues: one long poll of each is open at once (`facerec.celery_sqs.open_receives`). With kombu's transport a
  message waits for the long polls of the other queues.
- Reading: a message that is no task becomes a dead letter with the reason. With kombu's transport it ends the worker,
  or is delivered again and again.
- In flight: `facerec.celery_sqs.in_flight` hides, deletes and gives back. kombu extends no visibility timeout, deletes
  each message by itself, and loses rejected messages if the queue has no redrive policy.
"""

import functools
import math
import random
import threading
from queue import Empty
from typing import TYPE_CHECKING, Any

import structlog
from botocore.config import Config
from kombu.transport import SQS

from facerec.aws.clients import USER_AGENT, aws_session
from facerec.aws.quick_calls import QuickSqs
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterWriter
from facerec.aws.sqs.queue import SqsQueue
from facerec.background import OutageLog, backoff_seconds
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.celery_sqs.envelope import compact
from facerec.celery_sqs.in_flight import InFlightMessage, InFlightMessages
from facerec.celery_sqs.open_receives import OpenReceives
from facerec.celery_sqs.received_task import read_faces, read_task, task_id
from facerec.errors import InvalidMessage, Transient

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

# The stubs of kombu know almost none of the methods that are called and overridden here.
_BaseChannel: Any = SQS.Channel
_BaseTransport: Any = SQS.Transport
_client_lock = threading.Lock()


def broker_client(region: str, endpoint_url: str | None) -> "SQSClient":
    """The process's SQS client, with short timeouts: an upload must not wait long for an SQS that does not answer."""
    with _client_lock:  # two threads must not make one each
        return _cached_client(region, endpoint_url)


@functools.lru_cache(maxsize=4)
def _cached_client(region: str, endpoint_url: str | None) -> "SQSClient":
    config = Config(
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        user_agent=USER_AGENT,
    )
    session = aws_session(region)
    client: Any = QuickSqs(session.client("sqs", endpoint_url=endpoint_url, config=config), session)
    return client  # type: ignore[no-any-return]  # it stands for boto3's


class Channel(_BaseChannel):  # type: ignore[misc]  # untyped on purpose, see above
    """One consumer or producer; `transport_options`: region, endpoint_url.

    And for consumers: wait_time_seconds; visibility_timeout; `consumer_gate`; `tasks`, the names of the tasks, beside
    which every message is a dead letter, as one that is rejected in the last of `max_receives` deliveries;
    `faces_queue`, whose messages have no envelope; `dead_letter_queues` by queue; `dead_lettered`, called after each
    dead letter.
    """

    do_restore = False  # `InFlightMessages.stop` gives back the messages whose tasks were not begun

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._queues: dict[str, SqsQueue] = {}
        self._outages: dict[str, OutageLog] = {}
        self._receives: OpenReceives[MessageTypeDef] = OpenReceives(self._receive_or_give_back)
        self._in_flight: InFlightMessages | None = None
        super().__init__(*args, **kwargs)
        self._gate: ConsumerGate = self.transport_options.get("consumer_gate") or ConsumerGate()

    @property
    def in_flight(self) -> InFlightMessages:
        """The messages of this channel that are in flight."""
        if self._in_flight is None:
            options = self.transport_options
            self._in_flight = InFlightMessages(
                {
                    queue: SqsDeadLetterWriter(self._queue(dead_letters))
                    for queue, dead_letters in options.get("dead_letter_queues", {}).items()
                },
                visibility_timeout_seconds=self.visibility_timeout,
                max_receives=options.get("max_receives", math.inf),
                dead_lettered=options.get("dead_lettered", lambda: None),
            )
            self._gate.watch(self._in_flight)
        return self._in_flight

    def new_sqs_client(self, *_args: Any, **_credentials: Any) -> "SQSClient":
        """The process's client."""
        return broker_client(self.region, self.transport_options.get("endpoint_url"))

    def drain_events(self, timeout: float | None = None, callback: Any = None, **kwargs: Any) -> None:
        """Receive once and deliver; raises `Empty` if nothing came, and `TimeoutError` if the gate is closed."""
        if self._deliver_answers(0):  # they came before the gate was closed
            return
        if not self._gate.wait_until_open(timeout or 0):
            raise TimeoutError  # Celery then checks whether it has to stop
        queues = [*dict.fromkeys(self._active_queues)]
        if len(queues) < 2:  # noqa: PLR2004 - several
            super().drain_events(timeout=timeout, callback=callback, **kwargs)
            return
        _ = self.in_flight  # made here, not in a thread
        if self.qos.can_consume():
            self._receives.begin(queues, self._get_message_estimate())
        # A queue without an open receive waits for a free place, for which Celery's loop looks again soon.
        if not self._deliver_answers(timeout if len(self._receives) == len(queues) else 0):
            raise Empty

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Free the place of a task that has ended, and delete its message soon."""
        del multiple
        self.qos.ack(delivery_tag)
        self.in_flight.ack(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give the message back: soon if it is to be requeued, otherwise after a wait that grows with each delivery."""
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            return  # it has been settled already
        if requeue:
            # Our own open receive would take it back at once.
            self.in_flight.requeue(delivery_tag, self.wait_time_seconds if self._gate.receiving else 0)
        else:
            self.in_flight.reject(delivery_tag, message.headers["id"])
        self.qos.ack(delivery_tag)

    def close(self) -> None:
        """Stop consuming, delete the finished messages, and give back those whose tasks were not begun."""
        self._receives.stop()
        if self._in_flight is not None:
            self._in_flight.stop()
        super().close()

    def _queue(self, name: str) -> SqsQueue:
        return self._queues.setdefault(name, SqsQueue(self.sqs(), name))

    def _update_queue_cache(self, queue_name_prefix: str) -> None:
        """Override kombu's listing of every queue."""

    def _new_queue(self, queue: str, **_kwargs: Any) -> str:
        """The queue's URL; raises as `SqsQueue`."""
        return self._queue(queue).url

    def queue_declare(self, queue: str, **_kwargs: Any) -> tuple[str, int, int]:
        """Find the queue; raises as `SqsQueue`. kombu also asks for its size, which is read nowhere."""
        self._new_queue(queue)
        return queue, 0, 0

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        delay = self._resolve_delay_seconds(message["properties"]) or 0
        self._queue(queue).send(compact(message), delay)

    def _get_bulk(self, queue: str, *_args: Any, **_kwargs: Any) -> None:
        received = self._receive(queue, self._get_message_estimate())
        if not received:
            raise Empty
        for message in received:
            self._take(message, queue)

    def _deliver_answers(self, seconds: float | None) -> bool:
        """Deliver what the receives from several queues have brought; returns whether there was anything."""
        answered = self._receives.answered(seconds)
        for queue, message in answered:
            self._take(message, queue)
        return bool(answered)

    def _receive_or_give_back(self, name: str, most: int) -> "list[MessageTypeDef]":
        """As `_receive`, but what comes after the gate has closed is given back: the loop may have ended."""
        received = self._receive(name, most)
        if not received or self._gate.wait_while_open(0):
            return received
        for message in received:
            self.in_flight.requeue(message["ReceiptHandle"], 0)
        return []

    def _receive(self, name: str, most: int) -> "list[MessageTypeDef]":
        """Up to `most` messages, and none after a failure or if the gate is closed; they are in flight."""
        outage = self._outages.setdefault(name, OutageLog("queue"))
        if not self._gate.begin_receive(name):
            return []
        try:
            queue = self._queue(name)
            received = queue.receive(
                most,
                wait_seconds=self.wait_time_seconds,
                hidden_seconds=self.visibility_timeout,
                attributes=["ApproximateReceiveCount"],
            )
            messages = [
                InFlightMessage(m["ReceiptHandle"], queue, m["Body"], int(m["Attributes"]["ApproximateReceiveCount"]))
                for m in received
            ]
            for message in messages:
                self.in_flight.add(message)
        except Exception as exc:  # noqa: BLE001 - anything may answer for SQS, and must not end the worker
            outage.failed(exc)
            self._gate.end_receive(name)
            self._gate.wait_while_open(backoff_seconds(outage.failures, random.random()))  # noqa: S311 - no secret
            return []
        finally:
            self._gate.end_receive(name)
        outage.succeeded()
        return received

    def _take(self, message: "MessageTypeDef", queue: str) -> None:
        receipt, text, options = message["ReceiptHandle"], message["Body"], self.transport_options
        try:
            task = read_faces(text) if queue == options["faces_queue"] else read_task(text, options["tasks"])
        except InvalidMessage as exc:
            self.in_flight.dead_letter(receipt, f"it cannot be read: {exc}", task_id(text))
            return
        payload = {
            "headers": task.headers,
            # Celery decodes the body more than once, and cannot settle the message if that fails in its pool.
            "body": "[[], {}, {}]",
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "properties": {
                "delivery_tag": receipt,
                "delivery_info": {"sqs_message": message, "argument": task.argument},
            },
        }
        try:
            self.connection._deliver(payload, queue)  # noqa: SLF001 - as in the method that is overridden
        except Exception as exc:
            log.exception("message_not_taken", request_id=task.headers["id"], reason=repr(exc))
            self.in_flight.reject(receipt, task.headers["id"])
            self.qos.ack(receipt)


class Transport(_BaseTransport):  # type: ignore[misc]  # untyped on purpose, see above
    """Register as `broker_transport="facerec.celery_sqs.transport:Transport"`."""

    Channel = Channel
    implements = SQS.Transport.implements.extend(asynchronous=False)
    # After these errors Celery connects again.
    connection_errors = (*SQS.Transport.connection_errors, Transient)
