"""Every call of the function's URL gets an HTTP response: a result, a receipt, or a JSON error."""

import base64
import json
from typing import Any
from uuid import UUID

import pytest

from facerec.errors import ConfigurationError, EngineFailure
from facerec.messages import Outcome, RecognitionResult
from facerec.object_keys import input_key, output_key
from facerec.serverless.events import EventKind, kind_of
from facerec.serverless.invocation import Invocation
from facerec.serverless.url import PhotoUrl
from facerec.settings import Settings
from facerec.settings.resources import NameSettings
from facerec.settings.tiers import WebSettings
from tests.fakes.functions import NOW, Context, DetectionTier
from tests.fakes.object_store import InMemoryObjectStore
from tests.support.logs import capture_logs
from tests.support.pictures import PORTRAIT

PHOTO = PORTRAIT.read_bytes()
REQUEST_ID = UUID("00000000-0000-4000-8000-000000000001")
SETTINGS = Settings(names=NameSettings(input_bucket="in", output_bucket="out"))


def fields(**changes: Any) -> dict[str, Any]:
    """What a client sends."""
    return {
        "request_id": str(REQUEST_ID),
        "content": base64.b64encode(PHOTO).decode(),
        "filename": "jane.jpg",
    } | changes


def call(body: object, method: str = "POST", *, encoded: bool = False) -> dict[str, Any]:
    """An event of a Function URL, payload format 2.0."""
    text = body if isinstance(body, str) else json.dumps(body)
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "headers": {"content-type": "application/octet-stream"},
        "requestContext": {"http": {"method": method, "path": "/", "sourceIp": "127.0.0.1"}, "stage": "$default"},
        "body": base64.b64encode(text.encode()).decode() if encoded else text,
        "isBase64Encoded": encoded,
    }


