"""Prometheus metrics of a worker, in a registry of their own.

Events are counted when they happen. The present state is read when Prometheus asks.
"""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from facerec import __version__
from facerec.delivery.driver import DEAD_LETTERED, ERROR, REDELIVERED, REQUEUED, DeliveryRecord
from facerec.engine.feeder import Batch
from facerec.engine.process import FaultCause
from facerec.engine.supervisor import SupervisedEngine
from facerec.gallery.cache import GalleryCache
from facerec.messages import Outcome, WorkerState
from facerec.observability.metrics import ProcessSum, ended_children_seconds
from facerec.operations import OPERATIONS, Recognise
from tasks.utilisation import Utilisation

STAGES = ("fetch", "wait", "decode", "detect", "embed", "engine", "match", "write", "store", "publish")
"""`engine` is the whole way through an engine child: `wait`, `decode`, `detect`, `embed`, and the pipe."""

LARGEST_COLLECTIONS = 20
"""Names of collections come from clients: only the largest get a series of their own."""
OTHERS = "(others)"
"""The series of all other collections; no collection can have this name."""

_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180, 300)
_IMAGES = (1, 2, 3, 4, 6, 8, 12, 16, 32)


class WorkerMetrics:
    """Counts deliveries, batches of the engines and replaced engines; safe for many threads."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._tasks = Counter(
            "facerec_worker_tasks", "Deliveries that are over, by outcome", ["outcome"], registry=registry
        )
        self._redeliveries = Counter(
            "facerec_worker_redeliveries", "Deliveries that were not the task's first", registry=registry
        )
        self._republished = Counter(
            "facerec_worker_republished", "Results of an earlier delivery that were published again", registry=registry
        )
        self._faces = Counter("facerec_worker_faces", "Faces found: known or unknown", ["face"], registry=registry)
        self._operations = Counter(
            "facerec_worker_operations",
            "Requests that were done, by what they asked for",
            ["operation"],
            registry=registry,
        )
        self._queued = Histogram(
            "facerec_worker_queue_seconds",
            "Time from an upload's submission to its delivery",
            buckets=_LONG,
            registry=registry,
        )
        self._seconds = Histogram(
            "facerec_worker_task_seconds", "Time from a delivery to its end", buckets=_SHORT, registry=registry
        )
        self._stages = Histogram(
            "facerec_worker_stage_seconds", "Time in each stage", ["stage"], buckets=_SHORT, registry=registry
        )
        self._batch_images = Histogram(
            "facerec_worker_batch_images", "Images that an engine took at once", buckets=_IMAGES, registry=registry
        )
        self._batch_seconds = Histogram(
            "facerec_worker_batch_seconds", "Time of an engine for a batch", buckets=_SHORT, registry=registry
        )
        self._batch_waits = Histogram(
            "facerec_worker_batch_wait_seconds", "Wait of an image for an engine", buckets=_SHORT, registry=registry
        )
        self._batch_failures = Counter(
            "facerec_worker_batch_failures",
            "Batches that failed as a whole: the engine crashed, overran its time or raised",
            ["cause"],
            registry=registry,
        )
        self._replacements = Counter(
            "facerec_worker_engine_replacements", "Engine processes that replaced an ended one", registry=registry
        )
        # Shown from the start, so that a rate includes the first one.
        for outcome in (*Outcome, REQUEUED, DEAD_LETTERED, REDELIVERED, ERROR):
            self._tasks.labels(outcome)
        self._known, self._unknown = self._faces.labels("known"), self._faces.labels("unknown")
        self._stage = {stage: self._stages.labels(stage) for stage in STAGES}
        for operation in OPERATIONS:
            self._operations.labels(operation)
        for cause in FaultCause:
            self._batch_failures.labels(cause)

    def count_delivery(self, record: DeliveryRecord) -> None:
        """Count a delivery that is over."""
        self._tasks.labels(record.outcome).inc()
        self._seconds.observe(record.seconds)
        if record.attempt > 1:
            self._redeliveries.inc()
        if record.queued_seconds is not None:
            # The clocks of two machines may differ.
            self._queued.observe(max(0.0, record.queued_seconds))
        for stage, milliseconds in record.timer.timings_ms.items():
            if stage in self._stage:
                self._stage[stage].observe(milliseconds / 1000)
        result = record.result
        if result is None:
            return
        if result.attempt < record.attempt:
            self._republished.inc()
            return
        self._operations.labels(result.operation).inc()
        if result.operation != Recognise().kind:
            return
        known = sum(1 for face in result.faces if face.matches)
        self._known.inc(known)
        self._unknown.inc(len(result.faces) - known)

    def count_dead_letter(self) -> None:
        """Count a dead letter of the transport: a message that is no task, or that failed in its last delivery."""
        self._tasks.labels(DEAD_LETTERED).inc()

    def count_batch(self, batch: Batch) -> None:
        """Count a batch that is over."""
        self._batch_images.observe(len(batch.waited_seconds))
        self._batch_seconds.observe(batch.seconds)
        for seconds in batch.waited_seconds:
            self._batch_waits.observe(seconds)
        if batch.fault is not None:
            self._batch_failures.labels(batch.fault).inc()

    def count_replacement(self) -> None:
        """Count an engine process that was replaced."""
        self._replacements.inc()

    def watch(
        self,
        *,
        engine: Callable[[], SupervisedEngine],
        gallery: Callable[[], GalleryCache],
        pids: Callable[[], list[int]],
        utilisation: Utilisation,
    ) -> None:
        """Show the present state, too; the engine must have started. `pids` are those of all engine children."""
        self.registry.register(_State(engine, gallery, utilisation))
        self.registry.register(ProcessSum(pids, "facerec_worker_engine", ended=ended_children_seconds))


class _State(Collector):
    """The present state."""

    def __init__(
        self, engine: Callable[[], SupervisedEngine], gallery: Callable[[], GalleryCache], utilisation: Utilisation
    ) -> None:
        self._engine = engine
        self._gallery = gallery
        self._utilisation = utilisation

    def collect(self) -> Iterator[Metric]:
        """Read it."""
        engine = self._engine()
        facts = {
            "version": __version__,
            "engine": engine.name,
            "precision": engine.precision,
            "model_id": engine.model_id,
        }
        yield InfoMetricFamily("facerec_worker", "What this worker computes with", facts)
        yield GaugeMetricFamily("facerec_worker_images_waiting", "Images that wait for an engine", engine.waiting)
        busy = self._utilisation.report("", WorkerState.READY, interrupted=False)
        yield GaugeMetricFamily("facerec_worker_tasks_held", "Tasks held", busy.held)
        yield CounterMetricFamily(
            "facerec_worker_saturated_seconds",
            "Time with at least as many tasks held as there are engines",
            busy.saturated_seconds,
        )
        yield from self._collections()

    def _collections(self) -> Iterator[Metric]:
        sizes = self._gallery().sizes()
        yield GaugeMetricFamily(
            "facerec_worker_gallery_fresh_timestamp_seconds",
            "When the loaded collections were last known to be up to date",
            sizes.fresh_at,
        )
        yield GaugeMetricFamily("facerec_worker_gallery_collections", "Collections in memory", len(sizes.templates))
        yield GaugeMetricFamily(
            "facerec_worker_gallery_damaged_templates",
            "Damaged templates of the loaded collections, which were left out",
            sizes.damaged,
        )
        largest = sorted(sizes.templates.items(), key=lambda item: (-item[1], item[0]))
        shown = dict(largest[:LARGEST_COLLECTIONS])
        if rest := largest[LARGEST_COLLECTIONS:]:
            shown[OTHERS] = sum(size for _, size in rest)
        family = GaugeMetricFamily(
            "facerec_worker_gallery_templates", "Templates in memory, by collection", labels=["collection"]
        )
        for collection, size in shown.items():
            family.add_metric([collection], size)
        yield family
