"""The metrics of the tiers: a page as Prometheus reads it, and every family that a tier exports."""

import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from autoscale.metrics import RoundMetrics
from autoscale.observation import FleetByPhase, Observation
from autoscale.policy import Decision, Estimates, Policy
from autoscale.reconcile_result import ReconcileResult
from facerec.engine.supervisor import SupervisedEngine
from facerec.fleet_records import QueueDepth
from facerec.gallery.cache import GalleryCache
from facerec.settings import Settings
from facerec.settings.tiers import WorkerSettings
from facerec.web.metrics import WebMetrics
from tasks.metrics import WorkerMetrics
from tasks.utilisation import Utilisation
from tests.fakes import engine as fake
from tests.fakes.templates import MODEL, InMemoryTemplateStore, make_template

_TLS = ssl.create_default_context()
"""Making one takes longer than asking; it is not used, since the pages are plain HTTP."""

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Samples:
    """Every sample of a page."""
    families = text_string_to_metric_families(httpx.get(url, verify=_TLS, timeout=30).raise_for_status().text)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of the samples with these labels, among others."""
    return sum(
        number for (sample, its), number in samples.items() if sample == name and labels.items() <= dict(its).items()
    )


_SUFFIXES = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "info": ("_info",),
}


def series(family: Metric) -> Iterator[str]:
    """The names under which Prometheus knows a family."""
    return (f"{family.name}{suffix}" for suffix in _SUFFIXES.get(family.type, ("",)))


def exported(folder: Path) -> dict[str, list[Metric]]:
    """The families of each tier: web, worker, autoscaler."""
    return {
        "web": families(WebMetrics().registry),
        "worker": _of_a_worker(folder),
        "autoscaler": _of_the_autoscaler(),
    }


def families(registry: CollectorRegistry) -> list[Metric]:
    """The families of a registry."""
    return list(registry.collect())


def _of_a_worker(folder: Path) -> list[Metric]:
    store = InMemoryTemplateStore()
    store.add(make_template(1))
    gallery = GalleryCache(store, MODEL, 2, dimension=512)
    gallery.index("default")
    metrics = WorkerMetrics()
    engine = SupervisedEngine(Settings(worker=WorkerSettings(engines=1)), folder, factory=fake.FACTORY)
    with closing(engine):
        engine.start()
        metrics.watch(engine=lambda: engine, gallery=lambda: gallery, pids=engine.pids, utilisation=Utilisation(1))
        return families(metrics.registry)


def _of_the_autoscaler() -> list[Metric]:
    metrics = RoundMetrics(Policy())
    seen = Observation(QueueDepth(7, 3, 1, 12.5, 2), FleetByPhase.of((), Policy().limits, 0.0))
    metrics.observe(
        ReconcileResult(
            1_000_000.0,
            leading=True,
            observation=seen,
            decision=Decision(needed=1, keep=1, reason="7 open"),
            estimates=Estimates(60, 30, 0.1, 2.5),
        )
    )
    return families(metrics.registry)
