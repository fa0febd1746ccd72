"""A worker process: everything is open and warm before the first task, and closed after the last."""

import atexit
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, TypeVar

import structlog
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down

from facerec import bootstrap
from facerec.app_tier.unknown_faces import UnknownFaces
from facerec.app_tier.use_case import AppTier
from facerec.aws.instance_metadata import SpotNotices
from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterWriter
from facerec.aws.sqs.queue import SqsQueue, check_queue, queue_differences
from facerec.celery import app
from facerec.celery_sqs.consumer_gate import ConsumerGate
from facerec.comparison import ModelThresholds
from facerec.delivery.driver import DeliveryRecord, TaskDelivery, TaskDriver, UseCase, decode_request
from facerec.delivery.retry import RetryBudget
from facerec.delivery.stale_tasks import StaleTasks
from facerec.device_faces import DeviceFaces, decode_faces
from facerec.echo import echo_error
from facerec.engine.child import REAL_ANALYSER
from facerec.engine.loading import available_cores
from facerec.engine.supervisor import SupervisedEngine
from facerec.errors import FacerecError
from facerec.gallery.opening import gallery_cache
from facerec.message_base import DEFAULT_COLLECTION
from facerec.messages import FacesMessage, RecognitionRequest, Request
from facerec.observability.logs import configure_logging
from facerec.observability.metrics import serve_metrics
from facerec.recognition import FaceRecognition
from facerec.settings import Settings
from model.artefact import Artefact
from tasks.heartbeat import WorkerHeartbeat
from tasks.metrics import WorkerMetrics
from tasks.recognise import WorkerTask
from tasks.served_models import ModelShelf, OtherEngine, ServedModel, ServedModels
from tasks.utilisation import Utilisation

log = structlog.get_logger(__name__)

W = TypeVar("W")

_QUIET = ("celery.app.trace", "celery.worker.strategy", "celery.worker.consumer.connection")
"""Loggers that repeat our own lines, or name the host of a broker: SQS has none. Their warnings still show."""

# Celery warns the user root of the danger of pickle, which this application does not accept.
warnings.filterwarnings("ignore", message="You're running the worker with superuser privileges")

