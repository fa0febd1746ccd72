"""Celery's view of a task that did not end well: what becomes of its message, and what Flower shows."""

from typing import Any

from celery.exceptions import Ignore, Reject, Retry
from celery.utils.saferepr import saferepr
from celery.worker.request import Request as CeleryRequest

from facerec.errors import Transient

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
