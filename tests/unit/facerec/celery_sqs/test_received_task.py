"""Which messages a worker takes, and what is said about the others."""

import base64
import json
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps

from facerec.celery_sqs.envelope import compact
from facerec.celery_sqs.received_task import ReceivedTask, read_faces, read_task, task_id
from facerec.device_faces import faces_request_id
from facerec.errors import InvalidMessage

NAME = "facerec.recognise"
ID = "f2cf5a3e-8d8c-4b63-9b80-0d6a7a3a4c11"
TASK: dict[str, Any] = {
    "headers": {"task": NAME, "id": ID},
    "properties": {"delivery_info": {"exchange": "", "routing_key": "q"}},
    "body": '[[{"a": 1}], {}, {}]',
    "content-type": "application/json",
    "content-encoding": "utf-8",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def read(message: Any) -> ReceivedTask:
    """What a worker reads."""
    return read_task(json.dumps(message), [NAME])


def headed(**headers: Any) -> dict[str, Any]:
    """The task with more headers."""
    return TASK | {"headers": TASK["headers"] | headers}


def of_celery(**options: Any) -> dict[str, Any]:
    """A message as Celery and kombu send it, with every header of this version."""
    message = Celery(set_as_current=False).amqp.as_task_v2(ID, NAME, ({"a": 1},), **options)
    return {
        "headers": message.headers,
        "properties": message.properties
        | {"delivery_mode": 2, "priority": 0, "delivery_tag": "t", "delivery_info": {}},
        "body": dumps(message.body),
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }


def in_base64(text: str) -> str:
    """As kombu encodes a message or its body by default."""
    return base64.b64encode(text.encode()).decode()


def test_plain_task_is_taken() -> None:
    """Celery gets the headers that were checked, and nothing else of the message."""
    task = read(headed(eta=None, retries=0, facerec_postponed=2, ignore_result=False, origin="web", called_directly=1))
    assert task == ReceivedTask({"task": NAME, "id": ID, "origin": "web"}, {"a": 1})


@pytest.mark.parametrize("options", [{}, {"reply_to": ID, "ignore_result": True, "parent_id": ID, "root_id": ID}])
def test_task_of_any_celery_producer_is_taken(options: dict[str, Any]) -> None:
    """With all default headers of Celery, in each form that kombu and our transport write."""
    message = of_celery(**options)
    body = in_base64(message["body"])
    encoded = message | {"body": body, "properties": message["properties"] | {"body_encoding": "base64"}}
    for text in (compact(message), json.dumps(message), json.dumps(encoded), in_base64(json.dumps(encoded))):
        task = read_task(text, [NAME])
        assert task.argument == {"a": 1}
        assert task.headers["argsrepr"] == "({'a': 1},)"


def test_headers_of_a_tracer_have_no_effect() -> None:
    """Sentry and OpenTelemetry add theirs to each task that an instrumented process sends."""
    traced = headed(traceparent="00-0af7-b7ad-01", **{"sentry-trace": "771a-1", "headers": {"baggage": "a=b"}})
    assert read(traced) == read(TASK)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("countdown", 5),
        ("eta", "2100-01-01T00:00:00+00:00"),
        ("expires", "2020-01-01T00:00:00+00:00"),
        ("group_id", "g"),
        ("retries", 3),
        ("time_limit", 1),
        ("soft_time_limit", 1),
        ("shadow", "other"),
        ("callbacks", [{"task": NAME}]),
        ("errbacks", [{"task": NAME}]),
        ("chain", [{"task": NAME}]),
        ("chord", {"task": NAME}),
        ("replaced_task_nesting", 1),
        ("kwargs", {"b": 2}),
    ],
)
def test_task_with_another_option_of_celery_is_refused(option: str, value: Any) -> None:
    """Celery's worker would wait with it, delete it, or send other tasks."""
    with pytest.raises(InvalidMessage):
        read(of_celery(**{option: value}))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        *(
            (headed(**{name: value}), f"headers.{name}: ")
            for name, value in {
                "argsrepr": 5,
                "compression": "application/zstd",
                "eta": 0,
                "expires": "x",
                "facerec_postponed": "x",
                "id": "i" * 300,
                "ignore_result": "x",
                "kwargsrepr": "x" * 5000,
                "lang": [[]],
                "origin": {},
                "parent_id": [],
                "retries": "x",
                "root_id": 5,
                "stamped_headers": 5,
                "stamps": 5,
                "task": [NAME],
                "timelimit": "x",
            }.items()
        ),
        (headed(task="somebody.elses"), "headers.task: there is no task 'somebody.elses'"),
        (headed(id="\ud800"), "headers.id: "),
        (TASK | {"headers": {"task": NAME}}, "headers.id: "),
        (TASK | {"headers": {}}, "headers.task: "),
        (TASK | {"headers": []}, "headers: "),
        (TASK | {"headers": {"x" * 10_000: 1}}, "headers.task: "),
        (TASK | {"properties": 5}, "properties: "),
        (TASK | {"properties": {"body_encoding": "x"}}, "properties.body_encoding: "),
        (TASK | {"properties": {"body_encoding": "base64"}, "body": "!"}, "body: "),
        (TASK | {"content-type": "application/x-python-serialize"}, "content-type: "),
        (TASK | {"content-encoding": "utf-16"}, "content-encoding: "),
        (TASK | {"body": None}, "body: "),
        *((TASK | {"body": body}, "body: ") for body in ("", "{}", "[]", "[[1], {}]", '{"args": [1], "kwargs": {}}')),
        (TASK | {"body": "[[" + "[" * 100_000}, "body: "),
        (TASK | {"body": '[[{"__type__": [], "__value__": 1}], {}, {}]'}, "body: "),
        (TASK | {"body": "[[], {}, {}]"}, "args: "),
        (TASK | {"body": "[[1, 2], {}, {}]"}, "args: "),
        (TASK | {"body": '["a", {}, {}]'}, "args: "),
        (TASK | {"body": '[[1], {"a": 1}, {}]'}, "kwargs: "),
        (TASK | {"body": "[[1], [], {}]"}, "kwargs: "),
        (TASK | {"body": '[[1], {}, {"chain": [1]}]'}, "embed.chain: "),
        (TASK | {"body": '[[1], {}, {"id": "other"}]'}, "embed.id: "),
        (TASK | {"body": '[[1], {}, "x"]'}, "embed: "),
    ],
)
def test_refusal_names_the_field(message: dict[str, Any], field: str) -> None:
    """In one short line for the operator."""
    with pytest.raises(InvalidMessage) as refused:
        read(message)
    assert str(refused.value).startswith(field)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "text", ["", "  ", "no json", "[]", "{}", "5", "e30=", "W10=", "{" * 100_000, '{"headers": ' + "[" * 100_000, "ü"]
)
def test_other_text_is_no_task(text: str) -> None:
    """Whatever it is."""
    with pytest.raises(InvalidMessage, match="not a task of Celery"):
        read_task(text, [NAME])
    assert task_id(text) == ""


