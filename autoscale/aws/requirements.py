"""What must be there before an autoscaler starts."""

from autoscale.aws.ec2 import Ec2
from facerec.aws.clients import Clients, translated
from facerec.aws.queue_urls import check_queue
from facerec.errors import ConfigurationError
from facerec.settings import Settings


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
