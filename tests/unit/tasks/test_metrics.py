"""What Prometheus sees of a worker."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from facerec.answering import StageTimer
from facerec.delivery.driver import DeliveryRecord
from facerec.engine.feeder import Batch
from facerec.engine.process import FaultCause
from facerec.engine.supervisor import SupervisedEngine
from facerec.errors import EngineFailure
from facerec.gallery.cache import GalleryCache
from facerec.messages import Face, Outcome, RecognitionResult, ResultBox, ResultMatch
from facerec.settings import Settings
from facerec.settings.tiers import WorkerSettings
from tasks.metrics import LARGEST_COLLECTIONS, OTHERS, WorkerMetrics
from tasks.utilisation import Utilisation
from tests.fakes import engine as fake
from tests.fakes.templates import MODEL, InMemoryTemplateStore, make_template

FACE = Face(box=ResultBox(x_min=0, y_min=0, x_max=9, y_max=9), probability=0.9, landmarks=())
KNOWN = FACE.model_copy(update={"matches": (ResultMatch(identity="Ada", similarity=0.9, threshold=0.5),)})


def result(*faces: Face, attempt: int = 1) -> RecognitionResult:
    """A result with these faces."""
    return RecognitionResult(
        request_id=uuid4(),
        result="Ada",
        filename="a.jpg",
        outcome=Outcome.MATCH,
        faces=faces,
        attempt=attempt,
        completed_at=datetime.now(UTC),
    )


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    """A sample, or nothing where there is none."""
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> WorkerMetrics:
    """Of a worker that has done nothing."""
    return WorkerMetrics()


def test_delivery_is_counted_by_its_outcome(metrics: WorkerMetrics) -> None:
    """With its faces, its wait, its stages and its duration."""
    timings = {"fetch": 20.0, "engine": 300.0, "store": 4.0}
    record = DeliveryRecord(1, Outcome.MATCH, queued_seconds=2.0, timer=StageTimer(timings), seconds=0.4)
    record.result = result(KNOWN, FACE, FACE)
    metrics.count_delivery(record)
    assert value(metrics, "facerec_worker_tasks_total", outcome="match") == 1
    assert value(metrics, "facerec_worker_faces_total", face="known") == 1
    assert value(metrics, "facerec_worker_faces_total", face="unknown") == 2
    assert value(metrics, "facerec_worker_queue_seconds_sum") == 2.0
    assert value(metrics, "facerec_worker_task_seconds_sum") == 0.4
    assert value(metrics, "facerec_worker_stage_seconds_sum", stage="engine") == pytest.approx(0.3)
    assert value(metrics, "facerec_worker_stage_seconds_count", stage="embed") == 0
    assert value(metrics, "facerec_worker_redeliveries_total") == 0


def test_requests_are_counted_by_their_operation(metrics: WorkerMetrics) -> None:
    """Faces that were not looked for in the gallery are neither known nor unknown."""
    metrics.count_delivery(DeliveryRecord(1, Outcome.MATCH, result=result(KNOWN)))
    detected = result(FACE).model_copy(update={"operation": "detect"})
    metrics.count_delivery(DeliveryRecord(1, Outcome.DONE, result=detected))
    assert value(metrics, "facerec_worker_operations_total", operation="recognise") == 1
    assert value(metrics, "facerec_worker_operations_total", operation="detect") == 1
    assert value(metrics, "facerec_worker_operations_total", operation="enrol") == 0
    assert value(metrics, "facerec_worker_faces_total", face="unknown") == 0


def test_faces_of_an_earlier_delivery_count_once(metrics: WorkerMetrics) -> None:
    """A redelivery that finds the stored result publishes it again, and finds no face."""
    metrics.count_delivery(DeliveryRecord(1, Outcome.MATCH, result=result(KNOWN)))
    metrics.count_delivery(DeliveryRecord(2, Outcome.MATCH, result=result(KNOWN)))
    assert value(metrics, "facerec_worker_redeliveries_total") == 1
    assert value(metrics, "facerec_worker_republished_total") == 1
    assert value(metrics, "facerec_worker_faces_total", face="known") == 1


def test_clock_that_is_behind_makes_no_negative_wait(metrics: WorkerMetrics) -> None:
    """A histogram's sum must never fall."""
    metrics.count_delivery(DeliveryRecord(1, Outcome.NO_FACE, queued_seconds=-3.0))
    assert value(metrics, "facerec_worker_queue_seconds_sum") == 0


def test_unknown_stages_make_no_series(metrics: WorkerMetrics) -> None:
    """Only the stages that are known are shown."""
    metrics.count_delivery(DeliveryRecord(1, Outcome.NO_FACE, timer=StageTimer({"made up": 1.0})))
    assert value(metrics, "facerec_worker_stage_seconds_count", stage="made up") is None


