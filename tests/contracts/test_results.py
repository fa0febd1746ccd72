"""One suite for every way back from workers to web processes: in memory and over SQS as the emulator has it."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import check_queue
from facerec.aws.sqs.response_queues import OWNER_TAG, RENEWED_TAG, ResponseQueues
from facerec.aws.sqs.results import SqsResultInbox, SqsResultPublisher
from facerec.errors import QueueMissing, Refused, Transient
from facerec.messages import Face, Outcome, RecognitionResult, ResultBox, ResultMatch
from facerec.ports import ResultDelivery, ResultInbox, ResultPublisher
from facerec.settings import Settings
from facerec.settings.resources import SQS_MESSAGE_BYTES, AwsSettings
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox, InMemoryResultPublisher
from tests.support.emulated import EmulatedAws
from tests.support.logs import capture_logs


@dataclass(frozen=True)
class Way:
    """A response queue, empty, with a visibility timeout of one second, and what one can do to it."""

    queue: str
    publisher: ResultPublisher
    inbox: ResultInbox
    send: Callable[[str], object]
    create: Callable[[str], object]
    remove: Callable[[str], object]
    inbox_of: Callable[[str], ResultInbox]


@pytest.fixture(scope="module")
def clients(emulator: EmulatedAws) -> Clients:
    """Clients of the emulator, shared: to make them takes longer than most tests here."""
    return Clients(emulator.settings)


@pytest.fixture(params=["memory", "emulator"])
def way(request: pytest.FixtureRequest) -> Way:
    """Each way in turn."""
    queue = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    if request.param == "memory":
        queues = InMemoryQueues(queue, visibility_seconds=1)
        return Way(
            queue,
            InMemoryResultPublisher(queues, queue),
            InMemoryResultInbox(queues, queue),
            send=lambda body: queues.send(queue, body),
            create=queues.create,
            remove=queues.remove,
            inbox_of=lambda name: InMemoryResultInbox(queues, name),
        )
    clients: Clients = request.getfixturevalue("clients")

    def url(name: str) -> str:
        return clients.sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def create(name: str) -> object:
        return clients.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "1"})

    create(queue)
    return Way(
        queue,
        SqsResultPublisher(clients, queue),
        SqsResultInbox(clients, queue),
        send=lambda body: clients.sqs.send_message(QueueUrl=url(queue), MessageBody=body),
        create=create,
        remove=lambda name: clients.sqs.delete_queue(QueueUrl=url(name)),
        inbox_of=lambda name: SqsResultInbox(clients, name),
    )


def a_result(name: str = "Jane", faces: int = 1) -> RecognitionResult:
    """A result with so many faces."""
    face = Face(
        box=ResultBox(x_min=1 / 3, y_min=2 / 3, x_max=100 / 3, y_max=200 / 3),
        probability=2 / 3,
        landmarks=((1 / 3, 2 / 3),) * 5,
        matches=(ResultMatch(identity=name, similarity=2 / 3, threshold=1 / 3),) * 5,
    )
    return RecognitionResult(
        request_id=uuid.uuid4(),
        result=name,
        filename="😀 image_01.jpg",
        outcome=Outcome.MATCH,
        faces=(face,) * faces,
        completed_at=datetime.now(UTC),
    )


def received(inbox: ResultInbox, count: int) -> list[ResultDelivery]:
    """So many deliveries, in as many receives as it takes."""
    deliveries: list[ResultDelivery] = []
    for _ in range(count + 5):
        if len(deliveries) >= count:
            break
        deliveries += inbox.receive(3)
    return deliveries


def test_published_result_is_received_unchanged(way: Way) -> None:
    """Every field of it."""
    result = a_result()
    way.publisher.publish(way.queue, result)
    (delivery,) = received(way.inbox, 1)
    assert delivery.result == result


def test_deleted_delivery_does_not_come_again(way: Way) -> None:
    """Deleting it twice is no error."""
    way.publisher.publish(way.queue, a_result())
    deliveries = received(way.inbox, 1)
    way.inbox.delete(deliveries)
    way.inbox.delete(deliveries)
    way.inbox.delete([])
    assert list(way.inbox.receive(2)) == []


def test_delivery_that_is_not_deleted_comes_again(way: Way) -> None:
    """A web process that dies with a result loses nothing."""
    way.publisher.publish(way.queue, a_result())
    (first,) = received(way.inbox, 1)
    (second,) = received(way.inbox, 1)
    assert first.result == second.result
    way.inbox.delete([second])
    assert list(way.inbox.receive(2)) == []


def test_receive_brings_ten_results_at_most(way: Way) -> None:
    """Each once, when they are deleted."""
    results = {(result := a_result(f"person {number}")).request_id: result for number in range(25)}
    for result in results.values():
        way.publisher.publish(way.queue, result)
    found: dict[uuid.UUID, RecognitionResult] = {}
    while len(found) < len(results):
        deliveries = way.inbox.receive(3)
        assert 1 <= len(deliveries) <= 10
        found |= {delivery.result.request_id: delivery.result for delivery in deliveries}
        way.inbox.delete(deliveries)
    assert found == results


def test_unreadable_message_is_dropped(way: Way) -> None:
    """It neither stops the others nor comes again."""
    way.send("this is no result")
    way.send('{"version": 99}')
    result = a_result()
    way.publisher.publish(way.queue, result)
    deliveries = received(way.inbox, 1)
    assert [delivery.result for delivery in deliveries] == [result]
    way.inbox.delete(deliveries)
    assert list(way.inbox.receive(2)) == []


def test_receive_from_an_empty_queue_is_empty(way: Way) -> None:
    """Nothing is no error."""
    assert list(way.inbox.receive(0)) == []


def test_queue_that_is_gone_is_missing(way: Way) -> None:
    """For who sends and who receives, also when it was there a moment ago."""
    way.publisher.publish(way.queue, a_result())
    (delivery,) = received(way.inbox, 1)
    way.remove(way.queue)
    with pytest.raises(QueueMissing) as caught:
        way.publisher.publish(way.queue, a_result())
    assert caught.value.queue == way.queue
    with pytest.raises(QueueMissing):
        way.inbox.receive(0)
    with pytest.raises(QueueMissing):
        way.inbox.delete([delivery])


def test_a_queue_that_was_made_anew_is_found_again(way: Way) -> None:
    """Workers outlive queues."""
    way.publisher.publish(way.queue, a_result())
    way.remove(way.queue)
    with pytest.raises(QueueMissing):
        way.inbox.receive(0)
    way.create(way.queue)
    way.publisher.publish(way.queue, a_result("again"))
    assert received(way.inbox, 1)[0].result.result == "again"


def test_result_goes_to_the_queue_of_one_web_process(way: Way) -> None:
    """Its name derives from the response queue's."""
    own = f"{way.queue}-0123456789ab"
    way.create(own)
    way.publisher.publish(own, a_result())
    assert received(way.inbox_of(own), 1)[0].result.result == "Jane"
    assert list(way.inbox.receive(0)) == []


