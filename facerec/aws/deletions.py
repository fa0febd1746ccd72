"""Deletes the SQS messages whose tasks have ended, several with one call: each call costs both sides milliseconds.

What waits here is finished: its result is stored and published. Where the process dies first, the message is delivered
again and the stored result is published once more, which is harmless.
"""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = structlog.get_logger(__name__)

_BATCH = 10
"""SQS deletes this many messages in one call."""


class Deletions:
    """Deletes each message within `window_seconds`, or as soon as ten wait; safe for many threads.

    Until SQS has answered for a message it must be kept hidden: `settled` is called with its receipt then, from another
    thread. One that could not be deleted is logged, and comes back when its visibility timeout is over.
    """

    def __init__(self, client: "SQSClient", settled: Callable[[str], None], window_seconds: float = 0.1) -> None:
        self._client = client
        self._settled = settled
        self._window_seconds = window_seconds
        self._waiting: dict[str, str] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def add(self, receipt: str, queue_url: str) -> None:
        """Delete this message soon; after `stop` at once."""
        with self._changed:
            self._waiting[receipt] = queue_url
            if not self._stopped:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="deletions", daemon=True)
                    self._thread.start()
                if len(self._waiting) in {1, _BATCH}:
                    self._changed.notify()
                return
        self._delete_waiting()

    def stop(self) -> None:
        """Delete what waits, and return when SQS has answered."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                self._changed.wait_for(lambda: len(self._waiting) >= _BATCH or self._stopped, self._window_seconds)
                stopped = self._stopped
            self._delete_waiting()
            if stopped:
                return

    def _delete_waiting(self) -> None:
        with self._changed:
            waiting, self._waiting = self._waiting, {}
        for queue_url in dict.fromkeys(waiting.values()):
            receipts = [receipt for receipt, url in waiting.items() if url == queue_url]
            for first in range(0, len(receipts), _BATCH):
                self._delete(queue_url, receipts[first : first + _BATCH])

    def _delete(self, queue_url: str, receipts: list[str]) -> None:
        try:
            reply = self._client.delete_message_batch(
                QueueUrl=queue_url,
                Entries=[{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)],
            )
            if failed := reply.get("Failed", []):
                reasons = sorted({entry["Code"] for entry in failed})
                log.warning("messages_not_deleted", count=len(failed), reasons=reasons)
        except (BotoCoreError, ClientError) as exc:
            log.warning("messages_not_deleted", count=len(receipts), reasons=[str(exc)])
        except Exception as exc:
            # A proxy may answer what botocore cannot parse. That must not end the deleting of all others for good.
            log.exception("messages_not_deleted", count=len(receipts), reasons=[repr(exc)])
        for receipt in receipts:
            self._settled(receipt)
