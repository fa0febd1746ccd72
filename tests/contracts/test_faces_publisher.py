"""One suite for the sending end of the faces queue: in memory, and on SQS as the emulator has it."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.results import SqsFacesPublisher
from facerec.errors import QueueMissing, Refused
from facerec.message_base import ObjectRef
from facerec.messages import FacesMessage, FaceToEmbed, RecognitionRequest, ResultBox
from facerec.ports import FacesPublisher
from tests.fakes.results import InMemoryFacesPublisher, InMemoryQueues

LARGEST = 250_000  # below SQS's limit, and below that of the emulator's default queue


@dataclass(frozen=True)
class Way:
    """An empty faces queue, and what one can do to it."""

    publisher: FacesPublisher
    receive: Callable[[], list[str]]
    remove: Callable[[], object]


@pytest.fixture(params=["memory", "emulator"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in turn."""
    queue = f"test-{uuid.uuid4().hex[:12]}-faces-queue"
    if request.param == "memory":
        queues = InMemoryQueues(queue)
        return Way(
            InMemoryFacesPublisher(queues, queue),
            lambda: [body for body, _ in queues.receive(queue, 3)],
            lambda: queues.remove(queue),
        )
    clients: Clients = request.getfixturevalue("ministack_clients")
    url = clients.sqs.create_queue(QueueName=queue)["QueueUrl"]

    def receive() -> list[str]:
        answer = clients.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=3)
        return [message["Body"] for message in answer.get("Messages", [])]

    return Way(SqsFacesPublisher(clients, queue), receive, lambda: clients.sqs.delete_queue(QueueUrl=url))


def message(crops: str = "AAAA") -> FacesMessage:
    """Faces of a photo of its own."""
    return FacesMessage(
        request=RecognitionRequest(
            request_id=uuid.uuid4(),
            input=ObjectRef(bucket="in", key="k", size=1),
            filename="😀 image_01.jpg",
            submitted_at=datetime.now(UTC),
        ),
        model_id="model-1",
        width=40,
        height=30,
        faces=(
            FaceToEmbed(
                box=ResultBox(x_min=1 / 3, y_min=2 / 3, x_max=100 / 3, y_max=200 / 3),
                probability=2 / 3,
                landmarks=((1 / 3, 2 / 3),) * 5,
                factors=((1 / 3, "blurred"),),
            ),
        ),
        crop_side=112,
        crops=crops,
        timings_ms={"detect": 1 / 3},
    )


def test_published_faces_are_received_unchanged(way: Way) -> None:
    """Every field of them."""
    sent = message()
    way.publisher.publish(sent)
    assert [FacesMessage.parse(body) for body in way.receive()] == [sent]


def test_faces_of_many_threads_arrive_once_each(way: Way) -> None:
    """The photos of a batch are detected side by side; some are as large as a message may be."""
    sent = [message("A" * size) for size in (4, LARGEST, 4, 4, LARGEST, 4, 4)]
    with ThreadPoolExecutor(len(sent)) as pool:
        list(pool.map(way.publisher.publish, sent))
    found: list[FacesMessage] = []
    while len(found) < len(sent) and (bodies := way.receive()):
        found += map(FacesMessage.parse, bodies)
    assert {each.request.request_id for each in found} == {each.request.request_id for each in sent}
    assert len(found) == len(sent)


def test_faces_beyond_the_limit_are_refused(way: Way) -> None:
    """Those beside them arrive."""
    with pytest.raises(Refused):
        way.publisher.publish(message("A" * 1_100_000))
    way.publisher.publish(message())
    assert len(way.receive()) == 1


def test_queue_that_is_gone_is_missing(way: Way) -> None:
    """Also if it was there a moment ago."""
    way.publisher.publish(message())
    way.remove()
    with pytest.raises(QueueMissing):
        way.publisher.publish(message())
