"""The autoscaler's process: it is wired from the settings and reconciles until a signal stops it."""

import threading
import time
from collections.abc import Callable

import structlog

from autoscale.aws.backlog import SqsBacklog, TotalBacklog
from autoscale.aws.ec2 import CapacityPools, Ec2
from autoscale.aws.fleet import Ec2Fleet
from autoscale.aws.launch_slots import LaunchSlots
from autoscale.aws.lease import DynamoLease
from autoscale.decider import Decider, Priors
from autoscale.metrics import RoundMetrics
from autoscale.observation import Limits
from autoscale.policy import Policy
from autoscale.reconcile_result import ReconcileResult
from autoscale.reconciler import Reconciler
from facerec.aws.clients import translated
from facerec.aws.sqs.queue import check_queue
from facerec.background import on_stop_signals
from facerec.bootstrap import clients, fleet_history, worker_reports
from facerec.errors import ConfigurationError, Transient
from facerec.observability.metrics import serve_metrics
from facerec.ports import WorkerReports
from facerec.settings import AppTier, Settings
from facerec.settings.tiers import AutoscaleSettings

log = structlog.get_logger(__name__)
_LEASE_MARGIN_SECONDS = 3.0


def run(
    settings: Settings, watch: Callable[[ReconcileResult], None] = lambda _: None, *, dry_run: bool = False
) -> None:
    """Reconcile until SIGTERM or SIGINT; the instances stay as they are.

    Raises `ConfigurationError` or `QueueMissing` if something is missing at the start; later that is logged, and tried
    again.
    """
    stopping = threading.Event()
    on_stop_signals(stopping.set)
    check_requirements(settings)
    scaling, policy = settings.autoscale, make_policy(settings.autoscale, settings.app_tier)
    metrics = RoundMetrics(policy)

    def observe(result: ReconcileResult) -> None:
        metrics.observe(result)
        watch(result)

    with serve_metrics(metrics.registry, scaling.metrics_host, scaling.metrics_port, group="autoscale"):
        log.info("autoscaler_ready", max_instances=policy.max_instances, dry_run=dry_run)
        make_reconciler(settings, observe, dry_run=dry_run).run(stopping, scaling.interval_seconds)
    log.info("autoscaler_stopped")


def run_once(settings: Settings, *, dry_run: bool = False) -> ReconcileResult:
    """Do one round when the lease is free; the lease of a killed autoscaler is free after its length.

    Raises as `run`. The result has no decision if another autoscaler kept the lease.
    """
    check_requirements(settings)
    reconciler = make_reconciler(settings, lambda _: None, dry_run=dry_run)
    deadline = time.monotonic() + settings.autoscale.lease_seconds + _LEASE_MARGIN_SECONDS
    try:
        while True:
            result = reconciler.round()
            if result.decision is not None or time.monotonic() > deadline:
                return result
            time.sleep(settings.autoscale.interval_seconds)
    finally:
        reconciler.release()


def check_requirements(settings: Settings) -> None:
    """Raise `ConfigurationError` or `QueueMissing` if queue, table or launch template is missing.

    An outage is only logged: the rounds wait for its end.
    """
    aws, table = clients(settings), settings.fleet_table
    missing = ConfigurationError(f"there is no table {table!r}; create it with `facerec provision`")
    try:
        for queue in settings.worker_queues:
            check_queue(aws, queue)
        with translated(f"find table {table!r}", ResourceNotFoundException=lambda: missing):
            aws.dynamodb.describe_table(TableName=table)
        Ec2(aws, settings).default_version()
    except Transient as exc:
        log.warning("requirements_not_checked", reason=str(exc))


def make_reconciler(
    settings: Settings, watch: Callable[[ReconcileResult], None], *, dry_run: bool = False
) -> Reconciler:
    """Make the reconciler on AWS; a dry run decides and changes nothing."""
    lease = make_lease(settings)
    return Reconciler(
        backlog=make_backlog(settings),
        fleet=make_fleet(settings, lease, worker_reports(settings)),
        lease=lease,
        history=fleet_history(settings),
        decider=Decider(
            make_policy(settings.autoscale, settings.app_tier),
            make_priors(settings.autoscale),
            settings.autoscale.interval_seconds,
        ),
        dry_run=dry_run,
        watch=watch,
    )


def make_policy(settings: AutoscaleSettings, app_tier: AppTier = "ec2") -> Policy:
    """Make the policy that the operator wants; a serverless app tier has no instances."""
    on_ec2 = app_tier != "serverless"
    return Policy(
        min_instances=settings.min_instances if on_ec2 else 0,
        max_instances=settings.max_instances if on_ec2 else 0,
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


def make_priors(settings: AutoscaleSettings) -> Priors:
    """Make the estimates to begin with."""
    return Priors(settings.boot_prior_seconds, settings.start_prior_seconds, settings.service_prior_seconds)


def make_backlog(settings: Settings) -> TotalBacklog:
    """Make the reader of the depth of the queues from which instances take."""
    return TotalBacklog([SqsBacklog(clients(settings), *queues) for queues in settings.worker_queues.items()])


def make_lease(settings: Settings) -> DynamoLease:
    """Make this process's handle of the autoscalers' lease."""
    return DynamoLease(clients(settings), settings.fleet_table, lease_seconds=settings.autoscale.lease_seconds)


def make_fleet(settings: Settings, lease: DynamoLease, reports: WorkerReports) -> Ec2Fleet:
    """Make the fleet on EC2; without the lease it can only be read."""
    aws, instances = clients(settings), settings.instances
    return Ec2Fleet(
        Ec2(aws, settings),
        LaunchSlots(aws, settings.fleet_table, lease),
        lease,
        reports,
        CapacityPools(instances.types, instances.subnet_ids),
        spot=instances.purchase == "spot",
    )