def test_batches_are_counted_by_size_and_failure(metrics: WorkerMetrics) -> None:
    """With every image's wait."""
    metrics.count_batch(Batch((0.1, 0.2, 0.3), 0.5))
    metrics.count_batch(Batch((0.1,), 20.0, FaultCause.OVERRAN))
    assert value(metrics, "facerec_worker_batch_images_sum") == 4
    assert value(metrics, "facerec_worker_batch_images_bucket", le="3.0") == 2
    assert value(metrics, "facerec_worker_batch_wait_seconds_count") == 4
    assert value(metrics, "facerec_worker_batch_failures_total", cause="overran") == 1
    assert value(metrics, "facerec_worker_batch_failures_total", cause="crashed") == 0


def test_every_count_exists_from_the_start(metrics: WorkerMetrics) -> None:
    """A rate misses the first event of a series that begins with 1."""
    for outcome in (*Outcome, "dead_lettered", "redelivered", "error"):
        assert value(metrics, "facerec_worker_tasks_total", outcome=outcome) == 0
    for cause in FaultCause:
        assert value(metrics, "facerec_worker_batch_failures_total", cause=cause) == 0


def test_largest_collections_have_a_series_each(metrics: WorkerMetrics, tmp_path: Path) -> None:
    """The others share one: clients can invent collections."""
    store = InMemoryTemplateStore()
    for number in range(LARGEST_COLLECTIONS + 2):
        store.add(make_template(number, "Ada", collection=f"c{number:02}"))
    store.add(make_template(99, "Bob", collection="c21"))
    store.add(make_template(100, "", collection="c21"))
    gallery = GalleryCache(store, MODEL, 2, dimension=512, now=lambda: 1_000.0)
    for number in range(LARGEST_COLLECTIONS + 2):
        gallery.index(f"c{number:02}")
    engine = SupervisedEngine(Settings(worker=WorkerSettings(engines=1)), tmp_path, factory=fake.FACTORY)
    with closing(engine):
        engine.start()
        metrics.watch(engine=lambda: engine, gallery=lambda: gallery, pids=engine.pids, utilisation=Utilisation(1))
        assert value(metrics, "facerec_worker_gallery_collections") == LARGEST_COLLECTIONS + 2
        assert value(metrics, "facerec_worker_gallery_templates", collection="c21") == 2
        assert value(metrics, "facerec_worker_gallery_damaged_templates") == 1
        assert value(metrics, "facerec_worker_gallery_templates", collection="c00") == 1
        assert value(metrics, "facerec_worker_gallery_templates", collection="c20") is None
        assert value(metrics, "facerec_worker_gallery_templates", collection=OTHERS) == 2
        assert value(metrics, "facerec_worker_gallery_fresh_timestamp_seconds") == 1_000


def test_engine_crash_is_a_failed_batch_and_a_replacement(metrics: WorkerMetrics, tmp_path: Path) -> None:
    """The children's memory is counted apart from the worker's own."""
    settings = Settings(worker=WorkerSettings(engines=1))
    engine = SupervisedEngine(
        settings, tmp_path, factory=fake.FACTORY, on_batch=metrics.count_batch, on_replaced=metrics.count_replacement
    )
    utilisation = Utilisation(1)
    with closing(engine):
        engine.start()
        gallery = GalleryCache(InMemoryTemplateStore(), MODEL, 2, dimension=512)
        metrics.watch(engine=lambda: engine, gallery=lambda: gallery, pids=engine.pids, utilisation=utilisation)
        with utilisation.hold():
            assert "wait" in engine.analyse(b"picture").timings_ms
            assert value(metrics, "facerec_worker_tasks_held") == 1
        with pytest.raises(EngineFailure):
            engine.analyse(fake.EXIT)
        engine.analyse(b"next")
        assert value(metrics, "facerec_worker_batch_failures_total", cause="crashed") == 2
        assert value(metrics, "facerec_worker_engine_replacements_total") == 2
        assert value(metrics, "facerec_worker_batch_images_count") == 4
        assert value(metrics, "facerec_worker_tasks_held") == 0
        assert value(metrics, "facerec_worker_images_waiting") == 0
        memory = value(metrics, "facerec_worker_engine_process_resident_memory_bytes")
        assert memory is not None
        assert memory > 1_000_000
        known = [sample.labels for family in metrics.registry.collect() for sample in family.samples]
        assert any(
            {"engine": "fake", "precision": "fp32", "model_id": "fake-model"}.items() <= one.items() for one in known
        )
