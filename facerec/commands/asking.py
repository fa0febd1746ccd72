"""Asks the workers from a command, as the web tier does, and waits for the stored result."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from uuid import uuid4

from facerec import bootstrap
from facerec.background import backoff_seconds
from facerec.errors import FacerecError, Transient
from facerec.messages import RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from facerec.ports import ObjectStore, TaskQueue
from facerec.settings import Settings
from facerec.stored_results import stored_result

if TYPE_CHECKING:
    from facerec.web.asking import Question

_FIRST_WAIT_SECONDS = 0.1
_LONGEST_WAIT_SECONDS = 2.0


def ask(settings: Settings, question: "Question", *, wait_seconds: float) -> RecognitionResult:
    """Send a question to the workers; returns the result that one of them stores.

    Raises `FacerecError` if the photo is none, or if no result is there in time.
    """
    return ask_through(
        settings, bootstrap.object_store(settings), bootstrap.task_queue(settings), question, wait_seconds=wait_seconds
    )


def ask_through(
    settings: Settings,
    store: ObjectStore,
    queue: TaskQueue,
    question: "Question",
    *,
    wait_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> RecognitionResult:
    """Do what `ask` does, over these ports. The output bucket is polled: no response queue belongs to a command."""
    from facerec.web.admission import Admission
    from facerec.web.asking import Asker
    from facerec.web.inbox import Waiters
    from facerec.web.replies import Declined

    request_id, deadline = uuid4(), time.monotonic() + wait_seconds
    asker = Asker(
        settings=settings,
        store=store,
        queue=queue,
        reply_to=settings.response_queue,
        waiters=Waiters(),
        admission=Admission(max_waiting=1, wait_seconds=wait_seconds),
    )
    try:
        request = asker.submit(request_id, question, reply_to=None)
    except Declined as exc:
        raise FacerecError(f"{question.photo.filename}: {exc.reply.text}") from exc
    return await_result(settings, store, request, deadline, sleep=sleep)


def await_result(
    settings: Settings,
    store: ObjectStore,
    request: RecognitionRequest,
    deadline: float,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> RecognitionResult:
    """Return the stored result of a request; raises `Transient` if there is none at the deadline, by `monotonic`."""
    request_id, attempt = request.request_id, 0
    while True:
        result = stored_result(store, settings.output_bucket, output_key(request_id, request.filename))
        if result is not None:
            return result
        if time.monotonic() >= deadline:
            raise Transient(
                f"no worker has answered request {request_id} in time: is one running? "
                f"`facerec trace {request_id}` shows what became of it"
            )
        attempt += 1
        jitter = random.random()  # noqa: S311 - no secret
        sleep(backoff_seconds(attempt, jitter, first=_FIRST_WAIT_SECONDS, longest=_LONGEST_WAIT_SECONDS))
