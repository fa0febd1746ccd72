"""One suite for every backlog: in memory, of SQS as ministack and moto have it, and of two queues together."""

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autoscale import process
from autoscale.aws.backlog import SqsBacklog, TotalBacklog, parse_age
from autoscale.ports import Backlog
from facerec.aws.clients import Clients
from facerec.aws.sqs.depth import parse_depth, total
from facerec.errors import QueueMissing, Transient
from facerec.fleet_records import QueueDepth
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from facerec.settings.resources import AwsSettings
from tests.fakes.fleet import InMemoryBacklog
from tests.support.logs import capture_logs

COUNTS = {
    "ApproximateNumberOfMessages": "7",
    "ApproximateNumberOfMessagesNotVisible": "3",
    "ApproximateNumberOfMessagesDelayed": "1",
}


@dataclass(frozen=True)
class Queue:
    """A queue, empty at first, and what fills it or makes it unreadable."""

    backlog: Backlog
    fill: Callable[[int, int, int], object]
    fail: Callable[[], object]


@pytest.fixture(params=["memory", "ministack", "moto", "two"])
def queue(request: pytest.FixtureRequest) -> Queue:
    """Each kind in turn."""
    if request.param == "memory":
        fake = InMemoryBacklog()
        return Queue(
            fake,
            lambda visible, in_flight, delayed: setattr(fake, "counts", QueueDepth(visible, in_flight, delayed)),
            lambda: setattr(fake, "outage", QueueMissing("the-queue")),
        )
    clients: Clients = request.getfixturevalue(f"{'ministack' if request.param == 'two' else request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}"
    url = clients.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    backlog: Backlog = SqsBacklog(clients, name)
    received = url
    if request.param == "two":
        other = f"{name}-other"
        received = clients.sqs.create_queue(QueueName=other, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
        backlog = TotalBacklog([SqsBacklog(clients, other), backlog])

    def fill(visible: int, in_flight: int, delayed: int) -> None:
        for number in range(in_flight):
            clients.sqs.send_message(QueueUrl=received, MessageBody=f"held {number}")
            assert clients.sqs.receive_message(QueueUrl=received)["Messages"]
        for number in range(visible):
            clients.sqs.send_message(QueueUrl=url, MessageBody=f"waiting {number}")
        for number in range(delayed):
            clients.sqs.send_message(QueueUrl=url, MessageBody=f"later {number}", DelaySeconds=600)

    return Queue(backlog, fill, lambda: clients.sqs.delete_queue(QueueUrl=url))


@pytest.fixture
def own(ministack_clients: Clients) -> Clients:
    """Clients whose calls the test may answer itself."""
    return Clients(Settings(aws=AwsSettings(endpoint_url=ministack_clients.sqs.meta.endpoint_url)))


def answered(answer: Any, status: int = 200) -> Callable[..., tuple[Any, Any]]:
    """A botocore hook that answers in the service's place."""

    class Response:
        status_code = status

    return lambda **_: (Response(), answer | {"ResponseMetadata": {"HTTPStatusCode": status}})


def test_depth_of_an_empty_queue_is_zero(queue: Queue) -> None:
    """All three counts."""
    assert queue.backlog.depth() == QueueDepth(0, 0, 0)


def test_depth_distinguishes_its_counts(queue: Queue) -> None:
    """Visible, in flight and delayed."""
    queue.fill(4, 2, 1)
    assert queue.backlog.depth() == QueueDepth(visible=4, in_flight=2, delayed=1)


def test_missing_queue_is_unreadable(queue: Queue) -> None:
    """Also when it disappears later."""
    queue.fill(1, 0, 0)
    assert queue.backlog.depth().visible == 1
    queue.fail()
    with pytest.raises(QueueMissing, match="facerec provision"):
        queue.backlog.depth()


def test_queue_is_found_after_it_was_created(ministack_clients: Clients) -> None:
    """The autoscaler may start before the first provisioning."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    backlog = SqsBacklog(ministack_clients, name)
    with pytest.raises(QueueMissing, match=name):
        backlog.depth()
    ministack_clients.sqs.create_queue(QueueName=name)
    assert backlog.depth() == QueueDepth(0, 0, 0)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("text", [None, "", "many", "-1", "1.5", "²", "9" * 13, "9" * 5000])
def test_missing_count_is_unreadable(name: str, text: str | None) -> None:
    """It must never look like 0."""
    counts = {key: value for key, value in COUNTS.items() if key != name}
    with pytest.raises(Transient, match=name):
        parse_depth(counts if text is None else counts | {name: text})


def test_age_is_the_latest_datapoint() -> None:
    """They are not sorted; without one there is no age."""
    at = datetime(2026, 3, 4, tzinfo=UTC)
    points = [{"Timestamp": at + timedelta(minutes=minute), "Maximum": float(minute)} for minute in (1, 3, 2)]
    assert parse_age({"Datapoints": points}) == 3.0
    assert parse_age({"Datapoints": []}) is None
    assert parse_age({}) is None


@pytest.mark.parametrize("point", [{"Maximum": math.nan}, {"Maximum": math.inf}, {"Maximum": -1.0}, {"Sum": 1.0}])
def test_age_that_is_none_is_absent(point: dict[str, float]) -> None:
    """It is shown to people, and no reason to hold."""
    assert parse_age({"Datapoints": [{"Timestamp": datetime(2026, 3, 4, tzinfo=UTC)} | point, {}]}) is None


def test_cloudwatch_is_asked_once_a_minute(own: Clients) -> None:
    """Its value changes no faster, and each request costs."""
    name, clock, asked = f"test-{uuid.uuid4().hex[:12]}", [0.0], []

    def age(params: Any, **_: Any) -> Any:
        asked.append(params)
        points = [{"Timestamp": datetime.now(UTC), "Maximum": 10.0 * len(asked)}]
        return answered({"Datapoints": points})()

    own.cloudwatch.meta.events.register("before-call.cloudwatch.GetMetricStatistics", age)
    own.sqs.create_queue(QueueName=name)
    backlog = SqsBacklog(own, name, clock=lambda: clock[0])
    ages = []
    for clock[0] in (0.0, 30.0, 59.0, 61.0, 90.0):
        ages.append(backlog.depth().oldest_age_seconds)
    assert ages == [10.0, 10.0, 10.0, 20.0, 20.0]


def test_cloudwatch_outage_leaves_the_depth_readable(own: Clients) -> None:
    """The age is unknown then, and that is logged once."""
    name, clock = f"test-{uuid.uuid4().hex[:12]}", [0.0]
    refusal = answered({"Error": {"Code": "InternalFailure", "Message": "down"}}, status=500)
    own.cloudwatch.meta.events.register("before-call.cloudwatch.GetMetricStatistics", refusal)
    own.sqs.create_queue(QueueName=name)
    backlog = SqsBacklog(own, name, clock=lambda: clock[0])
    with capture_logs() as logs:
        for clock[0] in (0.0, 61.0, 122.0):
            assert backlog.depth() == QueueDepth(0, 0, 0, None)
    assert [line["event"] for line in logs] == ["message_age_unreachable"]


def test_dead_letters_are_counted(own: Clients) -> None:
    """Received ones, too; without their queue the depth stays readable."""
    name, clock = f"test-{uuid.uuid4().hex[:12]}", [0.0]
    own.sqs.create_queue(QueueName=name)
    backlog = SqsBacklog(own, name, f"{name}-dlq", clock=lambda: clock[0])
    with capture_logs() as logs:
        assert backlog.depth() == QueueDepth(0, 0, 0)
    assert [line["event"] for line in logs] == ["dead_letter_queue_unreachable"]
    url = own.sqs.create_queue(QueueName=f"{name}-dlq", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    for number in range(3):
        own.sqs.send_message(QueueUrl=url, MessageBody=f"failed {number}")
    own.sqs.receive_message(QueueUrl=url)
    assert backlog.depth().dead_letters is None
    clock[0] = 16.0
    assert backlog.depth().dead_letters == 3


def test_failing_sqs_is_unreadable(own: Clients) -> None:
    """Its failures, and answers without the counts."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    own.sqs.create_queue(QueueName=name)
    backlog = SqsBacklog(own, name)
    answers: list[Any] = [
        answered({"Error": {"Code": "ServiceUnavailable", "Message": "down"}}, status=503),
        answered({"Attributes": {}}),
        answered({}),
    ]
    for answer in answers:
        own.sqs.meta.events.register("before-call.sqs.GetQueueAttributes", answer)
        with pytest.raises(Transient):
            backlog.depth()
        own.sqs.meta.events.unregister("before-call.sqs.GetQueueAttributes", answer)
    assert backlog.depth() == QueueDepth(0, 0, 0)


def test_total_takes_the_oldest_age_and_adds_the_counts() -> None:
    """A count of dead letters that is not known of one queue is not known of both."""
    photos, faces = QueueDepth(1, 2, 3, 4.0, 5), QueueDepth(10, 20, 30, 40.0, 50)
    assert total([photos, faces]) == QueueDepth(11, 22, 33, 40.0, 55)
    assert total([photos, QueueDepth(0, 0)]) == QueueDepth(1, 2, 3, 4.0, None)
    assert total([photos]) == photos


def test_faces_of_devices_count_where_workers_take_them(fresh: Settings) -> None:
    """Waiting ones and dead letters; without the edge the functions take the faces."""
    with_edge = fresh.changed(edge=EdgeSettings(enabled=True))
    sqs = Clients(fresh).sqs
    for queue in (fresh.request_queue, fresh.faces_queue, fresh.faces_dead_letter_queue):
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName=queue)["QueueUrl"], MessageBody="x")
    assert process.make_backlog(fresh).depth() == QueueDepth(1, 0, 0, dead_letters=0)
    assert process.make_backlog(with_edge).depth() == QueueDepth(2, 0, 0, dead_letters=1)
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=fresh.faces_queue)["QueueUrl"])
    with pytest.raises(QueueMissing, match=fresh.faces_queue):
        process.make_backlog(with_edge).depth()
    with pytest.raises(QueueMissing, match=fresh.faces_queue):
        process.check_requirements(with_edge)
