"""Whether the request queue is as the settings say; a worker can do without, but its operator should know."""

import json

from facerec.aws.queue_urls import QueueUrls, SqsClients, missing
from facerec.settings import Settings


def queue_differences(clients: SqsClients, settings: Settings) -> list[str]:
    """A sentence for each attribute of the request queue that differs; raises `QueueMissing` and as `translated`."""
    queue, wanted = settings.request_queue, settings.queue
    url = QueueUrls(clients).url(queue)
    with missing(queue, "read the attributes of"):
        attributes = clients.sqs.get_queue_attributes(
            QueueUrl=url, AttributeNames=["VisibilityTimeout", "RedrivePolicy"]
        )["Attributes"]
    found = []
    timeout = attributes.get("VisibilityTimeout")
    if timeout != str(wanted.visibility_timeout_seconds):
        found.append(
            f"its visibility timeout is {timeout} s, not FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS "
            f"({wanted.visibility_timeout_seconds}), which workers ask for"
        )
    policy = json.loads(attributes.get("RedrivePolicy") or "{}")
    if not policy:
        found.append("it has no redrive policy: a task that ends every worker would be delivered for ever")
    else:
        target, receives = policy["deadLetterTargetArn"].rsplit(":", 1)[-1], int(policy["maxReceiveCount"])
        if target != settings.dead_letter_queue:
            found.append(f"its dead letters go to {target!r}, not to {settings.dead_letter_queue!r}")
        if receives != wanted.max_receives:
            found.append(f"it delivers {receives} times, not FACEREC_QUEUE__MAX_RECEIVES ({wanted.max_receives}) times")
    return found