def test_header_that_comes_twice_counts_once() -> None:
    """The last one is what every reader of the message sees."""
    text = json.dumps(TASK)[:-1] + ', "headers": ' + json.dumps(headed(eta="2100-01-01")["headers"]) + "}"
    with pytest.raises(InvalidMessage, match=r"headers\.eta"):
        read_task(text, [NAME])


def test_task_id_is_that_of_the_headers_if_it_is_a_uuid() -> None:
    """Also of a message that is refused."""
    assert task_id(json.dumps(headed(eta="x"))) == ID
    for message in (headed(id="x"), headed(id=5), TASK | {"headers": None}, TASK | {"headers": [1]}):
        assert task_id(json.dumps(message)) == ""


@given(st.sampled_from([*TASK, "id", "task", "eta", "body_encoding", "args", "embed"]), JSON)
def test_any_message_is_read_or_refused(field: str, value: Any) -> None:
    """No value of any field ends a worker."""
    changed = {
        "id": headed(id=value),
        "task": headed(task=value),
        "eta": headed(eta=value),
        "body_encoding": TASK | {"properties": {"body_encoding": value}},
        "args": TASK | {"body": json.dumps([value, {}, {}])},
        "embed": TASK | {"body": json.dumps([[1], {}, value])},
    }
    with suppress(InvalidMessage):
        assert read(changed.get(field, TASK | {field: value})).headers["task"] == NAME


def test_argument_may_hold_celerys_own_types() -> None:
    """A producer may pass a request with its UUID and its time."""
    argument = {"id": uuid.uuid4(), "at": datetime.now(UTC), "threshold": Decimal("0.5")}
    assert read(TASK | {"body": dumps([[argument], {}, {}])}).argument == argument


def test_argument_of_another_type_of_celery_is_refused() -> None:
    """No request holds one."""
    with pytest.raises(InvalidMessage, match="unknown type 'base64'"):
        read(TASK | {"body": dumps([[b"\xff"], {}, {}])})


@pytest.mark.parametrize(
    "message",
    [
        {"request_id": ID, "filename": "a.jpg", "thing": "camera-1"},
        {"request": {"request_id": ID, "filename": "a.jpg"}, "faces": []},
    ],
)
def test_message_of_the_faces_queue_becomes_a_task(message: dict[str, Any]) -> None:
    """A device's and the detection function's; monitors show the request id and the file name."""
    text = json.dumps(message)
    task = read_faces(text)
    assert task.headers == {"lang": "py", "task": "facerec.recognise_faces", "id": ID, "argsrepr": "a.jpg"}
    assert task.argument == text


def test_further_face_of_a_frame_is_a_task_of_its_own() -> None:
    """Its id is that of its result, which differs from the frame's."""
    message = {"request_id": ID, "filename": "a.jpg", "thing": "camera-1", "face_index": 1}
    assert read_faces(json.dumps(message)).headers["id"] == faces_request_id(json.dumps(message)) != ID


@pytest.mark.parametrize(
    "text",
    [
        *("", "no json", "[]", "{}", "5", "[" * 100_000),
        *('{"request": 5}', '{"request": {}}', '{"thing": "a"}', '{"thing": "a", "request_id": "x"}'),
        json.dumps({"request_id": ID, "filename": 5, "thing": "a"}),
    ],
)
def test_text_without_a_request_id_is_no_message_of_the_faces_queue(text: str) -> None:
    """It could not be followed; the reason is one short line for the operator."""
    with pytest.raises(InvalidMessage) as refused:
        read_faces(text)
    assert len(str(refused.value)) < 500


@given(st.sampled_from(["request", "request_id", "filename", "thing"]), JSON)
def test_any_message_of_the_faces_queue_is_read_or_refused(field: str, value: Any) -> None:
    """No value of any field ends a worker."""
    with suppress(InvalidMessage):
        assert read_faces(json.dumps({"request_id": ID, "filename": "a.jpg", "thing": "a"} | {field: value})).headers[
            "id"
        ]
