"""Photos are recognised, compared and verified over our own API."""

from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_keys import Scope, issue
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult, Refusal, ResultMatch
from facerec.operations import Compare, Detect, Recognise, Verify
from facerec.settings import Settings
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.web_tier import FakeWebTier, picture, result_for, running, together

TEMPLATE = "0123456789abcdef0123456789abcdef"
DASHED = "01234567-89ab-cdef-0123-456789abcdef"


class Asked:
    """A worker that knows Jane, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[RecognitionRequest] = []
        self.change: dict[str, Any] = {}

    def __call__(self, request: RecognitionRequest) -> RecognitionResult:
        self.requests.append(request)
        result = result_for(request, "Jane")
        match = ResultMatch(identity="Jane", similarity=0.8, threshold=0.5, template_id=TEMPLATE)
        face = result.faces[0].model_copy(update={"matches": (match,)})
        return result.model_copy(update={"faces": (face, face), **self.change})


@pytest.fixture
def worker() -> Asked:
    """The worker."""
    return Asked()


@pytest.fixture
def client(worker: Asked) -> Iterator[FlaskClient]:
    """A client of an open tier with this worker."""
    with running(FakeWebTier(answer=worker)) as tier:
        yield tier.app.test_client()


def send(client: FlaskClient, path: str, *fields: str, **options: Any) -> TestResponse:
    """Send a picture in each of these fields of a form."""
    files = {field: (BytesIO(picture()), f"{field}.jpg") for field in fields or ("file",)}
    return client.post(f"/api/v1/{path}", data=files, **options)


def base64_photo() -> str:
    """A picture for JSON."""
    return b64encode(picture()).decode()


def test_all_faces_are_listed_and_the_first_is_primary(client: FlaskClient, worker: Asked) -> None:
    """Ids have dashes, and the header names the request."""
    response = send(client, "recognise?threshold=0.4&nearest=3")
    assert response.status_code == 200
    answer = response.json
    assert answer is not None
    assert [face["primary"] for face in answer["faces"]] == [True, False]
    assert answer["faces"][0]["matches"][0]["template_id"] == DASHED
    assert response.headers["X-Request-Id"] == answer["request_id"]
    [asked] = worker.requests
    assert asked.operation == Recognise(nearest=3)
    assert asked.threshold == 0.4
    assert asked.filename == "file.jpg"


def test_photo_may_be_base64_in_json(client: FlaskClient, worker: Asked) -> None:
    """With its file name, of which the last path part counts."""
    response = client.post("/api/v1/detect", json={"photo": base64_photo(), "filename": "a/b.jpg"})
    assert response.status_code == 200
    assert worker.requests[0].filename == "b.jpg"
    assert worker.requests[0].operation == Detect()


@pytest.mark.parametrize("in_json", [True, False])
def test_two_photos_are_compared(client: FlaskClient, worker: Asked, *, in_json: bool) -> None:
    """As files, or as base64."""
    if in_json:
        pair = {"source": base64_photo(), "target": base64_photo()}
        response = client.post("/api/v1/compare", json=pair)
    else:
        response = send(client, "compare", "source", "target")
    assert response.status_code == 200
    assert isinstance(worker.requests[0].operation, Compare)


@pytest.mark.parametrize(
    ("path", "operation"),
    [("verify?person=Jane", Verify(identity="Jane")), (f"photos/{DASHED}/verify", Verify(template_id=TEMPLATE))],
)
def test_photo_is_verified(client: FlaskClient, worker: Asked, path: str, operation: Verify) -> None:
    """Against a person or a photo, whose id may have dashes."""
    assert send(client, path).status_code == 200
    assert worker.requests[0].operation == operation


@pytest.mark.parametrize(
    ("path", "status", "hint"),
    [
        ("verify", 400, "person"),
        ("photos/first/verify", 404, "no photo"),
        ("recognise?treshold=0.4", 400, "treshold"),
        ("recognise?threshold=2", 400, "threshold"),
        ("recognise?nearest=1000000", 400, "nearest"),
        ("recognise?collection=../x", 400, "collection"),
    ],
)
def test_wrong_query_is_an_error_with_a_code(
    client: FlaskClient, worker: Asked, path: str, status: int, hint: str
) -> None:
    """The message names the parameter, and no worker is asked."""
    response = send(client, path)
    assert response.status_code == status
    assert response.json is not None
    assert response.json.keys() == {"message", "code"}
    assert hint in response.json["message"]
    assert not worker.requests


@pytest.mark.parametrize(
    ("body", "status", "hint"),
    [
        ({"data": b"{", "content_type": "application/json"}, 400, "JSON"),
        ({"json": {}}, 400, "photo"),
        ({"data": b"[" * 100_000, "content_type": "application/json"}, 400, "JSON"),
        ({"json": {"photo": "%%%"}}, 400, "base64"),
        ({"json": {"photo": 1}}, 400, "photo"),
        ({"json": {"photo": "aGVsbG8=", "size": 5}}, 400, "size"),
        ({"json": {"photo": "aGVsbG8="}}, 415, "picture"),
        ({"data": {"file": (BytesIO(b""), "a.jpg")}}, 400, "empty"),
        ({"data": {"photo": (BytesIO(b"x"), "a.jpg")}}, 400, "file"),
        ({"data": b"x", "content_type": "text/plain"}, 400, "multipart"),
    ],
)
def test_wrong_body_is_an_error(client: FlaskClient, body: dict[str, Any], status: int, hint: str) -> None:
    """Of JSON or of a form."""
    response = client.post("/api/v1/recognise", **body)
    assert response.json is not None
    assert (response.status_code, hint in response.json["message"]) == (status, True), response.json


def test_too_large_photo_is_413_as_file_and_in_json() -> None:
    """Base64 may be a third longer than the photo."""
    settings = Settings.model_validate({"web": {"max_upload_bytes": 100_000}})
    client = FakeWebTier(settings).app.test_client()
    large = bytes(100_001)
    for body in ({"data": {"file": (BytesIO(large), "a.jpg")}}, {"json": {"photo": b64encode(large).decode()}}):
        assert client.post("/api/v1/recognise", **body).status_code == 413


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"outcome": Outcome.INVALID_IMAGE, "detail": "the picture is damaged"}, 415),
        ({"outcome": Outcome.FAILED, "detail": "it crashed"}, 500),
        ({"outcome": Outcome.REFUSED, "refusal": Refusal.NO_SUCH_PERSON, "detail": "nobody is Jane"}, 404),
        ({"outcome": Outcome.REFUSED, "refusal": Refusal.UNSUPPORTED, "detail": "functions do not"}, 501),
    ],
)
def test_request_that_was_not_done_is_an_error(
    client: FlaskClient, worker: Asked, change: dict[str, Any], status: int
) -> None:
    """Whose status programs can read."""
    worker.change = change
    response = send(client, "verify?person=Jane")
    assert response.status_code == status
    assert response.json is not None
    assert response.json["code"] == 0


def test_result_that_is_late_is_announced() -> None:
    """With the address at which it will be, which says that it is pending."""
    responses: list[TestResponse] = []
    with running(FakeWebTier()) as tier:
        client = tier.app.test_client()
        with together(1, lambda _: responses.append(send(tier.app.test_client(), "recognise"))):
            tier.tasks.await_count(1)
            tier.waiters.give_up()
        [response] = responses
        assert response.status_code == 202
        assert response.json == {"request_id": response.headers["X-Request-Id"], "status": "pending"}
        assert client.get(response.headers["Location"]).json == response.json


def test_collection_of_another_key_is_refused(worker: Asked) -> None:
    """A key uses its own collection, also without naming it; scope admin uses any."""
    staff, token = issue("staff", [Scope.RECOGNISE], now=datetime.now(UTC), collection="staff")
    operator, admin = issue("operator", [Scope.ADMIN], now=datetime.now(UTC))
    with running(FakeWebTier(answer=worker, keys=InMemoryApiKeys(staff, operator))) as tier:
        client = tier.app.test_client()
        own = {"x-api-key": token.reveal()}
        assert send(client, "recognise", headers=own).status_code == 200
        assert send(client, "recognise?collection=default", headers=own).status_code == 403
        answer = send(client, "recognise?collection=guests", headers={"x-api-key": admin.reveal()})
        assert answer.status_code == 200
        assert client.get(f"/api/v1/results/{answer.headers['X-Request-Id']}", headers=own).status_code == 404
        assert send(client, "recognise").json == {
            "message": "an API key is needed: send it in the header x-api-key, or as Authorization: Bearer",
            "code": 20,
        }
    assert [request.collection for request in worker.requests] == ["staff", "guests"]
