"""Keeps the SQS messages that this process holds hidden from other consumers, for as long as it holds them.

A task may take longer than the visibility timeout (it waits for an engine, or is tried again alone after a crash).
With a long timeout instead, a lost worker's tasks would come back late: the heartbeat lets the timeout be short.
"""

import threading
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from facerec.aws.clients import THROTTLING

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import ChangeMessageVisibilityBatchRequestEntryTypeDef as Entry

log = structlog.get_logger(__name__)

_BATCH = 10
"""SQS changes the visibility of this many messages in one call."""


class VisibilityKeeper:
    """Extends what is held to `timeout_seconds` from now, every third of that time; safe for many threads.

    An extension that fails is tried again at the next beat: two may fail before a message is delivered twice, which is
    harmless. A message that SQS says is no longer ours is let go.
    """

    def __init__(self, client: "SQSClient", timeout_seconds: int) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._held: dict[str, str] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, receipt: str, queue_url: str) -> None:
        """Extend this message from now on."""
        with self._lock:
            self._held[receipt] = queue_url
            if self._thread is None and not self._stopped.is_set():
                thread = threading.Thread(target=self._run, name="visibility", daemon=True)
                thread.start()  # where that fails the next one is tried
                self._thread = thread

    def release(self, receipt: str) -> None:
        """The message is deleted or given back; an unknown receipt is no error."""
        with self._lock:
            self._held.pop(receipt, None)

    @property
    def holds(self) -> bool:
        """Whether anything is held."""
        with self._lock:
            return bool(self._held)

    def beat(self) -> None:
        """Extend everything that is held, once."""
        with self._lock:
            held = list(self._held.items())
        for queue_url in dict.fromkeys(url for _, url in held):
            receipts = [receipt for receipt, url in held if url == queue_url]
            for first in range(0, len(receipts), _BATCH):
                self._extend(queue_url, receipts[first : first + _BATCH])

    def stop(self) -> None:
        """End the heartbeat; what is held becomes visible when its time is over."""
        self._stopped.set()
        thread = self._thread
        if thread is not None:
            thread.join()

    def let_go(self) -> None:
        """Hold nothing any more."""
        with self._lock:
            self._held.clear()

    def _run(self) -> None:
        while not self._stopped.wait(self._timeout_seconds / 3):
            self.beat()

    def _extend(self, queue_url: str, receipts: list[str]) -> None:
        entries: list[Entry] = [
            {"Id": str(index), "ReceiptHandle": receipt, "VisibilityTimeout": self._timeout_seconds}
            for index, receipt in enumerate(receipts)
        ]
        try:
            answer = self._client.change_message_visibility_batch(QueueUrl=queue_url, Entries=entries)
            for failure in answer.get("Failed", []):
                if failure["SenderFault"] and failure["Code"] not in THROTTLING:
                    self.release(receipts[int(failure["Id"])])
        except (BotoCoreError, ClientError) as exc:
            log.warning("visibility_not_extended", messages=len(receipts), reason=str(exc))
        except Exception as exc:
            # A proxy may answer what botocore cannot parse. That must not end the heartbeat for good.
            log.exception("visibility_not_extended", messages=len(receipts), reason=repr(exc))
