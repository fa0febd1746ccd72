"""The queues as Flower's `/broker` and `/api/queues/length` show them."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tornado.ioloop import IOLoop

from facerec.aws.clients import Clients
from facerec.aws.queue_urls import QueueUrls, missing
from facerec.aws.response_queues import ResponseQueues
from facerec.errors import FacerecError
from facerec.settings import Settings

_READY, _UNACKED, _DELAYED = "", "NotVisible", "Delayed"
_COUNTS = {suffix: f"ApproximateNumberOfMessages{suffix}" for suffix in (_READY, _UNACKED, _DELAYED)}
_READERS = 4


class SqsBroker:
    """What Flower calls a broker. SQS counts approximately."""

    def __init__(self, clients: Clients, settings: Settings) -> None:
        self._clients = clients
        self._settings = settings
        self._urls = QueueUrls(clients)
        self._pool = ThreadPoolExecutor(_READERS, "queues")

    async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """A row for each queue of the system, whatever `names` says; an unreadable one has `error`, and no counts."""
        del names
        settings = self._settings
        found = [settings.request_queue, settings.dead_letter_queue, settings.response_queue, settings.events_queue]
        run = IOLoop.current().run_in_executor
        rows: list[dict[str, Any]] = []
        try:
            found[3:3] = await run(self._pool, self._owned_response_queues)
        except FacerecError as exc:
            rows.append(_unreadable(f"{settings.response_queue}-*", exc))
        pending = [run(self._pool, self._row, name) for name in found]
        return [*[await row for row in pending], *rows]

    def _owned_response_queues(self) -> list[str]:
        return ResponseQueues(self._clients, self._settings.response_queue, retention_seconds=0).names()

    def _row(self, name: str) -> dict[str, Any]:
        try:
            with missing(name, "read"):
                counts = self._clients.sqs.get_queue_attributes(
                    QueueUrl=self._urls.url(name),
                    AttributeNames=list(_COUNTS.values()),  # type: ignore[arg-type]  # literals
                )["Attributes"]
            numbers = {suffix: int(counts[attribute]) for suffix, attribute in _COUNTS.items()}  # type: ignore[index]  # as above
        except (FacerecError, KeyError) as exc:
            self._urls.forget(name)
            return _unreadable(name, exc)
        return {
            "name": name,
            "messages": sum(numbers.values()),
            "messages_ready": numbers[_READY],
            "messages_unacknowledged": numbers[_UNACKED],
            "messages_delayed": numbers[_DELAYED],
        }


def _unreadable(name: str, exc: Exception) -> dict[str, Any]:
    """The counts are unknown, not 0."""
    return {"name": name, "messages": None, "error": str(exc)}
