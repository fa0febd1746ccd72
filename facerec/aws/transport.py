"""kombu's SQS transport as Celery uses it here, with what it lacks in version 5.7.

Each difference, and why:

- the client: one per process instead of one per channel (making one costs about as much as sending twenty tasks), with
  boto3's own credential chain (kombu's asynchronous receive signs with that client's credentials, so those of an
  instance role are refreshed), and with short timeouts, since messages are given back on the event loop;
- queues: found by name and never created; kombu lists all queues, or creates one with wrong attributes;
- receiving: a receive that fails is an empty one and a pause that grows, and a message that cannot be read stays in the
  queue until its redrive policy moves it (`facerec.aws.receives`); with kombu's own either ends the worker;
- deleting: several messages with one call, beside the event loop (`facerec.aws.deletions`); kombu deletes each on it;
- visibility: receives ask for the timeout of our settings, and what is held is extended (`facerec.aws.visibility`);
- draining: no receive begins while the process's intake is closed (`facerec.aws.intake`);
- giving back: a rejected message comes back after a pause that grows with each delivery; kombu deletes it where the
  queue has no redrive policy. What was not begun at shutdown is visible at once; kombu hides it for a long poll's time.
"""

import functools
import random
import threading
from typing import TYPE_CHECKING, Any

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from kombu.transport import SQS, virtual
from vine import ensure_promise

from facerec.aws.clients import USER_AGENT
from facerec.aws.deletions import Deletions
from facerec.aws.intake import INTAKE
from facerec.aws.pauses import pause_seconds, redelivery_seconds
from facerec.aws.receives import Receiver, check_task
from facerec.aws.visibility import VisibilityKeeper
from facerec.errors import QueueMissing

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

# The stubs of kombu know almost none of the methods that are called and overridden here.
_BaseQoS: Any = virtual.QoS
_BaseChannel: Any = SQS.Channel

log = structlog.get_logger(__name__)

QUEUE_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
"""SQS's error codes for it, in its query and its JSON protocol."""

_client_lock = threading.Lock()


class QoS(_BaseQoS):  # type: ignore[misc]  # untyped on purpose, see above
    """What the consumer holds, kept hidden meanwhile."""

    channel: "Channel"

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message came in."""
        super().append(message, delivery_tag)
        self.channel.keeper.hold(delivery_tag, message.delivery_info["sqs_queue"])

    def ack(self, delivery_tag: str) -> None:
        """A message was given back, or was none of a queue."""
        super().ack(delivery_tag)
        self.channel.keeper.release(delivery_tag)

    def finish(self, delivery_tag: str, queue_url: str) -> None:
        """A task has ended: its place is free at once, its message stays hidden until SQS has deleted it."""
        super().ack(delivery_tag)
        self.channel.deletions.add(delivery_tag, queue_url)


class Channel(_BaseChannel):  # type: ignore[misc]  # untyped on purpose, see above
    """One consumer or producer; `transport_options`: region, endpoint_url, wait_time_seconds, visibility_timeout."""

    QoS = QoS
    _asynsqs: Receiver | None = None
    _failures = 0

    @functools.cached_property
    def keeper(self) -> VisibilityKeeper:
        """The heartbeat of what this channel holds."""
        keeper = VisibilityKeeper(self.sqs(), self.visibility_timeout)
        INTAKE.watch(keeper)
        return keeper

    @functools.cached_property
    def deletions(self) -> Deletions:
        """What this channel has finished and is to be deleted."""
        return Deletions(self.sqs(), settled=self.keeper.release)

    def new_sqs_client(self, *_args: Any, **_credentials: Any) -> "SQSClient":
        """The process's client."""
        return _client(self.region, self.transport_options.get("endpoint_url"))

    def asynsqs(self, queue: str | None = None) -> Receiver:
        """The asynchronous client, which never raises."""
        del queue
        if self._asynsqs is None:
            self._asynsqs = Receiver(sqs_connection=self.sqs(), region=self.region, on_outcome=self._received)
        return self._asynsqs

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Have the message deleted, for good."""
        del multiple
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            return  # restored already
        self.qos.finish(delivery_tag, message.delivery_info["sqs_queue"])

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give the message back, to be delivered again after a pause."""
        del requeue
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            return  # restored already
        receives = int(message.delivery_info["sqs_message"]["Attributes"]["ApproximateReceiveCount"])
        self._show(message, redelivery_seconds(receives, random.random()))  # noqa: S311 - no secret
        self.qos.ack(delivery_tag)

    def close(self) -> None:
        """Stop consuming, delete what is finished, and make what was not begun visible at once."""
        if "deletions" in self.__dict__:
            self.deletions.stop()
        if "keeper" in self.__dict__:
            self.keeper.stop()  # first: a beat would hide again what is given back
        super().close()
        if "keeper" in self.__dict__:
            self.keeper.let_go()
        INTAKE.end(self)

    def _update_queue_cache(self, queue_name_prefix: str) -> None:
        """Override kombu's listing of every queue."""

    def _new_queue(self, queue: str, **_kwargs: Any) -> str:
        """The queue's URL; raises `QueueMissing`, and botocore's errors, which kombu knows."""
        if queue not in self._queue_cache:
            try:
                self._queue_cache[queue] = self.sqs().get_queue_url(QueueName=queue)["QueueUrl"]
            except ClientError as exc:
                if exc.response["Error"]["Code"] in QUEUE_MISSING:
                    raise QueueMissing(queue) from exc
                raise
        url: str = self._queue_cache[queue]
        return url

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
        except BotoCoreError as exc:  # no credentials to sign with, at the moment
            self._received(str(exc))
            received({})
            return answered

    def _received(self, failure: str | None) -> None:
        if failure is None:
            if self._failures:
                log.info("queue_reachable_again", failures=self._failures)
            self._failures = 0
            return
        if not self._failures:
            log.warning("queue_unreachable", reason=failure)
        self._failures += 1

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
            try:
                payload = self._message_to_python(message, qname, queue)
                check_task(self.Message(payload, channel=self))
                callback(payload)
            except Exception as exc:  # noqa: BLE001 - what other senders put into the queue can break anything
                log.warning("message_unreadable", message_id=message.get("MessageId"), queue=qname, reason=repr(exc))
                self.qos.ack(message["ReceiptHandle"])
        return len(received)

    def _restore(self, message: Any, *_args: Any, **_kwargs: Any) -> None:
        self._show(message, 0)

    def _show(self, message: Any, seconds: int) -> None:
        info = message.delivery_info
        try:
            self.sqs().change_message_visibility(
                QueueUrl=info["sqs_queue"],
                ReceiptHandle=info["sqs_message"]["ReceiptHandle"],
                VisibilityTimeout=seconds,
            )
        except (BotoCoreError, ClientError) as exc:
            # It comes back by itself when its visibility timeout is over.
            log.warning("message_not_given_back", reason=str(exc))
        except Exception as exc:
            # So does this one, where a proxy has answered what botocore cannot parse; but its place must become free.
            log.exception("message_not_given_back", reason=repr(exc))


class Transport(SQS.Transport):
    """Register as `broker_transport="facerec.aws.transport:Transport"`."""

    Channel = Channel


@functools.lru_cache(maxsize=4)
def _cached_client(region: str, endpoint_url: str | None) -> "SQSClient":
    config = Config(
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        user_agent=USER_AGENT,
    )
    return boto3.Session(region_name=region).client("sqs", endpoint_url=endpoint_url, config=config)


def _client(region: str, endpoint_url: str | None) -> "SQSClient":
    with _client_lock:  # two threads must not make one each
        return _cached_client(region, endpoint_url)
