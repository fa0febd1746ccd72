"""The app tier in tests: its resources, worker processes with the fake engine, and a client's view of both."""

import signal
import sys
import uuid
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from facerec.aws.clients import Clients
from facerec.aws.object_store import S3ObjectStore
from facerec.aws.sqs.results import SqsResultInbox
from facerec.celery import CeleryTaskQueue
from facerec.edge_messages import EdgeFaces
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest, RecognitionResult, ResultBox
from facerec.object_keys import input_key
from facerec.operations import Operation, Recognise
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from tests.support.artefacts import write_artefact
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.processes import Command, alive, descendants


class WorkerTier:
    """The resources of one test, a client's view of them, and the worker's environment."""

    def __init__(self, aws: EmulatedAws, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.model_dir = folder / "model"
        write_artefact(self.model_dir)
        self.environ = environ_of(settings, aws.environ) | {
            "FACEREC_MODEL__DIR": str(self.model_dir),
            "FACEREC_MODEL__CACHE_DIR": str(folder / "cache"),
            "FACEREC_WORKER__ENGINES": "1",
            "FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "2",
            "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "3",
            "FACEREC_LOG__FORMAT": "json",
        }
        self.clients = Clients(settings)
        self.clients.sqs.set_queue_attributes(
            QueueUrl=self.url(settings.request_queue), Attributes={"VisibilityTimeout": "3"}
        )
        self.store = S3ObjectStore(self.clients)
        self._queue = CeleryTaskQueue(settings)
        self._inbox = SqsResultInbox(self.clients, settings.response_queue)

    def upload(
        self,
        picture: bytes = b"picture",
        filename: str = "a.jpg",
        submitted_at: datetime | None = None,
        operation: Operation | None = None,
    ) -> RecognitionRequest:
        """Store a picture and submit its task, as the web tier does."""
        request_id = uuid.uuid4()
        request = RecognitionRequest(
            request_id=request_id,
            input=self.stored(picture, input_key(request_id, filename)),
            filename=filename,
            operation=operation or Recognise(),
            reply_to=self.settings.response_queue,
            submitted_at=submitted_at or datetime.now(UTC),
        )
        self._queue.submit(request)
        return request

    def stored(self, picture: bytes, key: str = "second.jpg") -> ObjectRef:
        """Store a picture in the input bucket."""
        self.store.put(self.settings.input_bucket, key, picture, "image/jpeg")
        return ObjectRef(bucket=self.settings.input_bucket, key=key, size=len(picture))

    def send_faces(self, crop: bytes = b"crop", filename: str = "frame.jpg") -> EdgeFaces:
        """Send a device's frame with one face, as the IoT rule does; to the fake engine its crop is a command."""
        message = EdgeFaces(
            request_id=uuid.uuid4(),
            filename=filename,
            thing="camera-1",
            captured_at=datetime.now(UTC),
            face_index=0,
            box=ResultBox(x_min=1, y_min=2, x_max=30, y_max=40),
            encoded=b64encode(crop).decode(),
            timings_ms={"detect": 1.0},
        )
        self.clients.sqs.send_message(QueueUrl=self.url(self.settings.faces_queue), MessageBody=message.to_json())
        return message

    def answers(self, *requests: RecognitionRequest | EdgeFaces) -> list[RecognitionResult]:
        """Wait for the results of these requests, and return them in the order of the requests."""
        found: dict[uuid.UUID, RecognitionResult] = {}
        while not all(request.request_id in found for request in requests):
            deliveries = self._inbox.receive(5)
            found |= {delivery.result.request_id: delivery.result for delivery in deliveries}
            self._inbox.delete(deliveries)
        return [found[request.request_id] for request in requests]

    def url(self, queue: str) -> str:
        """A queue's URL."""
        return self.clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]

    def left(self, queue: str) -> int:
        """How many messages a queue holds, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.clients.sqs.get_queue_attributes(QueueUrl=self.url(queue), AttributeNames=names)  # type: ignore[arg-type]  # literals
        return sum(int(value) for value in attributes["Attributes"].values())

    def dead_letter(self, queue: str | None = None) -> dict[str, Any]:
        """Receive the next message of a dead-letter queue, by default that of photos; it stays hidden."""
        (message,) = self.clients.sqs.receive_message(
            QueueUrl=self.url(queue or self.settings.dead_letter_queue),
            MessageAttributeNames=["All"],
            VisibilityTimeout=600,
            WaitTimeSeconds=20,
        )["Messages"]
        return dict(message)


class Worker(Command):
    """A worker process with the fake engine, or another command with the environment of a tier."""

    def __init__(self, environ: Mapping[str, str], *argv: str) -> None:
        super().__init__([sys.executable, "-m", *(argv or ("tests.fakes.worker",))], environ)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status when everything that the worker started has ended.

        SIGKILL goes to the worker alone: its engines must end by themselves.
        """
        children = descendants(self.process.pid)
        if number == signal.SIGKILL:
            self.process.kill()
        else:
            self.send(number)
        status = self.wait()
        assert poll_until(lambda: not any(alive(child) for child in children), 10)
        return status
