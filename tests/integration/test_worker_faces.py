"""Workers that take faces of devices as well as photos, on an emulated AWS; their engine is the fake."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from facerec.edge_messages import EdgeFaces
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from tests.fakes import engine as fake
from tests.support.workers import Worker, WorkerTier

PATIENT = {"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS": "20", "FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS": "30"}


@pytest.fixture
def start_edge(start: Callable[..., Worker]) -> Callable[..., Worker]:
    """Starts workers that take both."""

    def start_edge(**variables: str) -> Worker:
        return start(FACEREC_EDGE__ENABLED="true", **variables)

    return start_edge


def test_worker_answers_faces_of_devices_and_photos(tier: WorkerTier, start_edge: Callable[..., Worker]) -> None:
    """The result of a frame is in the store and on the response queue, with its device; nothing stays in a queue."""
    worker = start_edge()
    sent: list[RecognitionRequest | EdgeFaces] = [
        send(filename=f"{number}.jpg") for number in range(10) for send in (tier.send_faces, tier.upload)
    ]
    answers = tier.answers(*sent)
    for message, answer in zip(sent, answers, strict=True):
        stored = tier.store.get(tier.settings.output_bucket, output_key(message.request_id, message.filename))
        assert RecognitionResult.parse(stored) == answer
        assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 1)
    assert [answer.thing for answer in answers] == ["camera-1", None] * 10
    assert answers[0].faces[0].box.x_max == 30
    assert worker.stop() == 0
    for queue in (tier.settings.request_queue, tier.settings.faces_queue):
        assert tier.left(queue) == 0
    records = [json.loads(line) for line in worker.lines]
    assert all(record["level"] == "info" for record in records)
    assert {record["request_id"] for record in records if record["event"] == "recognised"} == {
        str(message.request_id) for message in sent
    }


def test_worker_without_the_setting_leaves_the_faces(tier: WorkerTier, start: Callable[..., Worker]) -> None:
    """They are for the recognition function then."""
    worker = start()
    tier.send_faces()
    tier.answers(tier.upload())
    assert worker.stop() == 0
    assert tier.left(tier.settings.faces_queue) == 1


def test_faces_that_crash_the_engine_are_a_dead_letter(tier: WorkerTier, start_edge: Callable[..., Worker]) -> None:
    """Of the faces queue, with the reason; the frame is answered as failed, and the photos beside it succeed."""
    start_edge()
    sent: list[RecognitionRequest | EdgeFaces] = [
        tier.upload(),
        tier.send_faces(fake.SEGFAULT),
        tier.upload(),
        tier.send_faces(),
    ]
    outcomes = [answer.outcome for answer in tier.answers(*sent)]
    assert outcomes == [Outcome.UNKNOWN, Outcome.FAILED, Outcome.UNKNOWN, Outcome.UNKNOWN]
    message = tier.dead_letter(tier.settings.faces_dead_letter_queue)
    attributes = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert attributes["request_id"] == str(sent[1].request_id)
    assert "SIGSEGV" in attributes["reason"]
    assert json.loads(message["Body"])["thing"] == "camera-1"
    assert tier.left(tier.settings.dead_letter_queue) == 0


def test_garbage_among_the_faces_is_dead_lettered_at_once(tier: WorkerTier, start_edge: Callable[..., Worker]) -> None:
    """As it came, with the reason; work goes on."""
    worker = start_edge(**PATIENT)  # nothing comes back in time to be redriven by SQS
    whole = json.loads(tier.send_faces().to_json())
    garbage = {
        "no json": "it cannot be read: unreadable ReceivedFaces",
        "{}": "it cannot be read: unreadable ReceivedFaces: request",
        json.dumps(whole | {"request_id": "x"}): "request.request_id",
        json.dumps(whole | {"box": 5}): "unreadable EdgeFaces: box",
        json.dumps(whole | {"encoded": "?"}): "not base64",
        json.dumps(whole | {"model_id": "another"}): "another",
        json.dumps({"request": {"request_id": whole["request_id"]}}): "unreadable FacesMessage",
    }
    for body in garbage:
        tier.clients.sqs.send_message(QueueUrl=tier.url(tier.settings.faces_queue), MessageBody=body)
    queue = tier.settings.faces_dead_letter_queue
    found = {message["Body"]: message["MessageAttributes"] for message in (tier.dead_letter(queue) for _ in garbage)}
    assert found.keys() == garbage.keys()
    for body, reason in garbage.items():
        assert reason in found[body]["reason"]["StringValue"]
    tier.answers(tier.send_faces(), tier.upload())
    assert worker.stop() == 0
    assert tier.left(tier.settings.faces_queue) == 0


def test_stop_with_faces_in_flight_loses_nothing(tier: WorkerTier, start_edge: Callable[..., Worker]) -> None:
    """The frame in progress is answered before the exit; the next worker takes the others, at once."""
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = start_edge(**PATIENT, FACEREC_WORKER__CONCURRENCY="1")
    held = tier.send_faces(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):  # returns when the engine has the faces
        waiting = [send() for _ in range(5) for send in (tier.send_faces, tier.upload)]
        worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    (answer,) = tier.answers(held)
    assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 1)
    start_edge()
    assert {answer.outcome for answer in tier.answers(*waiting)} == {Outcome.UNKNOWN}
    for queue in (tier.settings.dead_letter_queue, tier.settings.faces_dead_letter_queue):
        assert tier.left(queue) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_messages_that_come_while_an_idle_worker_stops_are_not_hidden(
    tier: WorkerTier, start_edge: Callable[..., Worker], number: int
) -> None:
    """Both long polls are open and may bring one: another worker takes it at once."""
    worker = start_edge(**PATIENT)
    worker.wait_for("ready.")
    worker.send(number)
    faces, photo = tier.send_faces(), tier.upload()
    assert worker.wait() == 0
    names: list[Any] = ["ApproximateNumberOfMessagesNotVisible"]
    for queue in (tier.settings.request_queue, tier.settings.faces_queue):
        hidden = tier.clients.sqs.get_queue_attributes(QueueUrl=tier.url(queue), AttributeNames=names)["Attributes"]
        assert list(hidden.values()) == ["0"]
    start_edge()
    tier.answers(faces, photo)


def test_faces_of_a_killed_worker_are_delivered_again(tier: WorkerTier, start_edge: Callable[..., Worker]) -> None:
    """After the worker's own visibility timeout, not the queue's, which suits the functions."""
    os.mkfifo(tier.model_dir / fake.HELD)
    worker = start_edge()
    message = tier.send_faces(fake.HOLD)
    with (tier.model_dir / fake.HELD).open("wb"):
        assert worker.stop(signal.SIGKILL) == -signal.SIGKILL
    start_edge()
    (tier.model_dir / fake.HELD).write_bytes(b"")  # returns when the second worker has the faces
    (answer,) = tier.answers(message)
    assert (answer.outcome, answer.attempt) == (Outcome.UNKNOWN, 2)


def test_worker_names_the_faces_queue_that_is_missing(tier: WorkerTier) -> None:
    """With the remedy, in one line."""
    worker = Worker(tier.environ | {"FACEREC_EDGE__ENABLED": "true", "FACEREC_NAMES__FACES_QUEUE": "nowhere"})
    assert worker.wait() == 1
    (line,) = worker.lines
    assert "there is no queue 'nowhere'" in line
    assert "facerec provision" in line
