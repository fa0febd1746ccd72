"""The end of the request queue, where a worker puts a task that may wait."""

from facerec.aws.queue_urls import QueueUrls, SqsClients, check_taken


class SqsTaskTail:
    """Sends the messages of tasks again, as they are given."""

    def __init__(self, clients: SqsClients, queue: str) -> None:
        self._clients = clients
        self._queue = queue
        self._urls = QueueUrls(clients)

    def send(self, body: str, delay_seconds: int) -> None:
        """Return when SQS has taken the message, which is delivered after the delay (up to 900 s).

        Raises `QueueMissing`, `Transient` or `ConfigurationError`.
        """
        with self._urls.calling(self._queue, "send a task to") as url:
            reply = self._clients.sqs.send_message(QueueUrl=url, MessageBody=body, DelaySeconds=delay_seconds)
        check_taken(self._queue, reply)
