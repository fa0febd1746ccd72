"""One SQS queue by its name: its calls, and their errors as ours."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from facerec.aws.clients import THROTTLING, Clients, translated
from facerec.errors import ConfigurationError, FacerecError, QueueMissing, Throttled, Transient
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import BatchResultErrorEntryTypeDef, MessageTypeDef

T = TypeVar("T")

BATCH = 10
"""SQS sends, receives, deletes and changes this many messages in one call."""
MAX_MESSAGE_BYTES = 256 * 1024
"""What every SQS queue takes, as one message or as a batch; only queues made after August 2025 take 1 MiB."""
_QUEUE_MISSING = ("AWS_SimpleQueueService_NonExistentQueue", "QueueDoesNotExist")
"""SQS's error codes for it, in its query and its JSON protocol, as `translated` takes them."""


def missing(queue: str, doing: str) -> AbstractContextManager[None]:
    """Translate SQS's errors; a queue that does not exist becomes `QueueMissing`."""
    return translated(f"{doing} queue {queue!r}", **dict.fromkeys(_QUEUE_MISSING, lambda: QueueMissing(queue)))


@dataclass(frozen=True, slots=True)
class FailedEntry:
    """A message of a batch that SQS has not deleted or changed."""

    receipt: str
    code: str
    retryable: bool
    """Whether the fault is SQS's; if not, the receipt is no longer valid."""


class SqsQueue:
    """One queue; safe for many threads.

    Its URL is looked up once, and again when the queue is gone: it may have been created again. All methods raise
    `QueueMissing`, `Transient` and `ConfigurationError`.
    """

    def __init__(self, sqs: "SQSClient", name: str) -> None:
        self.name = name
        self._sqs = sqs
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The queue's URL."""
        if self._url is None:
            with missing(self.name, "look up"):
                url = self._sqs.get_queue_url(QueueName=self.name).get("QueueUrl")
            if not url:
                raise Transient(f"the URL of queue {self.name!r} is not in the answer; does a proxy answer for SQS?")
            self._url = url
        return self._url

    def send(self, body: str, delay_seconds: int = 0, *, attributes: Mapping[str, str] | None = None) -> None:
        """Return when SQS has taken the message (up to 256 KiB), to deliver it after the delay (up to 900 s)."""
        reply = self.call(
            "send to",
            lambda url: self._sqs.send_message(
                QueueUrl=url,
                MessageBody=body,
                DelaySeconds=delay_seconds,
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value} for name, value in (attributes or {}).items()
                },
            ),
        )
        if not reply.get("MessageId"):
            raise self._unconfirmed()

    def send_batch(self, bodies: Sequence[str]) -> list[FacerecError | None]:
        """Send up to ten messages with at most 256 KiB in all; returns the error of each, or nothing if SQS took it."""
        reply = self.call(
            "send to",
            lambda url: self._sqs.send_message_batch(
                QueueUrl=url, Entries=[{"Id": str(index), "MessageBody": body} for index, body in enumerate(bodies)]
            ),
        )
        errors: list[FacerecError | None] = [self._unconfirmed() for _ in bodies]
        for sent in reply.get("Successful", []):
            errors[int(sent["Id"])] = None
        for failed in reply.get("Failed", []):
            errors[int(failed["Id"])] = self._error(failed)
        return errors

    def receive(
        self,
        max_messages: int = BATCH,
        *,
        wait_seconds: int,
        hidden_seconds: int | None = None,
        attributes: Sequence[Any] = (),
        message_attributes: bool = False,
    ) -> "list[MessageTypeDef]":
        """Up to ten messages, hidden for so long, or for the queue's visibility timeout.

        `attributes` names SQS's own (`SentTimestamp` …); `message_attributes` asks for the sender's, too.
        """
        options: dict[str, Any] = {} if hidden_seconds is None else {"VisibilityTimeout": hidden_seconds}
        if message_attributes:
            options["MessageAttributeNames"] = ["All"]
        reply = self.call(
            "receive from",
            lambda url: self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=max_messages,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=list(attributes),
                **options,
            ),
        )
        # botocore takes a proxy's page for an empty receive; SQS gives each answer an id.
        if "Messages" not in reply and not reply["ResponseMetadata"].get("RequestId"):
            raise Transient(f"the answer of queue {self.name!r} has no request id; does a proxy answer for SQS?")
        return reply.get("Messages", [])

    def delete_batch(self, receipts: Sequence[str]) -> list[FailedEntry]:
        """Delete any number of messages; returns those that SQS has kept. Deleting one twice is no error."""
        return self._change(
            "delete from",
            receipts,
            lambda entries, url: self._sqs.delete_message_batch(QueueUrl=url, Entries=entries),
        )

    def change_visibility_batch(self, receipts: Sequence[str], seconds: int) -> list[FailedEntry]:
        """Hide any number of messages for so many seconds from now; returns those that SQS has not changed."""
        return self._change(
            "change the visibility in",
            receipts,
            lambda entries, url: self._sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries),
            VisibilityTimeout=seconds,
        )

    def _change(
        self, doing: str, receipts: Sequence[str], call: Callable[[list[Any], str], Any], **change: int
    ) -> list[FailedEntry]:
        failed: list[FailedEntry] = []
        for start in range(0, len(receipts), BATCH):
            batch = receipts[start : start + BATCH]
            entries = [{"Id": str(index), "ReceiptHandle": receipt, **change} for index, receipt in enumerate(batch)]
            reply = self.call(doing, functools.partial(call, entries))
            failed += [
                # AWS counts some throttling as the sender's fault.
                FailedEntry(batch[int(e["Id"])], e["Code"], not e["SenderFault"] or e["Code"] in THROTTLING)
                for e in reply.get("Failed", [])
            ]
        return failed

    def call(self, doing: str, call: Callable[[str], T]) -> T:
        """Make a call to the queue's URL; `doing` completes "could not … queue"."""
        known = self._url is not None
        try:
            return self._call(doing, call)
        except QueueMissing:
            if not known:
                raise
        return self._call(doing, call)

    def _call(self, doing: str, call: Callable[[str], T]) -> T:
        try:
            with missing(self.name, doing):
                return call(self.url)
        except QueueMissing:
            self._url = None
            raise

    def _unconfirmed(self) -> Transient:
        return Transient(f"queue {self.name!r} has not confirmed a message; does a proxy answer for SQS?")

    def _error(self, entry: "BatchResultErrorEntryTypeDef") -> FacerecError:
        sentence = f"could not send to queue {self.name!r}: {entry['Code']}"
        if entry["Code"] in THROTTLING:
            return Throttled(sentence)
        return ConfigurationError(sentence) if entry["SenderFault"] else Transient(sentence)