@pytest.mark.parametrize("suffix", ["", "x"])
def test_worker_answers_only_to_response_queues(way: Way, suffix: str) -> None:
    """A forged request cannot make it write into any other queue of the account."""
    other = f"other-{way.queue}" if not suffix else f"{way.queue}{suffix}"
    way.create(other)
    with pytest.raises(QueueMissing):
        way.publisher.publish(other, a_result())
    assert list(way.inbox_of(other).receive(0)) == []


@pytest.mark.parametrize("tail", ["-!!!", "-a/b", "-\n", "-" + "x" * 80])
def test_queue_with_an_impossible_name_is_missing(way: Way, tail: str) -> None:
    """SQS calls such a name an invalid request, which is not the worker's fault."""
    with pytest.raises(QueueMissing):
        way.publisher.publish(f"{way.queue}{tail}", a_result())


def test_result_with_many_faces_is_shortened(clients: Clients) -> None:
    """A thousand faces are too many for one message; message and log say how many were sent."""
    queue = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    clients.sqs.create_queue(QueueName=queue)
    crowd = a_result(faces=1_000)
    assert len(crowd.to_json()) > SQS_MESSAGE_BYTES
    with capture_logs() as logs:
        SqsResultPublisher(clients, queue).publish(queue, crowd)
    (delivery,) = received(SqsResultInbox(clients, queue), 1)
    assert delivery.result.model_copy(update={"faces": crowd.faces, "more_faces": 0, "shortened": False}) == crowd
    assert 100 < len(delivery.result.faces) < 1_000
    assert len(delivery.result.faces) + delivery.result.more_faces == 1_000
    (line,) = logs
    assert (line["event"], line["faces"], line["sent"]) == ("result_shortened", 1_000, len(delivery.result.faces))


def test_result_fits_into_a_smaller_queue(clients: Clients) -> None:
    """The queue's limit is a setting, and faces beyond it are left out."""
    queue = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    clients.sqs.create_queue(QueueName=queue, Attributes={"MaximumMessageSize": "16384"})
    SqsResultPublisher(clients, queue, max_bytes=16_384).publish(queue, a_result(faces=100))
    (delivery,) = received(SqsResultInbox(clients, queue), 1)
    assert 5 < len(delivery.result.faces) < 100


def test_result_beyond_the_limit_of_the_queue_is_refused(clients: Clients) -> None:
    """It is that result's end alone: the one that is sent with it arrives."""
    queue = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    clients.sqs.create_queue(QueueName=queue, Attributes={"MaximumMessageSize": "2048"})
    publisher = SqsResultPublisher(clients, queue)
    with pytest.raises(Refused, match="2048"):
        publisher.publish(queue, a_result(faces=100))
    publisher.publish(queue, a_result(faces=0))
    assert len(received(SqsResultInbox(clients, queue), 1)) == 1


def test_check_queue_raises_if_the_queue_is_missing(clients: Clients) -> None:
    """Otherwise it returns."""
    queue = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    with pytest.raises(QueueMissing, match=queue):
        check_queue(clients, queue)
    clients.sqs.create_queue(QueueName=queue)
    check_queue(clients, queue)


