"""The autoscaler's process: wired from the settings, stopped by signals."""

import threading
import time
from collections.abc import Callable

import structlog

from autoscale import bootstrap
from autoscale.aws.requirements import check_requirements
from autoscale.controller import Controller, Priors
from autoscale.metrics import RoundMetrics
from autoscale.observation import Limits
from autoscale.policy import Policy
from autoscale.reconciler import Reconciler
from autoscale.rehearsal import NoChronicle, NoLease, WatchedFleet
from autoscale.rounds import Round
from facerec.bootstrap import clients, worker_reports
from facerec.errors import Transient
from facerec.metrics import served
from facerec.setting_groups import AutoscaleSettings
from facerec.settings import Settings
from facerec.stopping import on_stop_signals

log = structlog.get_logger(__name__)

_LEASE_MARGIN_SECONDS = 3.0


def policy_of(settings: AutoscaleSettings) -> Policy:
    """What the operator wants."""
    return Policy(
        min_instances=settings.min_instances,
        max_instances=settings.max_instances,
        target_seconds=settings.target_seconds,
        cooldown_seconds=settings.cooldown_seconds,
        utilisation=settings.utilisation,
        warm_pool_max=settings.warm_pool_max,
        warm_pool_max_age_seconds=settings.warm_pool_max_age_seconds,
        limits=Limits(
            boot_seconds=settings.boot_limit_seconds,
            silence_seconds=settings.silence_limit_seconds,
            drain_seconds=settings.drain_limit_seconds,
        ),
    )


def controller_of(settings: AutoscaleSettings) -> Controller:
    """A mind that has seen nothing yet."""
    priors = Priors(settings.boot_prior_seconds, settings.start_prior_seconds, settings.service_prior_seconds)
    return Controller(policy_of(settings), priors)


def reconciler_of(settings: Settings, watch: Callable[[Round], None], *, rehearsal: bool) -> Reconciler:
    """The reconciler on AWS; a rehearsal decides and changes nothing."""
    holder = bootstrap.lease(settings)
    fleet = bootstrap.fleet(settings, holder, worker_reports(settings))
    return Reconciler(
        backlog=bootstrap.backlog(settings),
        fleet=WatchedFleet(fleet) if rehearsal else fleet,
        lease=NoLease() if rehearsal else holder,
        chronicle=NoChronicle() if rehearsal else bootstrap.chronicle(settings),
        controller=controller_of(settings.autoscale),
        watch=watch,
    )


def run(settings: Settings, watch: Callable[[Round], None] = lambda _: None, *, rehearsal: bool = False) -> None:
    """Reconcile until SIGTERM or SIGINT; the instances are left as they are.

    Raises `ConfigurationError` or `QueueMissing` when something is missing at the start; later that is logged, and
    tried again.
    """
    stopping = threading.Event()
    on_stop_signals(stopping.set)
    check(settings)
    metrics = RoundMetrics(policy_of(settings.autoscale))

    def told(done: Round) -> None:
        metrics.observe(done)
        watch(done)

    shown = settings.autoscale
    with served(metrics.registry, shown.metrics_host, shown.metrics_port, group="autoscale"):
        log.info("autoscaler_ready", max_instances=settings.autoscale.max_instances, rehearsal=rehearsal)
        reconciler_of(settings, told, rehearsal=rehearsal).run(stopping, settings.autoscale.interval_seconds)
    log.info("autoscaler_stopped")


def once(settings: Settings, *, rehearsal: bool = False) -> Round:
    """One round, as soon as the lease is free: one that a killed autoscaler left is so after its length.

    Raises as `run`. The round has no decision when another autoscaler kept the lease meanwhile.
    """
    check(settings)
    reconciler = reconciler_of(settings, lambda _: None, rehearsal=rehearsal)
    deadline = time.monotonic() + settings.autoscale.lease_seconds + _LEASE_MARGIN_SECONDS
    try:
        while True:
            done = reconciler.round()
            if done.decision is not None or time.monotonic() > deadline:
                return done
            time.sleep(settings.autoscale.interval_seconds)
    finally:
        reconciler.release()


def check(settings: Settings) -> None:
    """Raise `ConfigurationError` or `QueueMissing` for what is missing; an outage is waited for in the rounds."""
    try:
        check_requirements(clients(settings), settings)
    except Transient as exc:
        log.warning("requirements_not_checked", reason=str(exc))
