"""What a delivery becomes: an answer, an entry among the dead letters, or another delivery."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from structlog.testing import capture_logs

from facerec.errors import ConfigurationError, EngineFailure, FacerecError, Transient
from facerec.keys import output_key
from facerec.messages import ObjectRef, Outcome, RecognitionRequest, RecognitionResult
from facerec.recognition import Recogniser
from model.faces import ImageAnalysis
from model.matching import GalleryIndex
from tasks.driver import Delivered, TaskDriver
from tests.fakes.engine import analysis
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.results import InMemoryQueues, InMemoryResultInbox, InMemoryResultPublisher

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")
BODY = "the message as it came"
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

    def analyse(self, image: bytes) -> ImageAnalysis:
        """As the port says."""
        if self.failure is not None:
            raise self.failure
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
    """Keeps what is put aside."""

    entries: list[dict[str, Any]] = field(default_factory=list)

    def put(self, body: str, **attributes: Any) -> None:
        """As the port says."""
        self.entries.append({"body": body, **attributes})


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
            default_threshold=0.5,
            now=lambda: NOW,
        )
        self.driver = TaskDriver(recogniser, self.dead_letters, "in", now=lambda: NOW)

    def deliver(self, payload: Any = None, attempt: int = 1) -> None:
        """Deliver a request."""
        payload = REQUEST.model_dump(mode="json") if payload is None else payload
        self.driver.handle(Delivered(payload, BODY, str(REQUEST_ID), attempt))

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


def test_a_culprit_is_put_aside_and_answered(tier: Tier) -> None:
    """Its client is told at once instead of waiting in vain."""
    tier.engine.failure = EngineFailure("the engine exceeded 20 s on this picture, again when it was alone")
    tier.deliver()
    assert "exceeded 20 s" in tier.dead_letters.entries[0]["reason"]
    (answer,) = tier.answers()
    assert answer.outcome is Outcome.FAILED
    assert "exceeded 20 s" in (answer.detail or "")


def test_a_missing_input_is_put_aside_and_answered(tier: Tier) -> None:
    """The operator reads the bucket's name, the client what to do."""
    tier.store.delete(INPUT.bucket, INPUT.key)
    tier.deliver()
    assert "'in'" in tier.dead_letters.entries[0]["reason"]
    (answer,) = tier.answers()
    assert answer.detail == "the uploaded picture is no longer stored; upload it again"


@pytest.mark.parametrize("outage", [Transient("down"), ConfigurationError("no access")])
def test_a_fault_that_is_not_the_requests_leaves_it_in_the_queue(tier: Tier, outage: FacerecError) -> None:
    """Nothing is answered or put aside; the next delivery answers."""
    tier.store.outage = outage
    with pytest.raises(type(outage)):
        tier.deliver()
    assert (tier.answers(), tier.dead_letters.entries) == ([], [])
    tier.store.outage = None
    tier.deliver(attempt=2)
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
