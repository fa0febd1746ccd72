"""The task `facerec.recognise`: thin; what it does is in `tasks.driver`."""

from typing import Any

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.saferepr import saferepr
from celery.worker import state
from celery.worker.request import Request as CeleryRequest

from facerec.celery import TASK, app
from facerec.errors import ConfigurationError, QueueMissing, Transient
from tasks import worker
from tasks.driver import PUT_ASIDE, Delivered
from tasks.retry import Interrupted
from tasks.stale_tasks import Postponed

# The stubs of Celery do not know what is called and overridden here.
_BaseRequest: Any = CeleryRequest


class PutAside(Exception):
    """The request has failed for good: it is in the dead-letter queue, and its message is to be deleted."""


class Request(_BaseRequest):  # type: ignore[misc]  # untyped on purpose, see above
    """Lets a task fail and be deleted (`PutAside`); any other exception is a retry, since SQS delivers it again."""

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Settle the message, and tell Flower."""
        exc = exc_info.exception
        if isinstance(exc, MemoryError):
            # Celery raises it again before the message is settled, whose place would be taken for ever.
            exc = exc_info.exception = Transient("the worker is out of memory")
        if isinstance(exc, PutAside):
            self.acknowledge()
        elif send_failed_event and isinstance(exc, Exception) and not isinstance(exc, Ignore | Reject | Retry):
            super().on_failure(exc_info, send_failed_event=False, return_ok=return_ok)
            self.send_event("task-retried", exception=saferepr(exc), traceback=exc_info.traceback)
            return
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)


# What is thrown on purpose is in the driver's own log line; Celery logs the traceback of everything else.
@app.task(
    name=TASK,
    bind=True,
    shared=False,  # no other app of the process has a worker to hand it to
    throws=(Transient, QueueMissing, ConfigurationError, PutAside),
    Request=Request,
)
def recognise(self: "Task[..., str]", *args: Any, **kwargs: Any) -> str:
    """Recognise the request that is the only argument; returns its outcome, for Flower to show.

    Anything may have been sent: what does not fit goes to the dead-letter queue. An exception leaves the message
    unacknowledged; the transport gives it back to be delivered again after a pause, or at once on `Reject`.
    `Retry` deletes it: the task was sent again.
    """
    try:
        ended = worker.worker().handle(_delivered(self, args, kwargs))
    except Postponed as exc:
        raise Retry(str(exc)) from exc
    except Interrupted as exc:
        raise Reject(str(exc), requeue=True) from exc
    except ConfigurationError:
        # No task will fare better until an operator has acted: finish what can be finished, and exit.
        worker.worker().leave()
        state.should_stop = 1  # type: ignore[assignment]  # the stub knows its first value only
        raise
    if ended.outcome in PUT_ASIDE:
        raise PutAside(ended.reason)
    return str(ended.outcome)


def _delivered(task: "Task[..., str]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Delivered:
    # Celery keeps the message, as SQS delivered it, among the properties.
    properties: Any = task.request.properties
    message = properties["delivery_info"]["sqs_message"]
    fits = len(args) == 1 and not kwargs
    return Delivered(
        payload=args[0] if fits else [args, kwargs],
        body=message["Body"],
        request_id=str(task.request.id),
        attempt=int(message["Attributes"]["ApproximateReceiveCount"]),
    )
