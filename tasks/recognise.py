"""The task `facerec.recognise`: thin; what it does is in `tasks.driver`."""

from typing import Any

from celery import Task
from celery.exceptions import Reject, Retry
from celery.worker import state

from facerec.celery import TASK, app
from facerec.errors import ConfigurationError, QueueMissing, Transient
from tasks import lifecycle
from tasks.driver import PUT_ASIDE, Delivered
from tasks.latecomers import Postponed
from tasks.patience import Interrupted
from tasks.requests import PutAside, Request


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
    unacknowledged; `facerec.aws.transport` gives it back to be delivered again after a pause, or at once on `Reject`.
    `Retry` deletes it: the task was sent again.
    """
    try:
        ended = lifecycle.worker().handle(_delivered(self, args, kwargs))
    except Postponed as exc:
        raise Retry(str(exc)) from exc
    except Interrupted as exc:
        raise Reject(str(exc), requeue=True) from exc
    except ConfigurationError:
        # No task will fare better until an operator has acted: finish what can be finished, and exit.
        lifecycle.worker().leave()
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
