"""Deletes the SQS messages whose tasks have ended, several with one call: each call costs both sides milliseconds.

What waits here is finished: its result is stored and published. Where the process dies first, the message is delivered
again and the stored result is published once more, which is harmless.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from facerec.aws.clients import THROTTLING
from facerec.aws.sqs.queue import QUEUE_MISSING, pause_seconds

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

log = structlog.get_logger(__name__)

_BATCH = 10
"""SQS deletes this many messages in one call."""

_TRIES = 8
"""Over half a minute and more; then the message may as well come back and be answered again."""


@dataclass(slots=True)
class _Finished:
    queue_url: str
    tries: int = 0


class Deletions:
    """Deletes each message within `window_seconds`, or as soon as ten wait; safe for many threads.

    Until SQS has answered for a message it must be kept hidden: `settled` is called with its receipt then, from another
    thread. While SQS is out of reach or throttles it is asked again, after growing pauses. A message that could not be
    deleted is logged, and comes back when its visibility timeout is over.
    """

    def __init__(self, client: "SQSClient", settled: Callable[[str], None], window_seconds: float = 0.1) -> None:
        self._client = client
        self._settled = settled
        self._window_seconds = window_seconds
        self._waiting: dict[str, _Finished] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread: threading.Thread | None = None

    def add(self, receipt: str, queue_url: str) -> None:
        """Delete this message soon; after `stop` at once."""
        with self._changed:
            self._waiting[receipt] = _Finished(queue_url)
            if not self._stopped:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="deletions", daemon=True)
                    thread.start()  # where that fails the next one is tried
                    self._thread = thread
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
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopped)
                if failures:
                    pause = pause_seconds(failures, random.random())  # noqa: S311 - no secret
                    self._changed.wait_for(lambda: self._stopped, pause)
                else:
                    self._changed.wait_for(lambda: len(self._waiting) >= _BATCH or self._stopped, self._window_seconds)
                stopped = self._stopped
            failures = 0 if self._delete_waiting() else failures + 1
            if stopped:
                return

    def _delete_waiting(self) -> bool:
        """Ask SQS for each that waits; returns whether it has answered for all."""
        with self._changed:
            waiting, self._waiting = self._waiting, {}
        refused: list[str] = []
        for queue_url in dict.fromkeys(finished.queue_url for finished in waiting.values()):
            receipts = [receipt for receipt, finished in waiting.items() if finished.queue_url == queue_url]
            for first in range(0, len(receipts), _BATCH):
                refused += self._delete(queue_url, receipts[first : first + _BATCH])
        again: dict[str, _Finished] = {}
        for receipt, finished in waiting.items():
            finished.tries += 1
            if receipt in refused and finished.tries < _TRIES and not self._stopped:
                again[receipt] = finished
            else:
                self._settled(receipt)
        with self._changed:
            self._waiting = again | self._waiting
        return not refused

    def _delete(self, queue_url: str, receipts: list[str]) -> list[str]:
        """Delete up to ten; returns those that it is worth to try again."""
        try:
            reply = self._client.delete_message_batch(
                QueueUrl=queue_url,
                Entries=[{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(receipts)],
            )
        except (BotoCoreError, ClientError) as exc:
            log.warning("messages_not_deleted", count=len(receipts), reasons=[str(exc)])
            gone = isinstance(exc, ClientError) and exc.response["Error"]["Code"] in QUEUE_MISSING
            return [] if gone else receipts
        except Exception as exc:
            # A proxy may answer what botocore cannot parse. That must not end the deleting of all others for good.
            log.exception("messages_not_deleted", count=len(receipts), reasons=[repr(exc)])
            return receipts
        failed = reply.get("Failed", [])
        if failed:
            log.warning("messages_not_deleted", count=len(failed), reasons=sorted({entry["Code"] for entry in failed}))
        passing = [entry for entry in failed if not entry["SenderFault"] or entry["Code"] in THROTTLING]
        return [receipts[int(entry["Id"])] for entry in passing]
