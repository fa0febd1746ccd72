"""One SQS queue by its name: its calls, and their errors as ours."""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from facerec.aws.clients import THROTTLING, Clients, refusal, translated, translated_for_one
from facerec.aws.sqs import queue_attributes
from facerec.errors import FacerecError, QueueMissing, Transient
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        BatchResultErrorEntryTypeDef,
        CreateQueueResultTypeDef,
        GetQueueUrlResultTypeDef,
        MessageTypeDef,
    )

T = TypeVar("T")

BATCH = 10
"""SQS sends, receives, deletes and changes this many messages in one call."""
_QUEUE_MISSING = ("AWS_SimpleQueueService_NonExistentQueue", "QueueDoesNotExist")
"""SQS's error codes for it, in its query and its JSON protocol, as `translated` takes them."""
_DELETED_RECENTLY = ("AWS_SimpleQueueService_QueueDeletedRecently", "QueueDeletedRecently")


def missing(queue: str, doing: str, *, of_one: bool = False) -> AbstractContextManager[None]:
    """Translate SQS's errors; a queue that does not exist becomes `QueueMissing`."""
    known = dict.fromkeys(_QUEUE_MISSING, lambda: QueueMissing(queue))
    translate = translated_for_one if of_one else translated
    return translate(f"{doing} queue {queue!r}", **known)


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
    `QueueMissing`, `Transient` and `ConfigurationError`; sending raises `Refused`, too.
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
                found = self._sqs.get_queue_url(QueueName=self.name)
            self._url = self._stated(found)
        return self._url

    def _stated(self, answer: "GetQueueUrlResultTypeDef | CreateQueueResultTypeDef") -> str:
        url = answer.get("QueueUrl")
        if not url:
            raise Transient(f"the URL of queue {self.name!r} is not in the answer; does a proxy answer for SQS?")
        return url

    def send(self, body: str, delay_seconds: int = 0, *, attributes: Mapping[str, str] | None = None) -> None:
        """Return when SQS has taken the message, to deliver it after the delay (up to 900 s)."""
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
            of_one=True,
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
            of_one=True,
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
        return self.call(
            "receive from",
            lambda url: self._sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=max_messages,
                WaitTimeSeconds=wait_seconds,
                MessageSystemAttributeNames=list(attributes),
                **options,
            ),
        ).get("Messages", [])

    def create(self, attributes: Mapping[str, str], tags: Mapping[str, str] | None = None) -> None:
        """Create the queue; one that exists with these attributes is no error."""
        deleted = Transient(
            f"queue {self.name!r} was deleted within the last minute; AWS allows it again after 60 seconds"
        )
        asked: Any = {"Attributes": attributes} | ({"tags": tags} if tags else {})
        with translated(f"create queue {self.name!r}", **dict.fromkeys(_DELETED_RECENTLY, lambda: deleted)):
            made = self._sqs.create_queue(QueueName=self.name, **asked)
        self._url = self._stated(made)

    def attributes(self, *names: str) -> dict[str, str]:
        """The queue's attributes of these names, or all; raises `Transient` if the answer lacks one of them."""
        asked: Any = list(names) or ["All"]
        reply = self.call(
            "read the attributes of", lambda url: self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=asked)
        )
        read = cast("dict[str, str]", reply.get("Attributes", {}))
        absent = (set(names) or {"QueueArn"}) - read.keys()
        if absent:
            raise Transient(f"SQS has not stated {min(absent)} of queue {self.name!r}; does a proxy answer for SQS?")
        return read

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

    def call(self, doing: str, call: Callable[[str], T], *, of_one: bool = False) -> T:
        """Make a call to the queue's URL; `doing` completes "could not … queue", `of_one` is as in `refusal`."""
        known = self._url is not None
        try:
            return self._call(doing, call, of_one=of_one)
        except QueueMissing:
            if not known:
                raise
        return self._call(doing, call, of_one=of_one)

    def _call(self, doing: str, call: Callable[[str], T], *, of_one: bool) -> T:
        url = self.url
        try:
            with missing(self.name, doing, of_one=of_one):
                return call(url)
        except QueueMissing:
            self._url = None
            raise

    def _unconfirmed(self) -> Transient:
        return Transient(f"queue {self.name!r} has not confirmed a message; does a proxy answer for SQS?")

    def _error(self, entry: "BatchResultErrorEntryTypeDef") -> FacerecError:
        doing, code = f"send to queue {self.name!r}", entry["Code"]
        if entry["SenderFault"]:
            return refusal(doing, code, f"{code}: {entry.get('Message', '')}", of_one=True)
        return Transient(f"could not {doing}: {code}")


def check_queue(clients: Clients, queue: str) -> None:
    """Return if the queue exists and can be reached; raises `QueueMissing`, `Transient` or `ConfigurationError`."""
    _ = SqsQueue(clients.sqs, queue).url


def made_at(clients: Clients, queue: str) -> str:
    """When the queue was created, as SQS writes it; another moment is another queue. Raises as `SqsQueue`."""
    return SqsQueue(clients.sqs, queue).attributes("CreatedTimestamp")["CreatedTimestamp"]


def queue_differences(clients: Clients, settings: Settings) -> list[str]:
    """A sentence for each attribute of a worker's queues that is not as `facerec provision` sets it.

    Raises as `SqsQueue` for a queue that the worker takes from. The response queue may be out of its reach: it only
    answers.
    """
    found = []
    for queue, dead_letter_queue in settings.worker_queues.items():
        current = SqsQueue(clients.sqs, queue).attributes()
        # A queue and its dead-letter queue have the same region and account.
        place = current["QueueArn"].rsplit(":", 1)[0]
        attributes = queue_attributes.request_queue if queue == settings.request_queue else queue_attributes.faces_queue
        wanted = attributes(settings, f"{place}:{dead_letter_queue}")
        found += [f"{queue}: {each}" for each in queue_attributes.sentences(current, wanted)]
    try:
        current = SqsQueue(clients.sqs, settings.response_queue).attributes()
    except FacerecError as exc:
        return [*found, f"{settings.response_queue}: its attributes cannot be compared: {exc}"]
    wanted = queue_attributes.response_queue(settings)
    return [*found, *(f"{settings.response_queue}: {each}" for each in queue_attributes.sentences(current, wanted))]
