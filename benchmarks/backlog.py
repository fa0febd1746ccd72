"""The queues of `benchmarks.pipeline`: fills one with requests, collects the answers, and counts the wrong ones."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import cycle, islice
from uuid import uuid4

from benchmarks.roundtrip import Photo
from facerec.aws.clients import Clients
from facerec.celery import CeleryTaskQueue
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.settings import Settings

_FOLDER = "bench"
_SENDERS = 4
_COLLECT_AT_ONCE = 10
_COLLECT_PAUSE_SECONDS = 0.1


class Backlog:
    """A request queue with a response queue of its own; the photos are in the input bucket."""

    def __init__(self, settings: Settings, photos: Sequence[Photo], response_queue: str) -> None:
        self.settings = settings
        self.response_queue = response_queue
        clients = Clients(settings)
        self._s3, self._sqs = clients.s3, clients.sqs
        self._photos = {photo.path.name: photo for photo in photos}
        self.responses = self._sqs.create_queue(QueueName=response_queue)["QueueUrl"]
        for name, photo in self._photos.items():
            self._s3.put_object(Bucket=settings.input_bucket, Key=f"{_FOLDER}/{name}", Body=photo.path.read_bytes())

    def fill(self, count: int) -> None:
        """Put `count` requests into the queue, the photos in turn."""
        send = self.sender()
        with ThreadPoolExecutor(_SENDERS) as pool:
            list(pool.map(send, islice(cycle(self._photos), count)))

    def sender(self) -> Callable[[str], None]:
        """Return the function that sends the request for one photo, by its name; here the web tier's own adapter."""
        queue = CeleryTaskQueue(self.settings)

        def send(name: str) -> None:
            size = self._photos[name].path.stat().st_size
            queue.submit(
                RecognitionRequest(
                    request_id=uuid4(),
                    input=ObjectRef(bucket=self.settings.input_bucket, key=f"{_FOLDER}/{name}", size=size),
                    filename=name,
                    reply_to=self.response_queue,
                    submitted_at=datetime.now(UTC),
                )
            )

        return send

    def collect(self) -> tuple[int, int]:
        """Take up to ten results, waiting for the first; returns how many came and how many of them are wrong.

        It pauses after a smaller batch, so that collecting takes little CPU from the emulator and the workers.
        """
        messages = self._sqs.receive_message(
            QueueUrl=self.responses, MaxNumberOfMessages=_COLLECT_AT_ONCE, WaitTimeSeconds=10
        ).get("Messages", [])
        if messages:
            self._sqs.delete_message_batch(
                QueueUrl=self.responses,
                Entries=[{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(messages)],
            )
        if 0 < len(messages) < _COLLECT_AT_ONCE:
            time.sleep(_COLLECT_PAUSE_SECONDS)
        results = [json.loads(message["Body"]) for message in messages]
        return len(results), sum(r["result"] != self._photos[r["filename"]].answer for r in results)


class NaiveBacklog(Backlog):
    """The same for the naive tier: a queue of its own, whose messages name the photo alone."""

    def __init__(self, settings: Settings, photos: Sequence[Photo], response_queue: str) -> None:
        super().__init__(settings, photos, response_queue)
        self.requests = self._sqs.create_queue(QueueName=f"{settings.request_queue}-naive")["QueueUrl"]

    def sender(self) -> Callable[[str], None]:
        """Return the function that sends the request for one photo, by its name."""

        def send(name: str) -> None:
            body = json.dumps({"key": f"{_FOLDER}/{name}", "filename": name})
            self._sqs.send_message(QueueUrl=self.requests, MessageBody=body)

        return send
