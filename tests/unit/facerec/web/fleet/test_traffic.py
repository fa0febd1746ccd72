"""Throughput and waits of a web instance."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facerec.settings import Settings
from facerec.web.fleet.traffic import POINTS, SAMPLE_SECONDS, Traffic, quantile
from facerec.web.metrics import WAIT_BOUNDS, UploadTotals
from tests.fakes.clock import Clock
from tests.fakes.web_tier import FakeWebTier, answers, running, upload

NOTHING = (0,) * (len(WAIT_BOUNDS) + 1)


def waits(**counts: int) -> tuple[int, ...]:
    """Waits by the index of their bound: `waits(b3=10)`."""
    return tuple(counts.get(f"b{index}", 0) for index in range(len(NOTHING)))


class Uploads:
    """Totals that the test counts."""

    def __init__(self) -> None:
        self.totals = UploadTotals(0, NOTHING, 0)

    def end(self, waits: tuple[int, ...], waiting: int = 0) -> None:
        """Answer some."""
        added = tuple(old + new for old, new in zip(self.totals.waits, waits, strict=True))
        self.totals = UploadTotals(self.totals.answers + sum(waits), added, waiting)


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        (NOTHING, 0.5, None),
        (waits(b4=10), 0.5, 0.075),  # half way from 0.05 to 0.1
        (waits(b0=1), 1.0, 0.005),
        (waits(b4=95, b8=5), 0.95, 0.1),
        (waits(b4=90, b8=10), 0.95, 1.75),
        (waits(b16=3), 0.5, 240.0),
    ],
)
def test_quantile_lies_between_the_bounds(counts: tuple[int, ...], share: float, expected: float | None) -> None:
    """Beyond the last bound it is that bound."""
    assert quantile(counts, share) == (None if expected is None else pytest.approx(expected))


def test_sample_is_what_happened_since_the_last_one() -> None:
    """Totals from before the start are no throughput."""
    uploads, clock = Uploads(), Clock()
    uploads.end(waits(b5=1000))
    traffic = Traffic(lambda: uploads.totals, now=clock)
    assert traffic.latest(60) is None
    uploads.end(waits(b4=10), waiting=3)
    clock.now += 5
    traffic.sample()
    uploads.end(waits())  # now nobody waits any more
    clock.now += 5
    traffic.sample()
    first, second = traffic.samples(0)
    assert (first.answers_per_second, first.waiting) == (2.0, 3)
    assert first.wait_seconds(0.5) == pytest.approx(0.075)
    assert (second.answers_per_second, second.wait_seconds(0.5)) == (0.0, None)
    latest = traffic.latest(60)
    assert latest is not None
    assert (latest.answers_per_second, latest.seconds, latest.waiting) == (1.0, 10.0, 0)


def test_traffic_keeps_an_hour_in_200_points() -> None:
    """A point is the sum of its samples, and it does not change when the next one comes."""
    uploads, clock = Uploads(), Clock()
    traffic = Traffic(lambda: uploads.totals, now=clock)
    for _ in range(800):
        uploads.end(waits(b2=1))
        clock.now += SAMPLE_SECONDS
        traffic.sample()
    drawn = traffic.samples(0)
    assert POINTS * 0.8 <= len(drawn) <= POINTS
    assert sum(sample.answers for sample in drawn) == 720
    uploads.end(waits(b2=1))
    clock.now += SAMPLE_SECONDS
    traffic.sample()
    assert set(drawn[1:-1]) - set(traffic.samples(0)) == set()


def test_uploads_of_a_web_tier_are_counted() -> None:
    """From its metrics: an answer and its wait; a refusal is neither."""
    tier = FakeWebTier(Settings(), answers("Jane"))
    with running(tier):
        for _ in range(3):
            assert upload(tier.app.test_client()).status_code == 200
        assert upload(tier.app.test_client(), body=b"").status_code == 400
    tier.traffic.sample()
    (sample,) = tier.traffic.samples(0)
    assert (sample.answers, sum(sample.waits), sample.waiting) == (3, 3, 0)


def test_uploads_of_several_processes_are_added_up(tmp_path: Path) -> None:
    """Each writes its metrics to a file of one directory."""
    script = (
        "import sys; from pathlib import Path; from facerec.web.metrics import WebMetrics; "
        "from facerec.web.asking import UploadRecord; from facerec.web.replies import Reply; "
        "m = WebMetrics(Path(sys.argv[1])); m.waiting(2); "
        "m.upload(Reply(200, 'x', 'match'), UploadRecord(took_in_ms=5, waited_ms=70)); print(m.upload_totals())"
    )
    environ = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    ran = [
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], env=environ, check=True, capture_output=True, text=True
        )
        for _ in range(2)
    ]
    assert "answers=1, waits=(0, 0, 0, 0, 1, 0," in ran[0].stdout
    assert "answers=2, waits=(0, 0, 0, 0, 2, 0," in ran[1].stdout
