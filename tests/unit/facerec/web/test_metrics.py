"""What Prometheus sees of the web tier."""

import subprocess
import sys
from pathlib import Path

import pytest

from facerec.errors import Transient
from facerec.settings import Settings
from facerec.web.metrics import NO_ROUTE, WebMetrics, forget_process
from tests.fakes.web_tier import FakeWebTier, answers, running, upload


@pytest.fixture
def tier() -> FakeWebTier:
    """A web tier whose worker knows everybody as Jane."""
    return FakeWebTier(Settings(), answers("Jane"))


def value(tier: FakeWebTier, name: str, **labels: str) -> float | None:
    """A sample, or nothing where there is none."""
    return tier.metrics.registry.get_sample_value(name, labels)


def requests(tier: FakeWebTier, method: str, route: str, status: int) -> float | None:
    """How many such requests there were."""
    return value(tier, "facerec_web_request_seconds_count", method=method, route=route, status=str(status))


def test_metrics_count_an_upload_by_its_outcome(tier: FakeWebTier) -> None:
    """With its size, the time to take it in, its wait, and the result that ended it."""
    with running(tier):
        assert upload(tier.app.test_client()).status_code == 200
    assert value(tier, "facerec_web_uploads_total", outcome="match") == 1
    assert value(tier, "facerec_web_upload_bytes_count") == 1
    assert value(tier, "facerec_web_intake_seconds_count") == 1
    assert value(tier, "facerec_web_wait_seconds_count") == 1
    assert value(tier, "facerec_web_results_total", awaited="yes") == 1
    assert value(tier, "facerec_web_uploads_waiting") == 0
    assert requests(tier, "POST", "/", 200) == 1


def test_metrics_count_no_wait_for_a_refusal(tier: FakeWebTier) -> None:
    """Refusals would make the waits look short."""
    tier.admission.close()
    assert upload(tier.app.test_client()).status_code == 503
    assert upload(FakeWebTier().app.test_client(), body=b"").status_code == 400
    assert value(tier, "facerec_web_uploads_total", outcome="stopping") == 1
    assert value(tier, "facerec_web_wait_seconds_count") == 0


def test_metrics_show_the_waiting_uploads(tier: FakeWebTier) -> None:
    """Metrics show the waiting uploads."""
    tier.admission.enter("kiosk")
    tier.admission.enter("kiosk")
    assert value(tier, "facerec_web_uploads_waiting") == 2
    tier.admission.leave("kiosk", answered=True)
    assert value(tier, "facerec_web_uploads_waiting") == 1


def test_metrics_have_routes_as_labels_and_not_paths(tier: FakeWebTier) -> None:
    """Clients invent paths and methods, without end."""
    client = tier.app.test_client()
    for number in range(3):
        client.get(f"/nowhere/{number}")
        client.get(f"/api/v1/results/{number}")
        client.open("/", method=f"BREW{number}")
    assert requests(tier, "GET", NO_ROUTE, 404) == 3
    assert requests(tier, "GET", "/api/v1/results/<request_id>", 404) == 3
    assert requests(tier, "other", NO_ROUTE, 405) == 3


def test_metrics_count_a_fault_as_500(tier: FakeWebTier) -> None:
    """Metrics count a fault as 500."""

    def broken(bucket: str, key: str, body: bytes, content_type: str) -> None:
        raise RuntimeError("a bug")

    tier.store.put = broken  # type: ignore[method-assign]  # a fault that nobody expected
    assert upload(tier.app.test_client()).status_code == 500
    assert requests(tier, "POST", "/", 500) == 1
    assert value(tier, "facerec_web_uploads_waiting") == 0


def test_metrics_count_failures_of_the_inbox(tier: FakeWebTier) -> None:
    """The time of its last answer shows how long it has been silent."""
    with running(tier):
        assert upload(tier.app.test_client()).status_code == 200
    heard = value(tier, "facerec_web_inbox_heard_timestamp_seconds")
    assert heard
    assert value(tier, "facerec_web_inbox_failures_total") == 0
    tier.metrics.count_failure()
    assert value(tier, "facerec_web_inbox_failures_total") == 1


def test_metrics_count_an_unreachable_store_as_unavailable(tier: FakeWebTier) -> None:
    """Metrics count an unreachable store as unavailable."""
    tier.store.outage = Transient("down")
    assert upload(tier.app.test_client()).status_code == 503
    assert value(tier, "facerec_web_uploads_total", outcome="unavailable") == 1


def test_metrics_page_is_prometheus_text(tier: FakeWebTier) -> None:
    """With the process's own memory and descriptors; it is not to be cached."""
    client = tier.app.test_client()
    client.get("/healthz")
    page = client.get("/metrics")
    assert page.status_code == 200
    assert page.mimetype == "text/plain"
    assert page.headers["Cache-Control"] == "no-store"
    assert 'facerec_web_request_seconds_count{method="GET",route="/healthz",status="200"} 1.0' in page.text
    assert "process_resident_memory_bytes" in page.text
    openmetrics = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert openmetrics.text.endswith("# EOF\n")


def test_metrics_keep_the_processor_time_of_an_ended_process(tmp_path: Path) -> None:
    """A counter that fell back would look to `rate()` like a burst."""
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    shown = WebMetrics(tmp_path).shown
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        (tmp_path / f"gauge_livesum_{child.pid}.db").write_bytes(bytes(8))  # as if it had counted
        assert child.stdout is not None
        child.stdout.readline()
        before = shown.get_sample_value("process_cpu_seconds_total")
        child.communicate(b"\n")
    forget_process(tmp_path, child.pid)
    after = shown.get_sample_value("process_cpu_seconds_total")
    assert before is not None
    assert after is not None
    assert after >= before >= 0.1


def test_metrics_forget_the_gauges_of_an_ended_process_on_a_full_disk(tmp_path: Path) -> None:
    """Only its processor time is lost."""
    held = tmp_path / "gauge_livesum_4711.db"
    held.write_bytes(bytes(8))
    (tmp_path / "ended_cpu_seconds.new").mkdir()  # so that nothing can be written there, by root neither
    with pytest.raises(OSError, match="ended_cpu_seconds"):
        forget_process(tmp_path, 4711)
    assert not held.exists()
