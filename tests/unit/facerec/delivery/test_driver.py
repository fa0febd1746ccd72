"""A delivery ends as an answer, a dead letter, a requeue, or another delivery."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray

from facerec.celery_sqs.envelope import task_message
from facerec.celery_sqs.received_task import REQUEUES_HEADER
from facerec.comparison import ModelThresholds
from facerec.delivery.driver import TaskDelivery, TaskDriver, decode_request
from facerec.delivery.retry import GivenBack, RetryBudget
from facerec.delivery.stale_tasks import Requeued, StaleTasks
from facerec.errors import (
    ConfigurationError,
    EngineFailure,
    FacerecError,
    InvalidMessage,
    OtherModel,
    QueueMissing,
    Refused,
    Transient,
)
from facerec.message_base import ObjectRef
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from facerec.operations import Compare, Detect
from facerec.recognition import Recogniser
from facerec.serverless.invocation import Invocation
from model.faces import ImageAnalysis
from model.matching import GalleryIndex, Match
from tests.fakes.engine import analysis
from tests.fakes.functions import Context, DetectionTier
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox, InMemoryResultPublisher
from tests.support.logs import capture_logs
from tests.support.tails import TAILS

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")
BODY = '{"headers": {}, "body": "the message as it came"}'
INPUT = ObjectRef(bucket="in", key=f"{REQUEST_ID}/jane.jpg", size=3)
REQUEST = RecognitionRequest(
    request_id=REQUEST_ID,
    input=INPUT,
    filename="jane.jpg",
    reply_to="resp",
    submitted_at=NOW - timedelta(seconds=2),
)


class Engine:
    """Finds a face in every image, or raises `failure`."""

    name, precision, model_id = "fake", "fp32", "fake-model"
    failure: Exception | None = None
    analysed = 0

    def analyse(self, image: bytes) -> ImageAnalysis:
        """As the port says."""
        if self.failure is not None:
            raise self.failure
        self.analysed += 1
        return analysis(image)


class Gallery:
    """An empty gallery; its index is out of reach for the first `outages` calls."""

    outages = 0

    def index(self, collection: str) -> GalleryIndex:
        """As the port says."""
        if self.outages:
            self.outages -= 1
            raise Transient("no templates")
        return GalleryIndex(np.empty((0, 512), dtype=np.float32), [], [])

    def search(self, collection: str, queries: NDArray[np.float32], limit: int) -> list[list[Match]]:
        """As the port says."""
        return self.index(collection).search(queries, limit)

    def threshold(self, collection: str) -> float | None:
        """As the port says."""
        return None

    def rejections(self, collection: str) -> dict[str, Any]:
        """As the port says."""
        return {}


@dataclass
class DeadLetterWriter:
    """A dead-letter queue in memory; raises `outage` while it is set."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    outage: FacerecError | None = None

    def put(self, body: str, **attributes: Any) -> None:
        """As the port says."""
        if self.outage is not None:
            raise self.outage
        self.entries.append({"body": body, **attributes})


@dataclass
class RequestQueue:
    """Keeps the requeued messages with their delays; raises `outage` while it is set."""

    sent: list[tuple[str, int]] = field(default_factory=list)
    outage: FacerecError | None = None

    def send(self, body: str, delay_seconds: int = 0) -> None:
        """As the port says."""
        if self.outage is not None:
            raise self.outage
        self.sent.append((body, delay_seconds))


