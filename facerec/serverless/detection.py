"""The detection function: photos to faces, which go onward, or to a final result. `handler` is what Lambda calls.

Importing this module opens the function, in Lambda's init phase.
"""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

# Until the function is open: what is imported stays, and looking for garbage takes a twelfth of the function's start.
gc.disable()
# structlog would import it for terminals: a twelfth of the function's start.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # as Python documents it

# Before pydantic is imported: with it, Powertools would import its models of every event: 30 ms.
import aws_lambda_powertools.utilities.batch  # noqa: E402, F401

from facerec.engine.supervisor import SupervisedDetector  # noqa: E402 - see above
from facerec.serverless.telemetry import Telemetry  # noqa: E402
from facerec.settings import Settings  # noqa: E402


def _open(settings: Settings) -> Any:
    """Open the function; the engine's child loads while this process imports the rest."""
    telemetry = Telemetry(settings, "detection")  # before the engine binds its loggers
    engine = SupervisedDetector(settings, settings.model.dir)
    with ThreadPoolExecutor(1) as starter:
        started = starter.submit(engine.start)

        import functools
        import math

        from facerec import bootstrap
        from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterWriter
        from facerec.aws.sqs.queue import SqsQueue
        from facerec.celery_sqs.received_task import read_task, task_id
        from facerec.delivery.driver import TaskDriver, decode_request
        from facerec.delivery.stale_tasks import StaleTasks
        from facerec.messages import TASK_NAME, RecognitionRequest
        from facerec.recognition import FaceDetection
        from facerec.serverless.batch import Messages
        from facerec.serverless.events import EventKind
        from facerec.serverless.function import Function
        from facerec.serverless.invocation import Invocation
        from facerec.serverless.stored_photos import StoredPhotos
        from facerec.serverless.url import PhotoUrl

        clients, store = bootstrap.clients(settings), bootstrap.object_store(settings)
        half = FaceDetection(
            store=store,
            engine=engine,
            publisher=bootstrap.result_publisher(settings),
            faces=bootstrap.faces_publisher(settings),
            input_bucket=settings.input_bucket,
            output_bucket=settings.output_bucket,
            max_message_bytes=settings.queue.max_message_bytes,
            copy_by_filename=settings.key_style == "filename",
        )
        requests = SqsQueue(clients.sqs, settings.request_queue)
        dead_letters = SqsDeadLetterWriter(SqsQueue(clients.sqs, settings.dead_letter_queue))
        stale_tasks = StaleTasks(requests, settings.web.wait_seconds)

        def decode(body: str) -> tuple[RecognitionRequest, RecognitionRequest]:
            request = decode_request(read_task(body, [TASK_NAME]).argument, settings.input_bucket)
            return request, request

        def driver(max_receives: float, invocation: Invocation) -> TaskDriver[RecognitionRequest]:
            return TaskDriver(
                half,
                decode,
                invocation.guarded(dead_letters),
                stale_tasks,
                invocation.retry_budget,
                max_receives=max_receives,
                on_end=invocation.records.append,
            )

        max_receives = settings.queue.max_receives
        from_queue = functools.partial(driver, max_receives)
        # A client of the URL, or Lambda, tries again as often as it wants.
        direct = functools.partial(driver, math.inf)
        routes = {
            EventKind.SQS: Messages(requests, task_id, from_queue, max_receives=max_receives).answer,
            EventKind.URL: PhotoUrl(settings, store, direct).answer,
            EventKind.S3: StoredPhotos(settings, store, half.fail, direct).answer,
        }
        started.result()
    return Function(telemetry, routes, engine_ended=lambda: engine.ended).handler


handler = _open(Settings.load().of_function())
gc.freeze()
gc.enable()
