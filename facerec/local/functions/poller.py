"""Polls a queue and invokes a function with what it receives, as Lambda's event source mapping does."""

import json
import random
import threading
import time
from typing import TYPE_CHECKING

import structlog

from facerec.aws.sqs.queue import SqsQueue
from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.errors import FacerecError
from facerec.local.functions.events import WrongAnswer, failed_messages, sqs_event
from facerec.local.functions.instance import FunctionFailed
from facerec.local.functions.pool import FunctionBusy, FunctionPool

if TYPE_CHECKING:
    from mypy_boto3_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

_POLL_SECONDS = 1
"""Short, so that the poller ends soon when it is asked to."""
_INSTANCE_SECONDS = 30.0
"""How long a batch waits for an instance, which only requests to the function URL can keep busy."""
_INITIALISE_SECONDS = 5
"""How long a batch stays hidden for which no instance could be initialised, as on a machine that is too busy."""


class SqsPoller:
    """Invokes a function for the messages of a queue, with up to `batch_size` at once and `concurrency` batches.

    What succeeded is deleted. What the function reports as failed stays hidden until its visibility timeout is over,
    or as long as the function has set; so does the batch of an invocation that failed. The queue's redrive policy does
    the rest.
    """

    def __init__(self, queue: SqsQueue, pool: FunctionPool, *, batch_size: int, concurrency: int, region: str) -> None:
        self._queue = queue
        self._pool = pool
        self._batch_size = batch_size
        self._region = region
        self._arn: str | None = None
        self._threads = [BackgroundThread(f"poller-{number}", self._run) for number in range(concurrency)]

    def start(self) -> None:
        """Start to poll."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Receive no more, and wait so long for the invocations that run; idempotent."""
        for thread in self._threads:
            thread.stop(0)
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.stop(max(0.0, deadline - time.monotonic()))

    def _run(self, stopping: threading.Event) -> None:
        outage = OutageLog("queue", queue=self._queue.name)
        while not stopping.is_set():
            try:
                self._poll()
            except FacerecError as exc:
                outage.failed(exc)
                stopping.wait(backoff_seconds(outage.failures, random.random()))  # noqa: S311 - no secret
            else:
                outage.succeeded()

    def _poll(self) -> None:
        """Work on one batch; raises as `SqsQueue`."""
        batch = self._queue.receive(
            self._batch_size, wait_seconds=_POLL_SECONDS, attributes=["All"], message_attributes=True
        )
        if not batch:
            return
        if self._arn is None:
            self._arn = self._queue.attributes("QueueArn")["QueueArn"]
        event = json.dumps(sqs_event(batch, self._arn, self._region)).encode()
        try:
            answer = self._pool.invoke(event, _INSTANCE_SECONDS)
            failed = failed_messages(answer, [message["MessageId"] for message in batch])
        except FunctionBusy:
            self._give_back(batch)
        except (FunctionFailed, WrongAnswer) as exc:
            log.warning("batch_failed", queue=self._queue.name, messages=len(batch), reason=str(exc))
            if self._pool.stopped:  # it ended the invocation
                self._give_back(batch)
            elif isinstance(exc, FunctionFailed) and not exc.began:
                self._give_back(batch, _INITIALISE_SECONDS)
        else:
            done = [message["ReceiptHandle"] for message in batch if message["MessageId"] not in failed]
            for kept in self._queue.delete_batch(done):  # it is delivered again
                log.warning("message_kept", queue=self._queue.name, code=kept.code)

    def _give_back(self, batch: "list[MessageTypeDef]", seconds: int = 0) -> None:
        """Make messages visible, after so many seconds, that no invocation will finish."""
        self._queue.change_visibility_batch([message["ReceiptHandle"] for message in batch], seconds)
