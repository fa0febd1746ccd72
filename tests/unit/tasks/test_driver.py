"""What a delivery becomes: an answer, an entry among the dead letters, or another delivery."""

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from structlog.testing import capture_logs

from facerec.celery_sqs.consumer_gate import Intake
from facerec.errors import ConfigurationError, EngineFailure, FacerecError, QueueMissing, Transient
from facerec.messages import ObjectRef, Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from facerec.recognition import ModelThresholds, Recogniser
from model.faces import ImageAnalysis
from model.matching import GalleryIndex
from tasks.driver import Delivered, TaskDriver
from tasks.retry import Interrupted, Patience
from tasks.stale_tasks import MARK, Latecomers, Postponed
from tests.fakes.engine import analysis
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox, InMemoryResultPublisher
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
    """Finds a face in everything, unless it is told to fail."""

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
    """Nobody is enrolled."""

    def index(self, collection: str) -> GalleryIndex:
        """As the port says."""
        return GalleryIndex(np.empty((0, 512), dtype=np.float32), [], [])

    def threshold(self, collection: str) -> float | None:
        """As the port says."""
        return None


@dataclass
class DeadLetters:
    """Keeps what is put aside; while `outage` is set it does not."""

    entries: list[dict[str, Any]] = field(default_factory=list)
    outage: FacerecError | None = None

    def put(self, body: str, **attributes: Any) -> None:
        """As the port says."""
        if self.outage is not None:
            raise self.outage
        self.entries.append({"body": body, **attributes})


@dataclass
class Tail:
    """Keeps what is sent again, with its delays."""

    sent: list[tuple[str, int]] = field(default_factory=list)
    outage: FacerecError | None = None

    def send(self, body: str, delay_seconds: int) -> None:
        """As the port says."""
        if self.outage is not None:
            raise self.outage
        self.sent.append((body, delay_seconds))


class Rests(Intake):
    """Lets time pass at once; `then` is what happens meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.pauses: list[float] = []
        self.then: list[Any] = []

    def rest(self, seconds: float) -> bool:
        """Do not wait."""
        self.seconds += seconds
        self.pauses.append(seconds)
        if self.then:
            self.then.pop(0)()
        return super().rest(0)


class Tier:
    """A driver between in-memory adapters."""

    def __init__(self) -> None:
        self.store = InMemoryObjectStore()
        self.store.put(INPUT.bucket, INPUT.key, b"jpg", "image/jpeg")
        self.queues = InMemoryQueues("resp")
        self.engine = Engine()
        self.dead_letters = DeadLetters()
        recogniser = Recogniser(
            store=self.store,
            engine=self.engine,
            gallery=Gallery(),
            publisher=InMemoryResultPublisher(self.queues, "resp"),
            output_bucket="out",
            thresholds=ModelThresholds(TAILS["classic"], 0.47, 0.01),
            now=lambda: NOW,
        )
        self.tail, self.rests = Tail(), Rests()
        self.driver = TaskDriver(
            recogniser,
            self.dead_letters,
            Latecomers(self.tail, 180, monotonic=self.clock),
            lambda: Patience(600, self.rests, nullcontext, monotonic=self.clock, luck=lambda: 0),
            input_bucket="in",
            max_receives=4,
            now=lambda: NOW,
        )

    def clock(self) -> float:
        """Seconds that have passed."""
        return self.rests.seconds

    def deliver(self, payload: Any = None, attempt: int = 1, body: str = BODY) -> None:
        """Deliver a request."""
        payload = REQUEST.model_dump(mode="json") if payload is None else payload
        self.driver.handle(Delivered(payload, body, str(REQUEST_ID), attempt))

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


def test_a_request_is_answered(tier: Tier) -> None:
    """The result is published, and nothing is put aside."""
    tier.deliver()
    assert [answer.outcome for answer in tier.answers()] == [Outcome.UNKNOWN]
    assert tier.dead_letters.entries == []


def test_one_canonical_line_a_delivery(tier: Tier) -> None:
    """It says what became of the request, how long each stage took, and how long it had waited."""
    with capture_logs() as logs:
        tier.deliver(attempt=3)
    (line,) = [entry for entry in logs if entry["event"] == "recognised"]
    assert line["outcome"] == "unknown"
    assert line["queued_ms"] == 2000
    assert {"fetch", "engine", "match"} <= line["timings_ms"].keys()
    assert "embedding" not in str(line)


def test_what_cannot_be_read_is_put_aside(tier: Tier) -> None:
    """With its body as it came, the reason, the id and the time; there is nobody to answer."""
    tier.deliver(payload={"version": 99})
    (entry,) = tier.dead_letters.entries
    assert entry["body"] == BODY
    assert entry["reason"].startswith("unreadable RecognitionRequest")
    assert (entry["request_id"], entry["failed_at"]) == (str(REQUEST_ID), NOW)
    assert tier.answers() == []


def test_an_input_outside_of_our_bucket_is_put_aside(tier: Tier) -> None:
    """A forged request reads nothing else that the worker's role may read, and ends no worker."""
    elsewhere = REQUEST.model_copy(update={"input": INPUT.model_copy(update={"bucket": "somebody-elses"})})
    tier.deliver(payload=elsewhere.model_dump(mode="json"))
    (entry,) = tier.dead_letters.entries
    assert "'somebody-elses'" in entry["reason"]


