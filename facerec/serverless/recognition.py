"""The recognition function: faces to the result of their photo. `handler` is what Lambda calls.

Importing this module opens the function, in Lambda's init phase.
"""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

# Until the function is open: what is imported stays, and looking for garbage takes a twelfth of the function's start.
gc.disable()
# structlog would import it for terminals: a twelfth of the function's start.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # as Python documents it

# Before pydantic is imported: with it, Powertools would import its models of every event: 30 ms.
import aws_lambda_powertools.utilities.batch  # noqa: E402, F401

from facerec.engine.supervisor import SupervisedEmbedder  # noqa: E402 - see above
from facerec.serverless.telemetry import Telemetry  # noqa: E402
from facerec.settings import Settings  # noqa: E402


def _open(settings: Settings) -> Any:
    """Open the function; the engine's child loads while this process imports the rest and reads the gallery."""
    telemetry = Telemetry(settings, "recognition")  # before the engine binds its loggers
    engine = SupervisedEmbedder(settings, settings.model.dir)
    with ThreadPoolExecutor(1) as starter:
        started = starter.submit(engine.start)

        from facerec import bootstrap
        from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterWriter
        from facerec.aws.sqs.queue import SqsQueue
        from facerec.comparison import ModelThresholds
        from facerec.delivery.driver import TaskDriver
        from facerec.device_faces import DeviceFaces, decode_faces, faces_request_id
        from facerec.engine.loading import load_artefact
        from facerec.gallery.opening import gallery_cache
        from facerec.message_base import DEFAULT_COLLECTION
        from facerec.messages import FacesMessage, Request
        from facerec.recognition import FaceRecognition
        from facerec.serverless.batch import Messages
        from facerec.serverless.events import EventKind
        from facerec.serverless.function import Function
        from facerec.serverless.invocation import Invocation

        artefact = load_artefact(settings)
        clients, store = bootstrap.clients(settings), bootstrap.object_store(settings)
        gallery = gallery_cache(
            settings,
            bootstrap.template_store(settings),
            store,
            model_id=artefact.model_id,
            dimension=artefact.dimension,
        )
        gallery.index(DEFAULT_COLLECTION)
        half = FaceRecognition(
            store=store,
            engine=engine,
            gallery=gallery,
            thresholds=ModelThresholds(artefact.tail, artefact.threshold, settings.gallery.false_names),
            publisher=bootstrap.result_publisher(settings),
            devices=bootstrap.device_results(settings),
            input_bucket=settings.input_bucket,
            output_bucket=settings.output_bucket,
            crop_side=artefact.crop.image_size,
            max_faces=settings.model.max_faces,
            copy_by_filename=settings.key_style == "filename",
        )
        dead_letters = SqsDeadLetterWriter(SqsQueue(clients.sqs, settings.faces_dead_letter_queue))
        max_receives = settings.queue.max_receives

        def decode(body: str) -> tuple[Request, FacesMessage | DeviceFaces]:
            return decode_faces(body, response_queue=settings.response_queue, now=datetime.now(UTC))

        def driver(invocation: Invocation) -> TaskDriver[FacesMessage | DeviceFaces]:
            return TaskDriver(
                half,
                decode,
                invocation.guarded(dead_letters),
                None,  # the detection has seen that the request is fresh
                invocation.retry_budget,
                max_receives=max_receives,
                on_end=invocation.records.append,
            )

        queue = SqsQueue(clients.sqs, settings.faces_queue)
        messages = Messages(queue, faces_request_id, driver, max_receives=max_receives)
        started.result()
    return Function(
        telemetry,
        {EventKind.SQS: messages.answer},
        engine_ended=lambda: engine.ended,
        before=gallery.refresh_if_due,
    ).handler


handler = _open(Settings.load().of_function())
gc.freeze()
gc.enable()
