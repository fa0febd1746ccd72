"""What goes over the wire of a task's message, and of any other."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from facerec.celery_sqs.envelope import compact, task_message
from facerec.celery_sqs.received_task import read_task, task_id
from facerec.message_base import ObjectRef
from facerec.messages import TASK_NAME, RecognitionRequest

TASK: dict[str, Any] = {
    "body": '[[1], {}, {"callbacks": null, "chord": {"x": 1}}]',
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"task": "t", "id": "i", "eta": None, "retries": 0, "expires": "2026-11-01", "mine": None, "stamps": {}},
    "properties": {"delivery_info": {"routing_key": "q"}, "delivery_tag": "x", "priority": 0, "body_encoding": None},
}


def test_compact_keeps_values_that_are_no_defaults() -> None:
    """Also headers of other senders."""
    written = json.loads(compact(TASK))
    assert written == TASK | {
        "body": '[[1],{},{"chord":{"x":1}}]',
        "headers": {"task": "t", "id": "i", "expires": "2026-11-01", "mine": None},
        "properties": {"delivery_info": {"routing_key": "q"}},
    }


def test_compact_leaves_the_message_unchanged() -> None:
    """The sender may send it once more."""
    before = json.dumps(TASK)
    compact(TASK)
    assert json.dumps(TASK) == before


def test_compact_only_removes_spaces_from_other_messages() -> None:
    """Those that are no tasks, or have another form of body."""
    event = {"headers": {"hostname": "h", "eta": None}, "properties": {"delivery_tag": "x"}, "body": "{ }"}
    encoded = TASK | {"properties": {"body_encoding": "base64"}, "body": "W10="}
    pickled = TASK | {"content-type": "application/x-python-serialize"}
    for message in (event, encoded, pickled):
        text = compact(message)
        assert json.loads(text) == message
        assert text.startswith('{"')
        assert '": ' not in text.replace('\\": ', "")


def test_message_without_celery_is_the_request_as_a_task() -> None:
    """Every reader of the request queue takes it, and it is ASCII."""
    request = RecognitionRequest(
        request_id=uuid4(),
        input=ObjectRef(bucket="in", key="inbox/ä.jpg", size=3),
        filename="ä.jpg",
        submitted_at=datetime.now(UTC),
    )
    text = task_message(request)
    assert RecognitionRequest.parse(read_task(text, [TASK_NAME]).argument) == request
    assert task_id(text) == str(request.request_id)
    assert text.isascii()