@pytest.mark.parametrize("key", ["", "x" * 1025, "é" * 513])
def test_a_key_that_s3_would_refuse_is_put_aside(tier: Tier, key: str) -> None:
    """The refusal would look like a fault of the worker's own, which ends it; and so it would the next."""
    forged = REQUEST.model_copy(update={"input": INPUT.model_copy(update={"key": key})})
    tier.deliver(payload=forged.model_dump(mode="json"))
    (entry,) = tier.dead_letters.entries
    assert "the input's key" in entry["reason"]


def test_what_cannot_be_put_aside_ends_no_worker(tier: Tier) -> None:
    """Where the dead-letter queue refuses this one message, it comes again, and nothing rests."""
    tier.dead_letters.outage = ConfigurationError("too large")
    with pytest.raises(Transient, match="too large"):
        tier.deliver(payload={"version": 99})
    tier.engine.failure = EngineFailure("crashed")
    with pytest.raises(Transient, match="too large"):
        tier.deliver()
    assert tier.rests.pauses == []


def test_a_missing_response_queue_is_not_waited_for(tier: Tier) -> None:
    """Its owner has left: the result stays stored, and the message may be deleted."""
    tier.queues.remove("resp")
    tier.deliver()
    assert tier.rests.pauses == []
    assert tier.store.get("out", output_key(REQUEST_ID, REQUEST.filename))


def test_a_culprit_is_put_aside_and_answered(tier: Tier) -> None:
    """Its client is told at once instead of waiting in vain."""
    tier.engine.failure = EngineFailure("the engine exceeded 20 s on this picture, again when it was alone")
    tier.deliver()
    assert "exceeded 20 s" in tier.dead_letters.entries[0]["reason"]
    (answer,) = tier.answers()
    assert (answer.outcome, answer.retryable) == (Outcome.FAILED, False)
    assert "exceeded 20 s" in (answer.detail or "")


def test_a_missing_input_is_put_aside_and_answered(tier: Tier) -> None:
    """The operator reads the bucket's name, the client what to do."""
    tier.store.delete(INPUT.bucket, INPUT.key)
    tier.deliver()
    assert "'in'" in tier.dead_letters.entries[0]["reason"]
    (answer,) = tier.answers()
    assert (answer.retryable, answer.detail) == (True, "the uploaded picture is no longer stored; upload it again")


def test_an_outage_is_waited_for_within_the_delivery(tier: Tier) -> None:
    """With growing pauses, and the steps that were done are not done again."""
    publisher_out = [Transient("down")] * 3

    def fail(queue: str, body: str) -> None:
        if publisher_out:
            raise publisher_out.pop()
        send(queue, body)

    send = tier.queues.send
    tier.queues.send = fail  # type: ignore[method-assign]  # an outage of this one service
    with capture_logs() as logs:
        tier.deliver()
    assert tier.rests.pauses == [0.5, 1, 2]
    assert [answer.attempt for answer in tier.answers()] == [1]
    assert tier.engine.analysed == 1
    assert [entry["event"] for entry in logs] == ["waiting", "recognised"]


def test_it_is_delivered_again_when_patience_ends(tier: Tier) -> None:
    """Nothing is answered or put aside; the next delivery answers."""
    tier.store.outage = Transient("down")
    with pytest.raises(Transient, match="down"):
        tier.deliver()
    assert tier.rests.seconds == 600
    assert (tier.answers(), tier.dead_letters.entries) == ([], [])
    tier.store.outage = None
    tier.deliver(attempt=2)
    assert len(tier.answers()) == 1


@pytest.mark.parametrize("end", ["close", "leave"])
def test_nobody_waits_in_a_worker_that_takes_no_tasks(tier: Tier, end: str) -> None:
    """It drains, or its process ends: another worker shall go on."""
    tier.store.outage = Transient("down")
    tier.rests.then = [lambda: None, getattr(tier.rests, end)]
    with pytest.raises(Interrupted, match="down"):
        tier.deliver()
    assert len(tier.rests.pauses) == 2


def test_what_only_an_operator_can_mend_is_not_waited_for(tier: Tier) -> None:
    """It is delivered again."""
    tier.store.outage = ConfigurationError("no access")
    with pytest.raises(ConfigurationError):
        tier.deliver()
    assert tier.rests.pauses == []
    assert tier.dead_letters.entries == []


