"""What a consumer of tasks holds, and what becomes of it: deleted, given back, or put into the dead-letter queue."""

import functools
import math
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from kombu.transport import SQS, virtual

from facerec.aws.clients import USER_AGENT
from facerec.aws.quick_calls import QuickSqs
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetters
from facerec.aws.sqs.queue import redelivery_seconds
from facerec.celery_sqs.ack_batcher import Deletions
from facerec.celery_sqs.consumer_gate import INTAKE
from facerec.celery_sqs.dead_letter_writer import CastOff, CastOffs
from facerec.celery_sqs.visibility import VisibilityKeeper

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_lock = threading.Lock()


@dataclass(frozen=True)
class BrokerClient:
    """Stands for `Clients` where only SQS is called."""

    sqs: "SQSClient"


def broker_client(region: str, endpoint_url: str | None) -> "SQSClient":
    """With short timeouts, since some calls are made on the event loop."""
    with _lock:  # two threads must not make one each
        return _cached(region, endpoint_url)


@functools.lru_cache(maxsize=4)
def _cached(region: str, endpoint_url: str | None) -> "SQSClient":
    config = Config(
        connect_timeout=3,
        read_timeout=5,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=32,
        user_agent=USER_AGENT,
    )
    session = boto3.Session(region_name=region)
    client: Any = QuickSqs(session.client("sqs", endpoint_url=endpoint_url, config=config), session)
    return client  # type: ignore[no-any-return]  # it stands for boto3's


# The stubs of kombu know almost none of the methods that are called and overridden here.
_BaseQoS: Any = virtual.QoS
_BaseChannel: Any = SQS.Channel
log = structlog.get_logger(__name__)
_OUT_OF_REACH_SECONDS = 10.0
"""So long nothing is given back after a call that got no answer: each may take a quarter of a minute."""


class QoS(_BaseQoS):  # type: ignore[misc]  # untyped on purpose, see above
    """What the consumer holds, kept hidden meanwhile."""

    channel: "HoldingChannel"

    def append(self, message: Any, delivery_tag: str) -> None:
        """A message came in."""
        super().append(message, delivery_tag)
        self.channel.keeper.hold(delivery_tag, message.delivery_info["sqs_queue"])

    def ack(self, delivery_tag: str) -> None:
        """A message was given back, or was none of a queue."""
        super().ack(delivery_tag)
        self.channel.keeper.release(delivery_tag)

    def free(self, delivery_tag: str) -> None:
        """A task has ended: its place is free at once, its message stays hidden until SQS has deleted it."""
        super().ack(delivery_tag)


class HoldingChannel(_BaseChannel):  # type: ignore[misc]  # untyped on purpose, see above
    """kombu's channel, as far as it concerns the messages that have been received."""

    QoS = QoS
    _no_giving_back_until = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        sqs = self.sqs()
        self.keeper = VisibilityKeeper(sqs, self.visibility_timeout)
        self._deletions = Deletions(sqs, settled=self.keeper.release)
        self._castoffs = CastOffs(
            SqsDeadLetters(BrokerClient(sqs), self.transport_options.get("dead_letter_queue", "")),
            stored=lambda castoff: self._deletions.add(castoff.receipt, castoff.queue_url),
            left=lambda castoff: self.keeper.release(castoff.receipt),
        )
        INTAKE.watch(self.keeper)
        self._max_receives: float = self.transport_options.get("max_receives", math.inf)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Have the message deleted, for good."""
        del multiple
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            return  # restored already
        self.qos.free(delivery_tag)
        self._deletions.add(delivery_tag, message.delivery_info["sqs_queue"])

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 - kombu's signature
        """Give the message back, to be delivered again: soon if it is to be requeued, after a growing pause else."""
        try:
            message = self.qos.get(delivery_tag)
        except KeyError:
            return  # restored already
        info = message.delivery_info
        receives = int(info["sqs_message"]["Attributes"]["ApproximateReceiveCount"])
        last = not requeue and receives >= self._max_receives
        if last and self.cast_off(
            info["sqs_message"], info["sqs_queue"], "it failed in its last delivery; the worker's log says how", message
        ):
            self.qos.free(delivery_tag)
            return
        if requeue:
            self._restore(message)
        else:
            self._show(message, redelivery_seconds(receives, random.random()))  # noqa: S311 - no secret
        self.qos.ack(delivery_tag)

    def cast_off(self, received: dict[str, Any], queue_url: str, reason: str, message: Any) -> bool:
        """Have the message put into the dead-letter queue; returns whether that will be done."""
        receipt = received["ReceiptHandle"]
        self.keeper.hold(receipt, queue_url)
        request_id = request_id_of(message)
        if self._castoffs.take(CastOff(received["Body"], receipt, queue_url, reason, request_id)):
            return True
        self.keeper.release(receipt)
        return False

    def close(self) -> None:
        """Stop consuming, delete what is finished, and give back what was not begun."""
        self._castoffs.stop()
        self._deletions.stop()
        self.keeper.stop()  # first: a beat would hide again what is given back
        super().close()
        self.keeper.let_go()
        INTAKE.end(self)

    def _restore(self, message: Any, *_args: Any, **_kwargs: Any) -> None:
        """Make it visible at once or, where our own open long poll would take it to its grave, after that."""
        self._show(message, self.wait_time_seconds if INTAKE.receives(self) else 0)

    def _show(self, message: Any, seconds: int) -> None:
        """Make it visible then. This runs on the event loop, so that an SQS out of reach is asked once for many."""
        if time.monotonic() < self._no_giving_back_until:
            return
        info = message.delivery_info
        try:
            self.sqs().change_message_visibility(
                QueueUrl=info["sqs_queue"],
                ReceiptHandle=info["sqs_message"]["ReceiptHandle"],
                VisibilityTimeout=seconds,
            )
        except (BotoCoreError, ClientError) as exc:
            # It comes back by itself when its visibility timeout is over.
            log.warning("message_not_given_back", request_id=request_id_of(message), reason=str(exc))
            if isinstance(exc, BotoCoreError):
                self._no_giving_back_until = time.monotonic() + _OUT_OF_REACH_SECONDS
        except Exception as exc:
            # So does this one, where a proxy has answered what botocore cannot parse; but its place must become free.
            log.exception("message_not_given_back", request_id=request_id_of(message), reason=repr(exc))


def request_id_of(message: Any) -> str:
    """The id of the request that a task is for, as its headers tell; they may hold anything."""
    try:
        return str(UUID(message.headers["id"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