_NOT_ON_SQS = {"without_gossip": True, "without_mingle": True}
"""Options of Celery's worker that are always set: SQS has no broadcast."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker process holds while it runs; its `gate` and `dead_lettered` belong into the transport's options."""

    gate: ConsumerGate
    metrics: WorkerMetrics
    _models: ServedModels
    _utilisation: Utilisation
    _heartbeat: WorkerHeartbeat | None
    _resources: ExitStack

    @classmethod
    def open(cls, settings: Settings, *, factory: str = REAL_ANALYSER) -> Self:
        """Check the queues, load the model and the gallery; raises `FacerecError` with one sentence."""
        clients = bootstrap.clients(settings)
        clients.quicken()
        queues = settings.worker_queues
        for queue in (*queues, *queues.values()):
            check_queue(clients, queue)
        for difference in queue_differences(clients, settings):
            remedy = "run `facerec provision`"
            log.warning("queue_differs", reason=difference, remedy=remedy)
        with ExitStack() as resources:
            metrics, gate = WorkerMetrics(), ConsumerGate()
            utilisation = Utilisation(settings.worker.engines or available_cores())
            shelf = ModelShelf(settings, bootstrap.object_store(settings))

            def open_other(artefact: Artefact) -> SupervisedEngine:
                one_child = settings.model_copy(update={"worker": settings.worker.model_copy(update={"engines": 1})})
                engine = SupervisedEngine(one_child, artefact.directory, factory=factory)
                engine.start()
                return engine

            other = OtherEngine(shelf, open_other)
            resources.callback(other.close)
            open_model = functools.partial(
                _open_model,
                settings,
                factory,
                metrics,
                other,
                functools.partial(
                    RetryBudget, settings.worker.retry_seconds, functools.partial(_pause, gate, utilisation)
                ),
            )
            artefact = shelf.to_serve()
            models = ServedModels(
                shelf,
                open_model(artefact, [DEFAULT_COLLECTION]),
                open_model,
                other,
                poll_seconds=settings.gallery.refresh_seconds,
            )
            resources.callback(models.stop)
            engine = models.current.engine
            log.info(
                "worker_ready",
                engine=engine.name,
                precision=engine.precision,
                model_id=engine.model_id,
                verification_threshold=artefact.threshold,
                false_names=settings.gallery.false_names,
                concurrency=settings.worker.concurrency,
                queues=list(queues),
            )
            models.start()
            metrics.watch(
                engine=lambda: models.current.engine,
                gallery=lambda: models.current.gallery,
                pids=models.pids,
                utilisation=utilisation,
            )
            shown = settings.worker
            resources.enter_context(
                serve_metrics(metrics.registry, shown.metrics_host, shown.metrics_port, group="worker")
            )
            heartbeat = _heartbeat(settings, utilisation, gate)
            if heartbeat is not None:
                heartbeat.start()
                resources.callback(heartbeat.stop)
            return cls(gate, metrics, models, utilisation, heartbeat, resources.pop_all())

    def handle(self, delivery: TaskDelivery) -> DeliveryRecord:
        """Do what the task of a photo does; raises as `TaskDriver.handle`."""
        with self._utilisation.hold(), self._models.hold() as served:
            return served.photos.handle(delivery)

    def handle_faces(self, delivery: TaskDelivery) -> DeliveryRecord:
        """Do what the task of faces does; raises as `TaskDriver.handle`."""
        with self._utilisation.hold(), self._models.hold() as served:
            return served.faces.handle(delivery)

    def leave(self) -> None:
        """Take no more tasks: the process ends. May be called in a signal handler."""
        self.gate.leave()
        if self._heartbeat is not None:
            self._heartbeat.leave()

    def close(self) -> None:
        """Close everything, the last opened first."""
        self._resources.close()


def _open_model(
    settings: Settings,
    factory: str,
    metrics: WorkerMetrics,
    other: OtherEngine,
    retry_budget: Callable[[], RetryBudget],
    artefact: Artefact,
    collections: Collection[str],
) -> ServedModel:
    """Open a model with its engine and its gallery, and load these collections; raises `FacerecError`."""
    clients, objects = bootstrap.clients(settings), bootstrap.object_store(settings)
    templates = bootstrap.template_store(settings)
    with ExitStack() as resources:
        engine = SupervisedEngine(
            settings,
            artefact.directory,
            factory=factory,
            on_batch=metrics.count_batch,
            on_replaced=metrics.count_replacement,
        )
        resources.callback(engine.close)
        engine.start()
        gallery = gallery_cache(
            settings,
            templates,
            objects,
            model_id=engine.model_id,
            dimension=artefact.dimension,
            keep_files=True,
            readers=bootstrap.gallery_readers(settings),
        )
        resources.callback(gallery.stop)
        for collection in collections:
            gallery.index(collection)
        gallery.start()
        thresholds = ModelThresholds(artefact.tail, artefact.threshold, settings.gallery.false_names)
        shared: dict[str, Any] = {
            "store": objects,
            "engine": engine,
            "gallery": gallery,
            "publisher": bootstrap.result_publisher(settings),
            "output_bucket": settings.output_bucket,
            "thresholds": thresholds,
            "unknown": UnknownFaces(
                settings=settings.unknown,
                gallery=gallery,
                templates=templates,
                records=bootstrap.unknown_people(settings),
                thresholds=thresholds,
                model_id=engine.model_id,
            ),
            "copy_by_filename": settings.key_style == "filename",
        }

        def driver(
            use_case: UseCase[W],
            decode: Callable[[Any], tuple[Request, W]],
            dead_letter_queue: str,
            stale_tasks: StaleTasks | None,
        ) -> TaskDriver[W]:
            return TaskDriver(
                use_case,
                decode,
                SqsDeadLetterWriter(SqsQueue(clients.sqs, dead_letter_queue)),
                stale_tasks,
                retry_budget,
                max_receives=settings.queue.max_receives,
                on_end=metrics.count_delivery,
            )

        photos = driver(
            AppTier(
                **shared,
                templates=templates,
                gallery_bucket=settings.gallery_bucket,
                min_face_pixels=settings.gallery.min_face_pixels,
                min_quality=settings.gallery.min_quality,
                min_probability=settings.gallery.min_probability,
                others=other,
            ),
            functools.partial(_decode, settings.input_bucket, settings.gallery_bucket),
            settings.dead_letter_queue,
            StaleTasks(SqsQueue(clients.sqs, settings.request_queue), settings.web.wait_seconds),
        )
        # No client waits for faces, so none are stale.
        faces = driver(
            FaceRecognition(
                **shared,
                devices=bootstrap.device_results(settings),
                input_bucket=settings.input_bucket,
                crop_side=artefact.crop.image_size,
                max_faces=settings.model.max_faces,
            ),
            functools.partial(_decode_faces, settings.response_queue),
            settings.faces_dead_letter_queue,
            None,
        )
        return ServedModel(engine, gallery, photos, faces, resources.pop_all())