def check_queue(clients: Clients, queue: str) -> None:
    """Return if the queue exists and can be reached; raises `QueueMissing`, `Transient` or `ConfigurationError`."""
    _ = SqsQueue(clients.sqs, queue).url


def made_at(clients: Clients, queue: str) -> str:
    """When the queue was created, as SQS writes it; another moment is another queue. Raises as `SqsQueue`."""
    read = SqsQueue(clients.sqs, queue).call(
        "look at", lambda url: clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["CreatedTimestamp"])
    )
    return read["Attributes"]["CreatedTimestamp"]


def queue_differences(clients: Clients, settings: Settings) -> list[str]:
    """A sentence for each attribute of the request queue that differs from the settings; raises as `SqsQueue`."""
    wanted = settings.queue
    attributes = SqsQueue(clients.sqs, settings.request_queue).call(
        "read the attributes of",
        lambda url: clients.sqs.get_queue_attributes(
            QueueUrl=url, AttributeNames=["VisibilityTimeout", "RedrivePolicy"]
        ),
    )["Attributes"]
    found = []
    timeout = attributes.get("VisibilityTimeout")
    if timeout != str(wanted.visibility_timeout_seconds):
        found.append(
            f"its visibility timeout is {timeout} s, not FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS "
            f"({wanted.visibility_timeout_seconds}), which workers ask for"
        )
    policy = json.loads(attributes.get("RedrivePolicy") or "{}")
    if not policy:
        found.append("it has no redrive policy: a task that ends every worker would be delivered for ever")
    else:
        target, receives = policy["deadLetterTargetArn"].rsplit(":", 1)[-1], int(policy["maxReceiveCount"])
        if target != settings.dead_letter_queue:
            found.append(f"its dead letters go to {target!r}, not to {settings.dead_letter_queue!r}")
        if receives != wanted.max_receives:
            found.append(f"it delivers {receives} times, not FACEREC_QUEUE__MAX_RECEIVES ({wanted.max_receives}) times")
    return found
