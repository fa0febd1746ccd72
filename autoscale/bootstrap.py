"""Wires the autoscaler's ports to their adapters from the settings."""

from autoscale.aws.backlog import SqsBacklog
from autoscale.aws.chronicle import DynamoChronicle
from autoscale.aws.ec2 import Ec2
from autoscale.aws.fleet import Ec2Fleet
from autoscale.aws.launches import Launches
from autoscale.aws.lease import DynamoLease
from autoscale.aws.offers import Offers
from autoscale.ports import Backlog, Chronicle, Fleet
from facerec.bootstrap import clients
from facerec.ports import WorkerReports
from facerec.settings import Settings


def backlog(settings: Settings) -> Backlog:
    """The request queue, and how much of it has failed."""
    return SqsBacklog(clients(settings), settings.request_queue, settings.dead_letter_queue)


def lease(settings: Settings) -> DynamoLease:
    """This process's share in the controllers' lease; one for all that acts."""
    return DynamoLease(clients(settings), settings.fleet_table, lease_seconds=settings.autoscale.lease_seconds)


def fleet(settings: Settings, holder: DynamoLease, reports: WorkerReports) -> Fleet:
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


def chronicle(settings: Settings) -> Chronicle:
    """What the fleet did."""
    return DynamoChronicle(clients(settings), settings.fleet_table)
