"""The metrics of a running worker, as Prometheus asks for them."""

import json
import signal
from pathlib import Path

from facerec.bootstrap import template_store
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from tests.fakes import engine as fake
from tests.fakes.templates import make_template, of_dimension
from tests.support.emulated import EmulatedAws
from tests.support.metrics import scrape, total
from tests.support.workers import Worker, WorkerTier


def test_worker_shows_what_became_of_its_tasks(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> None:
    """Its log names the requests of a batch that failed, and the damaged templates that it left out at its start."""
    tier = WorkerTier(emulator, fresh, tmp_path)
    damaged = of_dimension(128, make_template(1, model_id=fake.FakeAnalyser.model_id))
    template_store(fresh).add(damaged)
    worker = Worker(tier.environ)
    try:
        address = json.loads(worker.wait_for("metrics_served"))["address"]
        worker.wait_for("worker_ready")
        requests = [tier.upload(picture) for picture in (b"a", fake.SEGFAULT, b"b")]
        tier.answers(*requests)
        # The answer goes out before the delivery is over.
        assert poll_until(lambda: total(scrape(address), "facerec_worker_tasks_total") == 3, 60)
        samples = scrape(address)
        assert total(samples, "facerec_worker_tasks_total", outcome="unknown") == 2
        assert total(samples, "facerec_worker_tasks_total", outcome="failed") == 1
        assert total(samples, "facerec_worker_batch_failures_total", cause="crashed") >= 2
        assert total(samples, "facerec_worker_stage_seconds_count", stage="publish") == 2
        assert total(samples, "process_resident_memory_bytes") > 1_000_000
        assert total(samples, "facerec_worker_gallery_damaged_templates") == 1
        assert damaged.template_id in json.loads(worker.wait_for("gallery_templates_damaged"))["command"]
        culprit = str(requests[1].request_id)
        assert culprit in json.loads(worker.wait_for("batch_failed", culprit))["request_ids"]
        assert worker.stop() == 0
    finally:
        if worker.process.poll() is None:
            worker.stop(signal.SIGKILL)
