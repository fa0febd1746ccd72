"""What a dead letter is read as, and how it is sent again."""

import base64
import json
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from facerec.dead_letters import DeadLetter, redrive
from facerec.errors import Refused, Transient
from facerec.message_base import ObjectRef
from facerec.messages import TASK_NAME, Outcome, RecognitionRequest, RecognitionResult
from facerec.object_keys import output_key
from tests.fakes.dead_letters import InMemoryDeadLetterQueue
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.web_tier import result_for

NOW = datetime(2026, 1, 2, tzinfo=UTC)
REQUEST = RecognitionRequest(
    request_id=uuid.UUID(int=7), input=ObjectRef(bucket="in", key="k", size=1), filename="a.jpg", submitted_at=NOW
)


def task(argument: Any = None, *, name: str = TASK_NAME, encoding: str | None = None) -> str:
    """A message as Celery writes it."""
    body = json.dumps([[REQUEST.model_dump(mode="json") if argument is None else argument], {}, {}])
    return json.dumps(
        {
            "headers": {"task": name, "id": "from-the-headers"},
            "properties": {"body_encoding": encoding},
            "body": base64.b64encode(body.encode()).decode() if encoding else body,
        }
    )


def letter(body: str) -> DeadLetter:
    """A message with this body."""
    return DeadLetter("m", body, NOW, 1, "r")


@pytest.mark.parametrize(
    "body", [task(), task(encoding="base64"), base64.b64encode(task().encode()).decode(), f"  {task()}"]
)
def test_task_is_read_in_each_encoding(body: str) -> None:
    """With or without Base64, around the body or around all of it."""
    found = letter(body)
    assert found.request == REQUEST
    assert found.has_id(str(REQUEST.request_id))
    assert found.has_id("m")
    assert found.reason == "received too often without an end"


@pytest.mark.parametrize("argument", [17, {"version": 99}, "x"])
def test_task_with_an_unreadable_request_is_a_task(argument: Any) -> None:
    """Another version may read it."""
    found = letter(task(argument))
    assert found.task is not None
    assert (found.request, found.request_id) == (None, "from-the-headers")


NESTED = "[" * 100_000
"""Deeper than a parser can follow."""


@pytest.mark.parametrize(
    "body",
    [
        "",
        "x",
        "[]",
        pytest.param(f'{{"a": {NESTED}', id="deeper"),
        "{}",
        '{"headers": 5}',
        task(name="another.task"),
        '{"headers": {}}',
    ],
)
def test_other_bodies_are_not_tasks(body: str) -> None:
    """No body raises."""
    found = letter(body)
    assert (found.task, found.request, found.reason) == (None, None, "not a task of facerec")
    assert found.request_id is None


@pytest.mark.parametrize("broken", [pytest.param(NESTED, id="deep"), '"x"', "[]", "[[1, 2]]", "{}", "5"])
def test_task_with_a_broken_body_has_no_request(broken: str) -> None:
    """It is a task nevertheless."""
    envelope = json.loads(task()) | {"body": broken}
    assert letter(json.dumps(envelope)).request is None
    assert letter(json.dumps(envelope | {"properties": None})).request is None


class Sent:
    """A queue that keeps what is sent."""

    def __init__(self, outage: Exception | None = None) -> None:
        self.bodies: list[str] = []
        self._outage = outage

    def send(self, body: str, delay_seconds: int = 0) -> None:
        """Keep it."""
        if self._outage is not None:
            raise self._outage
        self.bodies.append(body)


def driven(stored: RecognitionResult | None, sent: Sent) -> tuple[InMemoryDeadLetterQueue, InMemoryObjectStore]:
    """Redrive one dead task that has a stored result."""
    dead, store = InMemoryDeadLetterQueue(), InMemoryObjectStore()
    dead.put(task(), reason="crashed", request_id=str(REQUEST.request_id), failed_at=NOW)
    if stored is not None:
        key = output_key(REQUEST.request_id, REQUEST.filename)
        store.put("out", key, stored.to_json().encode(), "application/json")
    with dead.look() as letters, suppress(Refused):
        for found in letters:
            redrive(found, dead=dead, requests=sent, store=store, bucket="out")
    return dead, store


def test_redrive_sends_the_original_and_deletes_its_stored_failure() -> None:
    """A worker answers a repeated task with the stored result."""
    sent = Sent()
    dead, store = driven(result_for(REQUEST, "", outcome=Outcome.FAILED), sent)
    assert sent.bodies == [task()]
    assert dead.count() == 0
    assert store.keys("out") == []


def test_redrive_keeps_a_result_that_is_not_a_failure() -> None:
    """SQS may have moved the task after its answer."""
    _, store = driven(result_for(REQUEST, "Jane"), Sent())
    assert len(store.keys("out")) == 1


def test_redrive_that_sqs_refuses_changes_nothing() -> None:
    """Its client still finds the failure."""
    dead, store = driven(result_for(REQUEST, "", outcome=Outcome.FAILED), Sent(Refused("too long")))
    assert dead.count() == len(store.keys("out")) == 1


def test_redrive_that_cannot_send_removes_nothing() -> None:
    """The send comes first."""
    dead = InMemoryDeadLetterQueue()
    dead.put(task(), reason="crashed", request_id="7", failed_at=NOW)
    with pytest.raises(Transient), dead.look() as letters:
        redrive(next(letters), dead=dead, requests=Sent(Transient("no")), store=InMemoryObjectStore(), bucket="out")
    assert dead.count() == 1
