"""The autoscaler's process: wired from the settings, stopped by signals."""

import threading
import time
from collections.abc import Callable, Sequence

import structlog

from autoscale.aws.backlog import SqsBacklog
from autoscale.aws.capacity_pools import Offers
from autoscale.aws.ec2 import Ec2
from autoscale.aws.fleet import Ec2Fleet
from autoscale.aws.history import DynamoChronicle
from autoscale.aws.launches import Launches
from autoscale.aws.lease import DynamoLease
from autoscale.controller import Controller, Priors
from autoscale.metrics import RoundMetrics
from autoscale.observation import Instance, Limits
from autoscale.policy import Policy
from autoscale.ports import Backlog, Chronicle, Fleet, Record
from autoscale.reconciler import Reconciler
from autoscale.round_result import Round
from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import check_queue
from facerec.background import on_stop_signals
from facerec.bootstrap import clients, worker_reports
from facerec.errors import ConfigurationError, Transient
from facerec.observability.metrics import served
from facerec.ports import WorkerReports
from facerec.settings import Settings
from facerec.settings.tiers import AutoscaleSettings


def make_backlog(settings: Settings) -> Backlog:
    """The request queue, and how much of it has failed."""
    return SqsBacklog(clients(settings), settings.request_queue, settings.dead_letter_queue)


def make_lease(settings: Settings) -> DynamoLease:
    """This process's share in the controllers' lease; one for all that acts."""
    return DynamoLease(clients(settings), settings.fleet_table, lease_seconds=settings.autoscale.lease_seconds)


def make_fleet(settings: Settings, holder: DynamoLease, reports: WorkerReports) -> Fleet:
    """The app tier's instances; with a lease that is never held, to look at only."""
    aws, instances = clients(settings), settings.instances
    return Ec2Fleet(
        Ec2(aws, settings),
        Launches(aws, settings.fleet_table, holder),
        holder,
        reports,
        Offers(instances.types, instances.subnet_ids),
        spot=instances.purchase == "spot",
    )


def make_chronicle(settings: Settings) -> Chronicle:
    """What the fleet did."""
    return DynamoChronicle(clients(settings), settings.fleet_table)


class WatchedFleet:
    """A `Fleet` that is only looked at: every order is left out."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def instances(self) -> tuple[Instance, ...]:
        """The real ones."""
        return self._fleet.instances()

    def launch(self, numbers: Sequence[int]) -> None:
        """Nothing."""

    def start(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""

    def drain(self, instance_ids: Sequence[str], now: float) -> None:
        """Nothing."""

    def resume(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""

    def stop(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""

    def terminate(self, instance_ids: Sequence[str]) -> None:
        """Nothing."""


class NoLease:
    """A `Lease` that keeps nobody from anything: who only looks needs none."""

    def hold(self) -> bool:
        """Go on."""
        return True

    def release(self) -> None:
        """Nothing."""


class NoChronicle:
    """A `Chronicle` that keeps nothing."""

    def record(self, record: Record) -> None:
        """Nothing."""

    def records(self, since: float) -> Sequence[Record]:
        """None."""
        del since
        return ()


def check_requirements(clients: Clients, settings: Settings) -> None:
    """Return if queue, table and launch template exist.

    Raises `QueueMissing` or `ConfigurationError` saying how to make what is missing, and `Transient`.
    """
    table = settings.fleet_table
    check_queue(clients, settings.request_queue)
    with translated(
        f"find table {table!r}",
        ResourceNotFoundException=lambda: ConfigurationError(
            f"there is no table {table!r}; create it with `facerec provision`"
        ),
    ):
        clients.dynamodb.describe_table(TableName=table)
    Ec2(clients, settings).default_version()


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
    holder = make_lease(settings)
    fleet = make_fleet(settings, holder, worker_reports(settings))
    return Reconciler(
        backlog=make_backlog(settings),
        fleet=WatchedFleet(fleet) if rehearsal else fleet,
        lease=NoLease() if rehearsal else holder,
        chronicle=NoChronicle() if rehearsal else make_chronicle(settings),
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
