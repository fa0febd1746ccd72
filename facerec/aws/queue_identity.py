"""Whether a queue is still the one that it was."""

from facerec.aws.clients import Clients
from facerec.aws.queue_urls import missing


def made_at(clients: Clients, queue: str) -> str:
    """When the queue was made, in SQS's own words; another moment is another queue. Raises `QueueMissing`."""
    with missing(queue, "look at"):
        url = clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        read = clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["CreatedTimestamp"])
    return read["Attributes"]["CreatedTimestamp"]
