"""The Celery tasks `facerec.recognise`, of a photo, and `facerec.recognise_faces`, of faces from the faces queue.

Each hands a delivery to its driver, and maps its end to Celery's terms.
"""

from collections.abc import Callable
from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.saferepr import saferepr
from celery.worker import state
from celery.worker.request import Request as CeleryRequest

from facerec.celery import app
from facerec.delivery.driver import DEAD_LETTER_OUTCOMES, DeliveryRecord, TaskDelivery
from facerec.delivery.retry import GivenBack
from facerec.delivery.stale_tasks import Requeued
from facerec.errors import ConfigurationError, FacerecError, Transient
from facerec.messages import FACES_TASK_NAME, TASK_NAME

# Celery's type stubs lack what is called and overridden here.
_BaseRequest: Any = CeleryRequest
_BaseTask: Any = Task


class WorkerTask(_BaseTask):  # type: ignore[misc]  # untyped on purpose, see above
    """A task; `worker` is the process's `tasks.worker.Worker`, set for all tasks from its start to its end."""

    abstract = True
    worker: Any = None


class DeadLettered(Exception):
    """The request has failed for good and is in the dead-letter queue: its message is to be deleted.

    Flower shows the name of this exception.
    """


class Request(_BaseRequest):  # type: ignore[misc]  # untyped on purpose, see above
    """Deletes the message of a task that fails with `DeadLettered`; after another exception SQS delivers it again."""

    def cancel(self, *_: Any, **__: Any) -> None:
        """Let the task end, as Celery's cold shutdown waits for it: a thread cannot be cancelled.

        Celery calls this in a signal handler. The error that it would raise for a pool of threads would break off the
        open receive, and hide the message that SQS has sent.
        """
        self.task.worker.leave()  # a retry pause ends

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Acknowledge or reject the message, and send the event for Flower."""
        exc = exc_info.exception
        if isinstance(exc, MemoryError):
            # Celery raises it again before it settles the message, which would keep its place for ever.
            exc = exc_info.exception = Transient("the worker is out of memory")
        if isinstance(exc, DeadLettered):
            self.acknowledge()
        elif send_failed_event and isinstance(exc, Exception) and not isinstance(exc, Ignore | Reject | Retry):
            super().on_failure(exc_info, send_failed_event=False, return_ok=return_ok)
            self.send_event("task-retried", exception=saferepr(exc), traceback=exc_info.traceback)
            return
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)


_OPTIONS: dict[str, Any] = {
    "base": WorkerTask,
    "bind": True,
    "shared": False,  # no other Celery app of this process has a worker
    # The driver logs these exceptions; Celery logs the traceback of every other one.
    "throws": (FacerecError, DeadLettered),
    "Request": Request,
}


@app.task(name=TASK_NAME, **_OPTIONS)
def recognise(self: WorkerTask, *_request: Any) -> str:
    """Recognise the request in the only argument; returns the outcome, which Flower shows.

    The transport has checked the message and hands over the argument beside it, since Celery would decode it again. An
    exception leaves the message unacknowledged: SQS delivers it again after a pause, or at once after `Reject`. `Retry`
    deletes it, because it was sent again.
    """
    return _outcome(self, self.worker.handle)


@app.task(name=FACES_TASK_NAME, **_OPTIONS)
def recognise_faces(self: WorkerTask, *_faces: Any) -> str:
    """Recognise the faces in the only argument, as `recognise` does."""
    return _outcome(self, self.worker.handle_faces)


def _outcome(task: WorkerTask, handle: Callable[[TaskDelivery], DeliveryRecord]) -> str:
    try:
        record = handle(_delivery(task))
    except Requeued as exc:
        raise Retry(str(exc)) from exc
    except GivenBack as exc:
        raise Reject(str(exc), requeue=True) from exc
    except ConfigurationError:
        # Every other task would fail, too, until an operator acts: finish the tasks in progress and exit.
        task.worker.leave()
        state.should_stop = 1  # type: ignore[assignment]  # the stub knows its first value only
        raise
    if record.outcome in DEAD_LETTER_OUTCOMES:
        raise DeadLettered(record.reason)
    operation = "recognise" if record.result is None else record.result.operation
    return str(record.outcome) if operation == "recognise" else f"{operation}: {record.outcome}"


def _delivery(task: WorkerTask) -> TaskDelivery:
    properties: Any = task.request.properties
    delivered = properties["delivery_info"]
    message = delivered["sqs_message"]
    return TaskDelivery(
        payload=delivered["argument"],
        body=message["Body"],
        request_id=str(task.request.id),
        attempt=int(message["Attributes"]["ApproximateReceiveCount"]),
    )