def _decode(input_bucket: str, gallery_bucket: str, payload: Any) -> tuple[RecognitionRequest, RecognitionRequest]:
    request = decode_request(payload, input_bucket, gallery_bucket)
    return request, request


def _decode_faces(response_queue: str, payload: Any) -> tuple[Request, FacesMessage | DeviceFaces]:
    return decode_faces(payload, response_queue=response_queue, now=datetime.now(UTC))


def _pause(gate: ConsumerGate, utilisation: Utilisation, seconds: float) -> bool:
    """Wait before a retry; returns False, and at once, when the worker takes no more tasks."""
    with utilisation.pausing():
        return gate.wait_while_open(seconds)


def _heartbeat(settings: Settings, utilisation: Utilisation, gate: ConsumerGate) -> WorkerHeartbeat | None:
    """The reports to the autoscaler, for the worker of an EC2 instance."""
    if settings.worker.instance_id is None:
        return None
    return WorkerHeartbeat(
        bootstrap.worker_reports(settings),
        settings.worker.instance_id,
        utilisation,
        gate,
        every_seconds=settings.worker.report_seconds,
        interrupted=_spot_notices(settings),
    )


def _spot_notices(settings: Settings) -> Callable[[], bool]:
    url = settings.worker.metadata_url
    if url is None or url.host is None or url.port is None:
        return lambda: False
    return SpotNotices(url.host, url.port).interrupted


@setup_logging.connect
def _log_our_way(**_: Any) -> None:
    # A receiver of this signal keeps Celery from setting up its own logging.
    configure_logging(app.settings.log, process="worker", instance_id=app.settings.worker.instance_id)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


@worker_init.connect
def _open(sender: Any, **_: Any) -> None:
    # Celery logs an exception and starts the worker all the same. It would fail every task, so the process has to end.
    try:
        _log_our_way()
        events = app.settings.events
        sender.options.update(
            _NOT_ON_SQS, without_heartbeat=not events.enabled, heartbeat_interval=events.heartbeat_seconds
        )
        WorkerTask.worker = worker = Worker.open(app.settings)
        atexit.register(_close)  # Celery's cold shutdown sends no `worker_shutdown`
        app.conf.broker_transport_options |= {
            "consumer_gate": worker.gate,
            "dead_lettered": worker.metrics.count_dead_letter,
        }
    except FacerecError as exc:
        echo_error(str(exc), several_lines=exc.several_lines)  # one line for the operator, whatever the log's form
        sys.exit(1)
    except Exception as exc:
        log.exception("worker_not_started", reason=repr(exc))
        sys.exit(1)


@worker_shutting_down.connect
def _leave(**_: Any) -> None:
    if WorkerTask.worker is not None:
        WorkerTask.worker.leave()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    if WorkerTask.worker is not None:
        WorkerTask.worker.close()
        WorkerTask.worker = None
        log.info("worker_stopped")