class World:
    """A detection function between fakes."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.settings, self.store, self.tier = settings, InMemoryObjectStore(), DetectionTier()
        self.url = PhotoUrl(settings, self.store, self.tier.driver, now=lambda: NOW)

    def send(self, event: dict[str, Any], seconds: float = 15) -> tuple[int, Any]:
        """Returns status and body."""
        assert kind_of(event) is EventKind.URL
        self.response = self.url.answer(event, Invocation(Context(seconds)))
        assert self.response["headers"]["Content-Type"] == "application/json"
        return self.response["statusCode"], json.loads(self.response["body"])


@pytest.fixture
def world() -> World:
    """One of its own for each test."""
    return World()


@pytest.mark.parametrize("encoded", [False, True])
def test_photo_with_faces_is_accepted(world: World, encoded: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """The photo is stored under its request id, and its result goes to the response queue."""
    assert world.send(call(fields(), encoded=encoded)) == (202, {"request_id": str(REQUEST_ID), "faces": 2})
    ((request, attempt),) = world.tier.half.seen
    assert (request.request_id, request.reply_to, attempt) == (REQUEST_ID, "facerec-resp-queue", 1)
    assert world.store.get("in", input_key(REQUEST_ID, "jane.jpg")) == PHOTO
    assert world.store.describe("in", request.input.key).content_type == "image/jpeg"


def test_photo_without_a_face_gets_its_result(world: World) -> None:
    """It is final."""
    status, body = world.send(call(fields(filename="no_face.jpg")))
    assert (status, RecognitionResult.parse(body).outcome) == (200, Outcome.NO_FACE)


def test_damaged_photo_is_refused_after_its_header(world: World) -> None:
    """The engine finds the damage."""
    status, body = world.send(call(fields(filename="invalid_image.jpg")))
    assert (status, body) == (415, {"error": "the picture is cut off or damaged", "code": "invalid_image"})


def test_repeated_call_publishes_the_stored_result(world: World) -> None:
    """The use case looks for it from the second attempt on."""
    world.store.put("out", output_key(REQUEST_ID, "jane.jpg"), b"{}", "application/json")
    world.send(call(fields()))
    ((_, attempt),) = world.tier.half.seen
    assert attempt == 2


@pytest.mark.parametrize(
    ("event", "status", "code"),
    [
        (call(fields(), "GET"), 405, "method_not_allowed"),
        (call(""), 400, "empty_body"),
        (call(" \n"), 400, "empty_body"),
        (call("", encoded=True), 400, "empty_body"),
        (call("inputFile=1"), 400, "not_json"),
        (call("[" * 100_000), 400, "not_json"),
        (call("[1]"), 400, "not_json"),
        (call("{}") | {"body": "!", "isBase64Encoded": True}, 400, "bad_body"),
        (call("{}") | {"body": "/w==", "isBase64Encoded": True}, 400, "not_json"),
        (call({}), 400, "no_request_id"),
        (call(fields(request_id=None)), 400, "no_request_id"),
        (call(fields(request_id="7")), 400, "bad_request_id"),
        (call(fields(filename=["a"])), 400, "no_filename"),
        (call({"request_id": str(REQUEST_ID), "filename": "a.jpg"}), 400, "no_content"),
        (call(fields(content="not base64!")), 400, "bad_content"),
        (call(fields(content="ü")), 400, "bad_content"),
        (call(fields(content="")), 400, "empty_content"),
        (call(fields(content=base64.b64encode(b"text").decode())), 415, "invalid_image"),
        (call(fields(content="A" * 7_000_000)), 413, "too_large"),
        (call(fields(filename="failed.jpg")), 500, "failed"),
    ],
)
def test_wrong_call_gets_a_json_error(world: World, event: dict[str, Any], status: int, code: str) -> None:
    """With one sentence; nothing is stored, and no stack trace is shown."""
    assert world.send(event)[0] == status
    body = json.loads(world.response["body"])
    assert body.keys() == {"error", "code"}
    assert body["code"] == code
    assert "Traceback" not in body["error"]
    assert "\n" not in body["error"]
    assert world.store.keys("in") == ([] if code != "failed" else [input_key(REQUEST_ID, "failed.jpg")])


def test_wrong_method_names_the_right_one(world: World) -> None:
    """As HTTP demands."""
    world.send(call("", "DELETE"))
    assert world.response["headers"]["Allow"] == "POST"


def test_limit_of_uploads_is_that_of_the_web_tier() -> None:
    """Below Lambda's own limit."""
    small = World(SETTINGS.changed(web=WebSettings(max_upload_bytes=10_000)))
    status, body = small.send(call(fields()))
    assert (status, body["code"]) == (413, "too_large")
    assert "at most 0.01 MB" in body["error"]


@pytest.mark.parametrize("failure", [ConfigurationError("no access"), EngineFailure("crashed")])
def test_service_that_fails_costs_no_photo(world: World, failure: Exception) -> None:
    """The client may call again, or gets a final answer; the sentence names no resource."""
    world.tier.half.raised["jane"] = failure
    status, body = world.send(call(fields()))
    assert (status, body["code"]) in {(503, "unavailable"), (500, "failed")}
    assert "no access" not in body["error"]
    assert ("Retry-After" in world.response["headers"]) == (status == 503)


def test_mistake_of_the_function_shows_no_stack_trace(world: World) -> None:
    """The log has it."""
    world.tier.half.raised["jane"] = RuntimeError("a bug")
    with capture_logs() as logs:
        assert world.send(call(fields()))[0] == 500
    assert "a bug" not in world.response["body"]
    assert "url_failed" in [entry["event"] for entry in logs]


def test_call_is_answered_before_its_time_is_over(world: World) -> None:
    """The client sends the photo again."""
    status, body = world.send(call(fields(filename="hold.jpg")), seconds=1.6)
    world.tier.half.held.set()
    assert (status, body["code"]) == (503, "unavailable")


def test_bare_name_style_also_stores_the_photo_under_its_name() -> None:
    """As the web tier does."""
    world = World(SETTINGS.changed(key_style="filename"))
    world.send(call(fields()))
    assert world.store.get("in", "jane.jpg") == PHOTO