def test_a_lost_dead_letter_queue_is_waited_for(tier: Tier) -> None:
    """A culprit is put aside once it is there again."""
    tier.engine.failure = EngineFailure("crashed")
    tier.dead_letters.outage = QueueMissing("dlq")
    tier.rests.then = [lambda: setattr(tier.dead_letters, "outage", None)]
    tier.deliver()
    assert [entry["reason"] for entry in tier.dead_letters.entries] == ["crashed"]
    assert [answer.outcome for answer in tier.answers()] == [Outcome.FAILED]


@pytest.mark.parametrize(
    ("failure", "reason"), [(Transient("the engine ends"), "the engine ends"), (RuntimeError("a bug"), "a bug")]
)
def test_the_last_delivery_ends_among_the_dead_letters(tier: Tier, failure: Exception, reason: str) -> None:
    """With the reason, and answered; SQS would move it without."""
    tier.engine.failure = failure
    tier.deliver(attempt=4)
    (entry,) = tier.dead_letters.entries
    assert reason in entry["reason"]
    assert "the last of 4" in entry["reason"]
    (answer,) = tier.answers()
    assert (answer.outcome, answer.retryable) == (Outcome.FAILED, True)
    assert "later" in (answer.detail or "")


def test_the_last_delivery_ends_there_also_when_nothing_can_be_answered(tier: Tier) -> None:
    """Its client gets no answer, but nothing is lost, or put aside twice."""
    tier.store.outage = Transient("down")
    tier.deliver(attempt=4)
    assert len(tier.dead_letters.entries) == 1
    assert tier.answers() == []


def test_giving_up_spoils_no_result(tier: Tier) -> None:
    """One that is stored and could not be published stays what it is."""
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


def test_the_last_delivery_stays_where_the_dead_letters_are_out_of_reach(tier: Tier) -> None:
    """The transport, which tries longer, gets it back."""
    tier.engine.failure, tier.dead_letters.outage = RuntimeError("a bug"), Transient("down")
    with pytest.raises(RuntimeError):
        tier.deliver(attempt=4)
    assert tier.answers() == []


def test_a_task_without_a_client_gives_way(tier: Tier) -> None:
    """It is sent again as it came, but for a mark, and comes back when others were served."""
    with capture_logs() as logs, pytest.raises(Postponed):
        tier.deliver_late()
    ((body, delay),) = tier.tail.sent
    assert json.loads(body) == json.loads(BODY) | {"headers": {MARK: 1}}
    assert (delay, tier.answers()) == (5, [])
    assert [(entry["outcome"], entry["log_level"]) for entry in logs] == [("postponed", "info")]
    tier.deliver_late(body=body)
    assert len(tier.answers()) == 1


def test_it_gives_way_again_while_clients_come_but_not_for_ever(tier: Tier) -> None:
    """After growing delays, six times at most."""
    body = BODY
    for _ in range(6):
        tier.deliver()
        with pytest.raises(Postponed):
            tier.deliver_late(body=body)
        body = tier.tail.sent[-1][0]
    tier.deliver()
    tier.deliver_late(body=body)
    assert [delay for _, delay in tier.tail.sent] == [5, 10, 20, 40, 60, 60]
    assert len(tier.answers()) == 8


@pytest.mark.parametrize("body", ["no json", "[]", '{"headers": null}', f'{{"headers": {{"{MARK}": "x"}}}}'])
def test_a_message_that_is_not_as_we_send_it_does_not_give_way(tier: Tier, body: str) -> None:
    """It is worked off."""
    tier.deliver_late(body=body)
    assert (len(tier.answers()), tier.tail.sent) == (1, [])


def test_a_task_that_was_delivered_before_does_not_give_way(tier: Tier) -> None:
    """Its worker was lost: it has waited long enough."""
    tier.deliver_late(attempt=2)
    assert (len(tier.answers()), tier.tail.sent) == (1, [])


def test_a_task_that_cannot_be_sent_again_is_worked_off(tier: Tier) -> None:
    """Nothing is deleted that is not in the queue again."""
    tier.tail.outage = Transient("down")
    tier.deliver_late()
    assert len(tier.answers()) == 1


def test_the_unexpected_leaves_it_in_the_queue(tier: Tier) -> None:
    """And is in the canonical line."""
    tier.engine.failure = RuntimeError("a bug")
    with capture_logs() as logs, pytest.raises(RuntimeError, match="a bug"):
        tier.deliver()
    assert [entry["outcome"] for entry in logs if entry["event"] == "recognised"] == ["error"]
    assert tier.dead_letters.entries == []


def test_a_redelivery_computes_nothing_twice(tier: Tier) -> None:
    """What the first delivery stored is published again."""
    tier.deliver()
    assert tier.store.exists("out", output_key(REQUEST_ID, "jane.jpg"))
    tier.engine.failure = EngineFailure("must not be asked")
    tier.deliver(attempt=2)
    assert [answer.attempt for answer in tier.answers()] == [1, 1]
