"""Photos that were put into the input bucket directly: S3's own events, without the web tier and without the URL."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from facerec.celery_sqs.envelope import task_message
from facerec.delivery.driver import TaskDelivery, TaskDriver
from facerec.delivery.stale_tasks import Requeued
from facerec.messages import RecognitionRequest
from facerec.object_keys import output_key
from facerec.ports import ObjectStore
from facerec.serverless.events import s3_request
from facerec.serverless.invocation import Invocation
from facerec.settings import Settings
from facerec.text import megabytes

log = structlog.get_logger(__name__)


class StoredPhotos:
    """Answers S3's object-created events, as S3 sends them to a function; `fail` is that of the use case.

    A photo is delivered like a task; its result goes to the output bucket and the response queue. The request id is
    derived from the event, so an event that comes a second time publishes the stored result. A failure raises: Lambda
    invokes the function for this event again, twice, and then hands it to the failure destination.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        fail: Callable[[RecognitionRequest, str, int], object],
        driver: Callable[[Invocation], TaskDriver[Any]],
    ) -> None:
        self._settings = settings
        self._store = store
        self._fail = fail
        self._driver = driver

    def answer(self, event: Mapping[str, Any], invocation: Invocation) -> None:
        """Process the photos; raises the first error."""
        driver = self._driver(invocation)
        requests = []
        for record in event["Records"]:
            request = s3_request(record, self._settings.response_queue)
            if request is None:
                log.info("object_ignored", key=record["s3"]["object"]["key"])
            else:
                requests.append(request)
        for end in invocation.map(lambda request: self._deliver(request, driver), requests):
            if isinstance(end, Exception):
                raise end

    def _deliver(self, request: RecognitionRequest, driver: TaskDriver[Any]) -> None:
        settings = self._settings
        limit = settings.web.max_upload_bytes
        if request.input.size > limit:  # it would be read into memory
            self._fail(request, f"the picture is too large: at most {megabytes(limit)} are taken", 1)
            log.warning("object_too_large", request_id=str(request.request_id), bytes=request.input.size)
            return
        again = self._store.exists(settings.output_bucket, output_key(request.request_id, request.filename))
        body = task_message(request)
        try:
            driver.handle(TaskDelivery(body, body, str(request.request_id), 2 if again else 1))
        except Requeued:
            return  # it waits in the request queue, behind other photos
