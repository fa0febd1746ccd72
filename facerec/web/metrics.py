"""Prometheus metrics of the web tier, and the route `GET /metrics`.

Several web processes write their metrics to files in one directory (the client library's multiprocess mode), and each
shows the sums. The variable `PROMETHEUS_MULTIPROC_DIR` must name the directory before the library is first imported.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from facerec.messages import Outcome
from facerec.observability.metrics import ProcessSum, ended_children_seconds
from facerec.web.admission import RefusalCause
from facerec.web.asking import UploadRecord
from facerec.web.replies import Reply

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

NO_ROUTE = "(none)"
"""For unknown paths: clients can invent any number of them."""

WAIT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180, 240)
"""Of the histograms of requests and waits, in seconds."""

_ENDED = "ended_cpu_seconds"
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_RESULTS = frozenset(Outcome)
_INTAKE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BYTES = (10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 15_000_000)


@dataclass(frozen=True, slots=True)
class UploadTotals:
    """What all web processes of this machine have counted since they started."""

    answers: int
    """Uploads for which a worker's result came."""
    waits: tuple[int, ...]
    """Uploads by how long they waited for their result: up to each of `WAIT_BOUNDS`, and longer."""
    waiting: int
    """Uploads that wait at this moment."""


class WebMetrics:
    """Counts every request, every upload and what the inbox does; safe for many threads.

    With a `directory` this process is one of several.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.registry = registry = CollectorRegistry()
        self.shown = registry if directory is None else _sum_of_all(directory)
        if directory is None:
            ProcessCollector(registry=registry)
        self._requests = Histogram(
            "facerec_web_request_seconds",
            "Time from a complete request to its reply",
            ["method", "route", "status"],
            buckets=WAIT_BOUNDS,
            registry=registry,
        )
        self._uploads = Counter("facerec_web_uploads", "Uploads, by how they ended", ["outcome"], registry=registry)
        self._bytes = Histogram(
            "facerec_web_upload_bytes", "Size of the uploaded pictures", buckets=_BYTES, registry=registry
        )
        self._intakes = Histogram(
            "facerec_web_intake_seconds",
            "Time to read an upload, store the picture and submit its task",
            buckets=_INTAKE,
            registry=registry,
        )
        self._waits = Histogram(
            "facerec_web_wait_seconds", "Wait of an upload for its result", buckets=WAIT_BOUNDS, registry=registry
        )
        self._waiting = Gauge(
            "facerec_web_uploads_waiting",
            "Uploads that wait for a result",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._places = Gauge(
            "facerec_web_uploads_places",
            "Uploads that may wait at once",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._results = Counter(
            "facerec_web_results",
            "Results from the response queue, by whether an upload waited for them",
            ["awaited"],
            registry=registry,
        )
        self._inbox_failures = Counter(
            "facerec_web_inbox_failures", "Reads of the response queue that failed", registry=registry
        )
        self._inbox_heard = Gauge(
            "facerec_web_inbox_heard_timestamp_seconds",
            "When the response queue last answered; of several processes the one that waits longest",
            multiprocess_mode="livemin",
            registry=registry,
        )
        Gauge("facerec_web_processes", "Web processes", multiprocess_mode="livesum", registry=registry).set(1)
        # Shown from the start, so that a rate includes the first one.
        for outcome in (*Outcome, *RefusalCause, "unavailable", "late", "interrupted"):
            self._uploads.labels(outcome)
        self._awaited, self._unexpected = self._results.labels("yes"), self._results.labels("no")

    def instrument(self, app: Flask) -> None:
        """Time every request. Call it before other hooks are registered: their replies count, too."""

        def begin() -> None:
            g.began = perf_counter()

        def end(response: Response) -> Response:
            method = request.method if request.method in _METHODS else "other"
            route = NO_ROUTE if request.url_rule is None else request.url_rule.rule
            self._requests.labels(method, route, response.status_code).observe(perf_counter() - g.began)
            return response

        app.before_request(begin)
        app.after_request(end)

    def places(self, count: int) -> None:
        """Set how many uploads may wait at once."""
        self._places.set(count)

    def waiting(self, count: int) -> None:
        """Set how many uploads wait."""
        self._waiting.set(count)

    def upload(self, reply: Reply, record: UploadRecord) -> None:
        """Count an upload that is over."""
        self._uploads.labels(reply.outcome).inc()
        if record.bytes is not None:
            self._bytes.observe(record.bytes)
        if record.took_in_ms is not None:
            self._intakes.observe(record.took_in_ms / 1000)
            self._waits.observe(record.waited_ms / 1000)

    def count_results(self, *, awaited: int, unexpected: int, at: float) -> None:
        """Count the results of one answer of the response queue."""
        self._awaited.inc(awaited)
        self._unexpected.inc(unexpected)
        self._inbox_heard.set(at)

    def upload_totals(self) -> UploadTotals:
        """Add up what the metrics of all processes say."""
        answers = waiting = 0.0
        up_to: dict[float, float] = {}
        for family in self.shown.collect():
            for sample in family.samples:
                if sample.name == "facerec_web_uploads_total" and sample.labels["outcome"] in _RESULTS:
                    answers += sample.value
                elif sample.name == "facerec_web_wait_seconds_bucket":
                    up_to[float(sample.labels["le"])] = sample.value
                elif sample.name == "facerec_web_uploads_waiting":
                    waiting = sample.value
        reached = [up_to.get(bound, 0.0) for bound in (*WAIT_BOUNDS, math.inf)]
        waits = tuple(int(more - fewer) for fewer, more in pairwise((0.0, *reached)))
        return UploadTotals(int(answers), waits, int(waiting))

    def count_failure(self) -> None:
        """Count a failed read of the response queue."""
        self._inbox_failures.inc()


def blueprint(metrics: WebMetrics) -> Blueprint:
    """The route `GET /metrics`."""
    page = Blueprint("metrics", __name__)

    @page.get("/metrics")
    def shown() -> Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return Response(encode(metrics.shown), content_type=content_type)

    return page


def forget_process(directory: Path, pid: int) -> None:
    """Forget the gauges of a child that has ended; its counters stay.

    Raises `OSError`, after the gauges are forgotten, if its processor time cannot be written.
    """
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call] # of the library
    new = directory / f"{_ENDED}.new"
    new.write_text(str(ended_children_seconds()))
    new.replace(directory / _ENDED)  # in one step: the other processes read it


def _sum_of_all(directory: Path) -> CollectorRegistry:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call] # of the library

    def pids() -> Iterator[int]:
        for file in directory.glob("gauge_livesum_*.db"):
            yield int(file.stem.rpartition("_")[2])

    def ended() -> float:
        file = directory / _ENDED
        return float(file.read_text()) if file.exists() else 0.0

    registry.register(ProcessSum(pids, ended=ended))
    return registry