class Pauses:
    """Pauses that take no time; `then` has what happens in each of them."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.then: list[Callable[[], object]] = []
        self.takes_tasks = True

    def pause(self, seconds: float) -> bool:
        """Let the time pass at once."""
        self.pauses.append(seconds)
        if self.then:
            self.then.pop(0)()
        return self.takes_tasks

    def stop(self) -> None:
        """Take no more tasks."""
        self.takes_tasks = False

    @property
    def seconds(self) -> float:
        """How much time has passed."""
        return sum(self.pauses)


class Tier:
    """A driver between in-memory adapters."""

    def __init__(self) -> None:
        self.store = InMemoryObjectStore()
        self.store.put(INPUT.bucket, INPUT.key, b"jpg", "image/jpeg")
        self.queues = InMemoryQueues("resp")
        self.engine, self.gallery = Engine(), Gallery()
        self.dead_letters = DeadLetterWriter()
        recogniser = Recogniser(
            store=self.store,
            engine=self.engine,
            gallery=self.gallery,
            publisher=InMemoryResultPublisher(self.queues, "resp"),
            output_bucket="out",
            thresholds=ModelThresholds(TAILS["classic"], 0.47, 0.01),
            now=lambda: NOW,
        )
        self.request_queue, self.pauses = RequestQueue(), Pauses()
        self.driver = TaskDriver(
            recogniser,
            lambda payload: (decode_request(payload, "in"),) * 2,
            self.dead_letters,
            StaleTasks(self.request_queue, 180, monotonic=self.clock),
            lambda: RetryBudget(600, self.pauses.pause, monotonic=self.clock, jitter=lambda: 0),
            max_receives=4,
            now=lambda: NOW,
        )

    def clock(self) -> float:
        """Seconds that have passed."""
        return self.pauses.seconds

    def deliver(self, payload: Any = None, attempt: int = 1, body: str = BODY) -> None:
        """Deliver a request."""
        payload = REQUEST.model_dump(mode="json") if payload is None else payload
        self.driver.handle(TaskDelivery(payload, body, str(REQUEST_ID), attempt))

    def deliver_late(self, attempt: int = 1, body: str = BODY) -> None:
        """Deliver one whose client has gone."""
        late = REQUEST.model_copy(update={"submitted_at": NOW - timedelta(seconds=181)})
        self.deliver(late.model_dump(mode="json"), attempt, body)

    def answers(self) -> list[RecognitionResult]:
        """What the client gets."""
        return [delivery.result for delivery in InMemoryResultInbox(self.queues, "resp").receive(0)]


@pytest.fixture
def tier() -> Tier:
    """A tier of its own for each test."""
    return Tier()


def test_request_is_answered(tier: Tier) -> None:
    """The result is published, and the dead-letter queue stays empty."""
    tier.deliver()
    assert [answer.outcome for answer in tier.answers()] == [Outcome.UNKNOWN]
    assert tier.dead_letters.entries == []


def test_delivery_logs_one_canonical_line(tier: Tier) -> None:
    """It has the outcome, the time of each stage, and the time in the queue."""
    with capture_logs() as logs:
        tier.deliver(attempt=3)
    (line,) = [entry for entry in logs if entry["event"] == "recognised"]
    assert line["outcome"] == "unknown"
    assert line["queued_ms"] == 2000
    assert {"fetch", "engine", "match"} <= line["timings_ms"].keys()
    assert "embedding" not in str(line)


def test_unreadable_request_is_dead_lettered(tier: Tier) -> None:
    """With its original body, the reason, the id and the time; nothing is answered."""
    tier.deliver(payload={"version": 99})
    (entry,) = tier.dead_letters.entries
    assert entry["body"] == BODY
    assert entry["reason"].startswith("unreadable RecognitionRequest")
    assert (entry["request_id"], entry["failed_at"]) == (str(REQUEST_ID), NOW)
    assert tier.answers() == []


def test_input_in_another_bucket_is_dead_lettered(tier: Tier) -> None:
    """A forged request reads no other bucket and does not end the worker."""
    elsewhere = REQUEST.model_copy(update={"input": INPUT.model_copy(update={"bucket": "somebody-elses"})})
    tier.deliver(payload=elsewhere.model_dump(mode="json"))
    (entry,) = tier.dead_letters.entries
    assert "'somebody-elses'" in entry["reason"]


@pytest.mark.parametrize(
    ("changes", "reason"), [({"bucket": "somebody-elses"}, "'somebody-elses'"), ({"key": ""}, "second photo's key")]
)
def test_second_photo_in_another_place_is_dead_lettered(tier: Tier, changes: dict[str, str], reason: str) -> None:
    """As the first one."""
    forged = REQUEST.model_copy(update={"operation": Compare(target=INPUT.model_copy(update=changes))})
    tier.deliver(payload=forged.model_dump(mode="json"))
    (entry,) = tier.dead_letters.entries
    assert reason in entry["reason"]


def test_line_of_another_operation_names_it(tier: Tier) -> None:
    """`Recogniser` alone knows recognition only; what it stored before says what was asked."""
    with capture_logs() as logs:
        tier.deliver(payload=REQUEST.model_copy(update={"operation": Detect()}).model_dump(mode="json"))
    (line,) = [entry for entry in logs if entry["event"] == "recognised"]
    assert line["operation"] == "detect"


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513, "\ud800", "a\x00", "a\uffff"])
def test_key_that_s3_refuses_is_dead_lettered(tier: Tier, key: str) -> None:
    """S3 would refuse it in each delivery."""
    forged = REQUEST.model_copy(update={"input": INPUT.model_copy(update={"key": key})})
    tier.deliver(payload=forged.model_dump(mode="json"))
    (entry,) = tier.dead_letters.entries
    assert "the input's key" in entry["reason"]


def test_refused_dead_letter_does_not_end_the_worker(tier: Tier) -> None:
    """The message is delivered again, without retries in this delivery."""
    tier.dead_letters.outage = ConfigurationError("too large")
    with pytest.raises(Transient, match="too large"):
        tier.deliver(payload={"version": 99})
    tier.engine.failure = EngineFailure("crashed")
    with pytest.raises(Transient, match="too large"):
        tier.deliver()
    assert tier.pauses.pauses == []


def test_refused_object_does_not_end_the_worker(tier: Tier) -> None:
    """The message is delivered again; after its last delivery it is a dead letter."""
    tier.store.outage = Refused("S3 refuses the key")
    with pytest.raises(Refused):
        tier.deliver()
    assert tier.pauses.pauses == []
    tier.deliver(attempt=4)
    (entry,) = tier.dead_letters.entries
    assert "S3 refuses the key" in entry["reason"]


def test_name_of_any_length_is_recognised(tier: Tier) -> None:
    """A long file name is cut, wherever the task comes from."""
    tier.deliver(payload=REQUEST.model_dump(mode="json") | {"filename": "x" * 60_000 + ".jpg"})
    (answer,) = tier.answers()
    assert answer.filename == "x" * 251 + ".jpg"


def test_missing_response_queue_is_not_retried(tier: Tier) -> None:
    """The result stays stored, and the message is deleted."""
    tier.queues.remove("resp")
    tier.deliver()
    assert tier.pauses.pauses == []
    assert tier.store.get("out", output_key(REQUEST_ID, REQUEST.filename))


def test_engine_failure_is_dead_lettered_and_answered(tier: Tier) -> None:
    """The client gets the reason at once."""
    tier.engine.failure = EngineFailure("the engine exceeded 20 s on this picture, again when it was alone")
    tier.deliver()
    assert "exceeded 20 s" in tier.dead_letters.entries[0]["reason"]
    (answer,) = tier.answers()
    assert (answer.outcome, answer.retryable) == (Outcome.FAILED, False)
    assert "exceeded 20 s" in (answer.detail or "")


def test_missing_input_is_dead_lettered_and_answered(tier: Tier) -> None:
    """The operator reads the name of the bucket; the client reads what to do."""
    tier.store.delete(INPUT.bucket, INPUT.key)
    tier.deliver()
    assert "'in'" in tier.dead_letters.entries[0]["reason"]
    (answer,) = tier.answers()
    assert (answer.retryable, answer.detail) == (True, "the uploaded picture is no longer stored; upload it again")


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (OtherModel("old", "new"), "the model was replaced while the picture was processed; upload it again"),
        (InvalidMessage("the crops are damaged"), "the picture could not be processed for now; upload it again later"),
    ],
)
def test_faces_that_cannot_be_used_are_dead_lettered_and_answered(
    tier: Tier, failure: FacerecError, detail: str
) -> None:
    """At once: each delivery would end so. A new upload may succeed."""
    tier.engine.failure = failure
    tier.deliver()
    (entry,) = tier.dead_letters.entries
    assert entry["reason"] == str(failure)
    (answer,) = tier.answers()
    assert (answer.outcome, answer.detail, answer.retryable) == (Outcome.FAILED, detail, True)
    assert tier.pauses.pauses == []


def test_outage_is_retried_within_the_delivery(tier: Tier) -> None:
    """The pauses grow, and finished steps are not repeated."""
    publisher_out = [Transient("down")] * 3

    def fail(queue: str, body: str) -> None:
        if publisher_out:
            raise publisher_out.pop()
        send(queue, body)

    send = tier.queues.send
    tier.queues.send = fail  # type: ignore[method-assign]  # an outage of this one service
    with capture_logs() as logs:
        tier.deliver()
    assert tier.pauses.pauses == [0.5, 1, 2]
    assert [answer.attempt for answer in tier.answers()] == [1]
    assert tier.engine.analysed == 1
    assert [entry["event"] for entry in logs] == ["service_unreachable", "service_reachable_again", "recognised"]


def test_gallery_outage_is_retried_without_the_engine(tier: Tier) -> None:
    """The faces are kept."""
    tier.gallery.outages = 2
    tier.deliver()
    assert (tier.pauses.pauses, tier.engine.analysed) == ([0.5, 1], 1)
    assert len(tier.answers()) == 1


def test_used_up_retry_budget_causes_a_redelivery(tier: Tier) -> None:
    """Nothing is answered or dead-lettered; the next delivery answers."""
    tier.store.outage = Transient("down")
    with pytest.raises(Transient, match="down"):
        tier.deliver()
    assert tier.pauses.seconds == 600
    assert (tier.answers(), tier.dead_letters.entries) == ([], [])
    tier.store.outage = None
    tier.deliver(attempt=2)
    assert len(tier.answers()) == 1


def test_outage_in_a_draining_worker_interrupts_the_task(tier: Tier) -> None:
    """Another worker continues it."""
    tier.store.outage = Transient("down")
    tier.pauses.then = [lambda: None, tier.pauses.stop]
    with pytest.raises(GivenBack, match="down"):
        tier.deliver()
    assert len(tier.pauses.pauses) == 2


def test_configuration_error_is_not_retried(tier: Tier) -> None:
    """The message is delivered again."""
    tier.store.outage = ConfigurationError("no access")
    with pytest.raises(ConfigurationError):
        tier.deliver()
    assert tier.pauses.pauses == []
    assert tier.dead_letters.entries == []


def test_missing_dead_letter_queue_is_retried(tier: Tier) -> None:
    """The message is dead-lettered once the queue exists again."""
    tier.engine.failure = EngineFailure("crashed")
    tier.dead_letters.outage = QueueMissing("dlq")
    tier.pauses.then = [lambda: setattr(tier.dead_letters, "outage", None)]
    tier.deliver()
    assert [entry["reason"] for entry in tier.dead_letters.entries] == ["crashed"]
    assert [answer.outcome for answer in tier.answers()] == [Outcome.FAILED]


@pytest.mark.parametrize(
    ("failure", "reason"), [(Transient("the engine ends"), "the engine ends"), (RuntimeError("a bug"), "a bug")]
)
def test_last_delivery_is_dead_lettered_and_answered(tier: Tier, failure: Exception, reason: str) -> None:
    """With the reason, which SQS would not add."""
    tier.engine.failure = failure
    tier.deliver(attempt=4)
    (entry,) = tier.dead_letters.entries
    assert reason in entry["reason"]
    assert "the last of 4" in entry["reason"]
    (answer,) = tier.answers()
    assert (answer.outcome, answer.retryable) == (Outcome.FAILED, True)
    assert "later" in (answer.detail or "")


def test_last_delivery_is_dead_lettered_once_without_an_answer(tier: Tier) -> None:
    """The store cannot be reached."""
    tier.store.outage = Transient("down")
    tier.deliver(attempt=4)
    assert len(tier.dead_letters.entries) == 1
    assert tier.answers() == []


def test_last_delivery_keeps_a_stored_result(tier: Tier) -> None:
    """A result that was stored but not published is not replaced by a failure."""
    tier.deliver()
    tier.answers()
    send, failures = tier.queues.send, [ConfigurationError("no access")]

    def fail(queue: str, body: str) -> None:
        if failures:
            raise failures.pop()
        send(queue, body)

    tier.queues.send = fail  # type: ignore[method-assign]  # an outage of this one service
    tier.deliver(attempt=4)
    assert len(tier.dead_letters.entries) == 1
    assert [answer.outcome for answer in tier.answers()] == [Outcome.UNKNOWN]


def test_last_delivery_is_given_back_if_it_cannot_be_dead_lettered(tier: Tier) -> None:
    """The transport tries longer."""
    tier.engine.failure, tier.dead_letters.outage = RuntimeError("a bug"), Transient("down")
    with pytest.raises(RuntimeError):
        tier.deliver(attempt=4)
    assert tier.answers() == []


def test_stale_task_is_requeued(tier: Tier) -> None:
    """It is sent again unchanged except for the count of requeues."""
    with capture_logs() as logs, pytest.raises(Requeued):
        tier.deliver_late()
    ((body, delay),) = tier.request_queue.sent
    assert json.loads(body) == json.loads(BODY) | {"headers": {REQUEUES_HEADER: 1}}
    assert (delay, tier.answers()) == (5, [])
    assert [(entry["outcome"], entry["log_level"]) for entry in logs] == [("requeued", "info")]
    tier.deliver_late(body=body)
    assert len(tier.answers()) == 1


def test_stale_task_is_requeued_at_most_six_times(tier: Tier) -> None:
    """The delays grow, and it is requeued only while fresh tasks come."""
    body = BODY
    for _ in range(6):
        tier.deliver()
        with pytest.raises(Requeued):
            tier.deliver_late(body=body)
        body = tier.request_queue.sent[-1][0]
    tier.deliver()
    tier.deliver_late(body=body)
    assert [delay for _, delay in tier.request_queue.sent] == [5, 10, 20, 40, 60, 60]
    assert len(tier.answers()) == 8


@pytest.mark.parametrize("body", ["no json", "[]", '{"headers": null}', f'{{"headers": {{"{REQUEUES_HEADER}": "x"}}}}'])
def test_stale_task_of_another_form_is_processed(tier: Tier, body: str) -> None:
    """Its requeues cannot be counted."""
    tier.deliver_late(body=body)
    assert (len(tier.answers()), tier.request_queue.sent) == (1, [])


def test_redelivered_stale_task_is_processed(tier: Tier) -> None:
    """It has waited long enough."""
    tier.deliver_late(attempt=2)
    assert (len(tier.answers()), tier.request_queue.sent) == (1, [])


def test_stale_task_that_cannot_be_sent_is_processed(tier: Tier) -> None:
    """No message is deleted before SQS has its copy."""
    tier.request_queue.outage = Transient("down")
    tier.deliver_late()
    assert len(tier.answers()) == 1


def test_unexpected_exception_causes_a_redelivery(tier: Tier) -> None:
    """The canonical line has the outcome."""
    tier.engine.failure = RuntimeError("a bug")
    with capture_logs() as logs, pytest.raises(RuntimeError, match="a bug"):
        tier.deliver()
    assert [entry["outcome"] for entry in logs if entry["event"] == "recognised"] == ["error"]
    assert tier.dead_letters.entries == []


def test_redelivery_publishes_the_stored_result(tier: Tier) -> None:
    """The engine is not called again."""
    tier.deliver()
    assert tier.store.exists("out", output_key(REQUEST_ID, "jane.jpg"))
    tier.engine.failure = EngineFailure("must not be asked")
    tier.deliver(attempt=2)
    assert [answer.attempt for answer in tier.answers()] == [1, 1]


def test_faces_that_go_onward_end_the_delivery() -> None:
    """The message is deleted, and the canonical line says how many there were."""
    half = DetectionTier()
    invocation = Invocation(Context())
    with capture_logs() as logs:
        half.driver(invocation).handle(TaskDelivery(task_message(REQUEST), BODY, str(REQUEST_ID), 1))
    (line,) = [entry for entry in logs if entry["event"] == "recognised"]
    assert (line["outcome"], line["faces"], line["log_level"]) == ("forwarded", 2, "info")
