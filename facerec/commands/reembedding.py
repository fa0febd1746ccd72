"""Has the workers embed templates with another model: one request for each template, a window of them at once."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from facerec.commands.asking import await_result
from facerec.delivery.retry import RetryBudget
from facerec.errors import Transient
from facerec.messages import OPERATION_VERSION, RecognitionRequest
from facerec.operations import Reembed
from facerec.ports import ObjectStore, TaskQueue, TemplateEntry
from facerec.settings import Settings

_ANSWER_SECONDS = 300.0
"""For one template, with the retries of its calls; the first one waits until a worker has opened the model."""


@dataclass(frozen=True, slots=True)
class Reembedded:
    """What became of one template."""

    collection: str
    identity: str
    source: str
    template_id: str
    status: str
    """A `RebuildStatus`, or `failed`."""
    detail: str


def reembed(
    settings: Settings,
    store: ObjectStore,
    queue: TaskQueue,
    entries: tuple[TemplateEntry, ...],
    model_id: str,
    window: int,
) -> Iterator[Reembedded]:
    """Yield what became of each template, as the answers come; at most `window` are with the workers at once.

    A call that fails because a service cannot be reached is tried again, so that an outage of minutes does not end a
    migration of hours. Raises `Transient` for a longer one, and if no worker answers.
    """
    stopped = threading.Event()

    def pause(seconds: float) -> None:
        if stopped.wait(seconds):
            raise Transient("interrupted")

    def ask(entry: TemplateEntry) -> Reembedded:
        def report(status: str, detail: str) -> Reembedded:
            return Reembedded(entry.collection, entry.identity, entry.source, entry.template_id, status, detail)

        if entry.photo is None:
            return report("no_photo", "it was imported without a photo: enrol one of this person")
        request = RecognitionRequest(
            version=OPERATION_VERSION,
            request_id=uuid4(),
            input=entry.photo,
            filename=entry.source,
            collection=entry.collection,
            operation=Reembed(template_id=entry.template_id, model_id=model_id),
            submitted_at=datetime.now(UTC),
        )
        deadline = time.monotonic() + _ANSWER_SECONDS
        budget = RetryBudget(_ANSWER_SECONDS, lambda seconds: not stopped.wait(seconds))
        budget.retrying(queue).submit(request)
        result = await_result(settings, budget.retrying(store), request, deadline, sleep=pause)
        if result.enrolments:
            return report(result.enrolments[0].status, result.enrolments[0].detail)
        return report("failed", result.detail or "a worker could not do it")

    with ThreadPoolExecutor(window) as pool:
        try:
            waiting = [pool.submit(ask, entry) for entry in entries]
            for answered in as_completed(waiting):
                yield answered.result()
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
