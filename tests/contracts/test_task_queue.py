"""One suite for every way to hand a request to the workers: in memory, and as a Celery task over SQS."""

import json
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from celery.worker.request import Request
from kombu import Connection
from kombu.transport import SQS

from facerec.aws.clients import Clients
from facerec.celery import CeleryTaskQueue
from facerec.errors import ConfigurationError, QueueMissing, Transient
from facerec.message_base import ObjectRef
from facerec.messages import TASK_NAME, RecognitionRequest
from facerec.ports import TaskQueue
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from tests.fakes.task_queue import InMemoryTaskQueue
from tests.support.emulated import EmulatedAws


@dataclass(frozen=True)
class Way:
    """A task queue, empty, and what workers would get from it."""

    queue: TaskQueue
    requests: Callable[[int], list[RecognitionRequest]]


def request(filename: str = "jane.jpg") -> RecognitionRequest:
    """A request with everything in it."""
    request_id = uuid.uuid4()
    return RecognitionRequest(
        request_id=request_id,
        input=ObjectRef(bucket="in", key=f"{request_id}/jane.jpg", size=12),
        filename=filename,
        collection="people",
        threshold=0.61,
        reply_to="facerec-resp-queue",
        submitted_at=datetime.now(UTC),
    )


def messages(clients: Clients, queue: str, count: int) -> list[dict[str, Any]]:
    """The Celery messages in a queue, once there are so many."""
    url = clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    bodies: list[dict[str, Any]] = []
    while len(bodies) < count:
        received = clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=5)["Messages"]
        bodies += [json.loads(message["Body"]) for message in received]
    return bodies


class Unconnected(SQS.Transport):
    """kombu's own, which finds no queues."""

    class Channel(SQS.Channel):
        """One that asks nobody."""

        def _update_queue_cache(self, queue_name_prefix: str) -> None:
            del queue_name_prefix


@pytest.fixture(params=["memory", "emulator"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in turn."""
    if request.param == "memory":
        queue = InMemoryTaskQueue()
        return Way(queue, queue.await_count)
    settings: Settings = request.getfixturevalue("fresh")
    clients = Clients(settings)

    def requests(count: int) -> list[RecognitionRequest]:
        found = messages(clients, settings.request_queue, count)
        return [RecognitionRequest.parse(json.loads(message["body"])[0][0]) for message in found]

    return Way(CeleryTaskQueue(settings), requests)


def test_workers_get_the_submitted_request(way: Way) -> None:
    """Every field arrives as it was."""
    submitted = request("é😀 \u2028.jpg")
    way.queue.submit(submitted)
    assert way.requests(1) == [submitted]


def test_hundred_threads_submit_at_once(way: Way) -> None:
    """Each request is in the queue once."""
    submitted = [request(f"{index}.jpg") for index in range(100)]
    with ThreadPoolExecutor(100) as pool:
        list(pool.map(way.queue.submit, submitted))
    assert {r.request_id for r in way.requests(100)} == {r.request_id for r in submitted}


def test_message_on_the_wire_is_celerys(fresh: Settings) -> None:
    """For our task's name, under the request's id, in plain JSON, and small."""
    submitted = request()
    CeleryTaskQueue(fresh).submit(submitted)
    (message,) = messages(Clients(fresh), fresh.request_queue, 1)
    assert message["headers"]["task"] == TASK_NAME
    assert message["headers"]["id"] == str(submitted.request_id)
    assert json.loads(message["body"])[0] == [submitted.model_dump(mode="json")]


def test_request_fits_into_a_kibibyte(fresh: Settings) -> None:
    """SQS's smallest limit; Celery's own worker reads it, and monitors show it."""
    sqs: Any = Clients(fresh).sqs
    url = sqs.get_queue_url(QueueName=fresh.request_queue)["QueueUrl"]
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "1024"})
    submitted = request()
    CeleryTaskQueue(fresh).submit(submitted)
    (received,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=10)["Messages"]
    assert len(received["Body"]) <= 1024
    app: Any = Celery(set_as_current=False)
    done: list[Any] = []

    def recognise(argument: Any) -> None:
        done.append(argument)

    app.task(recognise, name=TASK_NAME)
    with Connection("sqs://id:secret@127.0.0.1:9", transport=Unconnected) as connection:
        channel: Any = connection.channel()
        payload = channel._message_to_python(received, fresh.request_queue, url)
        job: Any = Request(channel.Message(payload, channel=channel), app=app)
    job.execute()
    assert done == [submitted.model_dump(mode="json")]
    request_id = str(submitted.request_id)
    assert (job.id, job.root_id, job.argsrepr, job.kwargsrepr) == (request_id, request_id, submitted.filename, "")


def test_missing_queue_is_named(emulator: EmulatedAws) -> None:
    """Whether it never existed or has gone."""
    settings = emulator.fresh()
    queue = CeleryTaskQueue(settings)
    queue.submit(request())
    clients = Clients(settings)
    clients.sqs.delete_queue(QueueUrl=clients.sqs.get_queue_url(QueueName=settings.request_queue)["QueueUrl"])
    for gone in (queue, CeleryTaskQueue(settings.changed(prefix="never-made"))):
        with pytest.raises(QueueMissing, match="facerec provision"):
            gone.submit(request())


def test_unreachable_queue_is_transient(emulator: EmulatedAws) -> None:
    """The request may be sent again later."""
    settings = emulator.settings.changed(aws=AwsSettings(endpoint_url="http://127.0.0.1:9"))
    with pytest.raises(Transient):
        CeleryTaskQueue(settings).submit(request())


def test_missing_credentials_are_named(emulator: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the operator."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    # A region that no other test uses: the process keeps its clients.
    settings = emulator.settings.changed(aws=AwsSettings(region="eu-north-1", endpoint_url=emulator.url))
    with pytest.raises(ConfigurationError, match="no AWS credentials"):
        CeleryTaskQueue(settings).submit(request())