def test_refused_deletion_is_logged(clients: Clients) -> None:
    """The message will come again."""
    queue = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    clients.sqs.create_queue(QueueName=queue)
    failed = {"Failed": [{"Id": "0", "Code": "ReceiptHandleIsInvalid", "SenderFault": True}]}

    class Sqs:
        def __getattr__(self, name: str) -> Any:
            return (lambda **_: failed) if name == "delete_message_batch" else getattr(clients.sqs, name)

    class Refusing:
        sqs = Sqs()

    with capture_logs() as logs:
        SqsResultInbox(cast("Clients", Refusing()), queue).delete([ResultDelivery(a_result(), "worn out")])
    (line,) = logs
    assert (line["event"], line["count"], line["reasons"]) == ("results_not_deleted", 1, ["ReceiptHandleIsInvalid"])


def test_refused_connection_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worth a retry."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    clients = Clients(Settings(aws=AwsSettings.model_validate({"endpoint_url": "http://127.0.0.1:9"})))
    with pytest.raises(Transient):
        SqsResultInbox(clients, "facerec-resp-queue").receive(0)


@dataclass(frozen=True)
class Estate:
    """Owned queues of one deployment, and the clock they see."""

    queues: ResponseQueues
    base: str
    clients: Clients
    clock: list[datetime]

    def names(self) -> set[str]:
        """Every queue whose name begins like the deployment's."""
        urls = self.clients.sqs.list_queues(QueueNamePrefix=self.base).get("QueueUrls", [])
        return {url.rsplit("/", 1)[-1] for url in urls}

    def url(self, queue: str) -> str:
        """A queue's URL."""
        return self.clients.sqs.get_queue_url(QueueName=queue)["QueueUrl"]

    def later(self, minutes: float) -> None:
        """Let time pass."""
        self.clock[0] += timedelta(minutes=minutes)


@pytest.fixture
def estate(clients: Clients) -> Estate:
    """A deployment of the test's own."""
    base = f"test-{uuid.uuid4().hex[:12]}-resp-queue"
    clock = [datetime(2026, 1, 1, tzinfo=UTC)]
    queues = ResponseQueues(clients, base, retention_seconds=180, now=lambda: clock[0])
    return Estate(queues, base, clients, clock)


def test_owned_queue_is_created_and_removed(estate: Estate) -> None:
    """With the name of its owner; its messages live no longer than the wait."""
    queue = estate.queues.create("host:17")
    assert queue.startswith(f"{estate.base}-")
    tags = estate.clients.sqs.list_queue_tags(QueueUrl=estate.url(queue))["Tags"]
    assert tags == {OWNER_TAG: "host:17", RENEWED_TAG: estate.clock[0].isoformat()}
    attributes = estate.clients.sqs.get_queue_attributes(
        QueueUrl=estate.url(queue), AttributeNames=["MessageRetentionPeriod"]
    )
    assert attributes["Attributes"] == {"MessageRetentionPeriod": "180"}
    for _ in range(2):
        estate.queues.remove(queue)
    assert estate.names() == set()


def test_results_in_owned_queues_live_at_least_a_minute(estate: Estate) -> None:
    """SQS's limit."""
    brief = ResponseQueues(estate.clients, estate.base, retention_seconds=5)
    url = estate.url(brief.create("host:17"))
    attributes = estate.clients.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["MessageRetentionPeriod"])
    assert attributes["Attributes"] == {"MessageRetentionPeriod": "60"}


def test_only_queues_not_renewed_recently_are_reaped(estate: Estate) -> None:
    """The limit is ten minutes."""
    dead, living = estate.queues.create("host:1"), estate.queues.create("host:2")
    estate.later(9)
    assert estate.queues.reap() == []
    estate.queues.renew(living)
    estate.later(2)
    assert estate.queues.reap() == [dead]
    assert estate.names() == {living}
    with pytest.raises(QueueMissing):
        estate.queues.renew(dead)
    assert estate.queues.create("host:1", dead) == dead
    estate.queues.renew(dead)


def test_other_queues_are_never_reaped(estate: Estate) -> None:
    """Neither the shared queue, nor another deployment's, nor a queue without a time that can be read."""
    old = {OWNER_TAG: "host:1", RENEWED_TAG: "2020-01-01T00:00:00+00:00"}
    foreign = replace(
        estate,
        queues=ResponseQueues(estate.clients, f"{estate.base}-two", retention_seconds=60, now=estate.queues._now),
    ).queues.create("host:3")
    bystanders: dict[str, dict[str, str]] = {
        estate.base: old,
        f"{estate.base}-by-hand": old,
        f"{estate.base}-0123456789ab-dlq": old,
        f"{estate.base}-aaaaaaaaaaaa": {},
        f"{estate.base}-bbbbbbbbbbbb": {RENEWED_TAG: "some time ago"},
        f"{estate.base}-cccccccccccc": {RENEWED_TAG: "2020-01-01T00:00:00"},
    }
    for name, tags in bystanders.items():
        estate.clients.sqs.create_queue(QueueName=name, tags=tags)
    estate.later(60)
    assert estate.queues.reap() == []
    assert estate.names() == {foreign, *bystanders}
