"""Results by request id, the page, and unknown paths."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_keys import ApiKey, Scope, Token, issue
from facerec.errors import ObjectMissing, Transient
from facerec.messages import RecognitionResult
from facerec.settings import Settings
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.web_tier import FakeWebTier, answers, picture, result_for, running, together, upload


@pytest.fixture
def tier() -> FakeWebTier:
    """A web tier whose worker knows Jane."""
    return FakeWebTier(answer=answers("Jane"))


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def test_result_can_be_read_again(tier: FakeWebTier) -> None:
    """The JSON is the stored result with all its faces."""
    with running(tier):
        client = tier.app.test_client()
        request_id = upload(client).headers["X-Request-Id"]
        response = client.get(f"/api/v1/results/{request_id}")
        upper = client.get(f"/api/v1/results/{request_id.upper()}")
    assert response.status_code == upper.status_code == 200
    assert response.content_type == "application/json"
    result = RecognitionResult.parse(response.data)
    assert result.request_id == UUID(request_id)
    assert result.faces[0].matches[0].identity == "Jane"


def test_request_without_a_result_is_pending(tier: FakeWebTier, client: FlaskClient) -> None:
    """While its picture is in the store."""
    request_id = uuid4()
    tier.store.put("facerec-in-bucket", f"{request_id}/a.jpg", picture(), "image/jpeg")
    response = client.get(f"/api/v1/results/{request_id}")
    assert response.status_code == 202
    assert response.json == {"request_id": str(request_id), "status": "pending"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/results/00000000-0000-4000-8000-000000000000", 404),
        ("/api/v1/results/not-a-uuid", 404),
        ("/api/v1/results/..%2f..%2fsecret", 404),
        ("/api/v1/nothing", 404),
    ],
)
def test_api_errors_are_json(client: FlaskClient, path: str, status: int) -> None:
    """With one helpful sentence."""
    response = client.get(path)
    assert response.status_code == status
    assert response.json
    assert response.json["message"]


def test_result_that_expires_while_it_is_read_is_404(tier: FakeWebTier, client: FlaskClient) -> None:
    """Result that expires while it is read is 404."""
    request_id = uuid4()
    tier.store.put("facerec-out-bucket", f"{request_id}/a.json", b"{}", "application/json")

    def gone(bucket: str, key: str) -> bytes:
        raise ObjectMissing(bucket, key)

    tier.store.get = gone  # type: ignore[method-assign] # the one method that expiry changes
    assert client.get(f"/api/v1/results/{request_id}").status_code == 404


def test_result_is_503_while_the_store_is_unreachable(tier: FakeWebTier, client: FlaskClient) -> None:
    """With the time to ask again."""
    tier.store.outage = Transient("no route")
    response = client.get(f"/api/v1/results/{uuid4()}")
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert response.json
    assert "no route" not in response.json["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("PUT", "/", 405), ("DELETE", "/healthz", 405), ("POST", "/index.php", 404)],
)
def test_errors_outside_the_api_are_plain_text(client: FlaskClient, method: str, path: str, status: int) -> None:
    """Errors outside the api are plain text."""
    response = client.open(path, method=method)
    assert response.status_code == status
    assert response.content_type == "text/plain; charset=utf-8"
    assert len(response.text.splitlines()) == 1
    assert ("Allow" in response.headers) == (status == 405)


def test_wrong_method_of_the_api_is_json(client: FlaskClient) -> None:
    """Wrong method of the api is json."""
    response = client.post(f"/api/v1/results/{uuid4()}")
    assert response.status_code == 405
    assert response.json
    assert "GET" in response.json["message"]


def test_results_are_found_whatever_the_file_name(tier: FakeWebTier) -> None:
    """Only the request id counts."""
    with running(tier):
        client = tier.app.test_client()
        response = upload(client, filename="😀" * 300 + ".jpg")
        stored = client.get(f"/api/v1/results/{response.headers['X-Request-Id']}")
    assert stored.status_code == 200
    assert stored.json
    assert stored.json["filename"] == "😀" * 251 + ".jpg"
    assert result_for(tier.tasks.requests[0], "Jane").filename == stored.json["filename"]


ASKER, OTHER = (issue(name, [Scope.RECOGNISE], now=datetime.now(UTC)) for name in ("asker", "other"))
ADMIN, ENROLLER = (issue(scope, [scope], now=datetime.now(UTC)) for scope in (Scope.ADMIN, Scope.ENROL))
KEYS = tuple(key for key, _ in (ASKER, OTHER, ADMIN, ENROLLER))


def as_client(tier: FakeWebTier, known: tuple[ApiKey, Token], path: str) -> TestResponse:
    """Ask with a key."""
    return tier.app.test_client().get(path, headers={"x-api-key": known[1].reveal()})


def statuses(tier: FakeWebTier, path: str) -> list[int]:
    """What the four keys get."""
    return [as_client(tier, key, path).status_code for key in (ASKER, OTHER, ADMIN, ENROLLER)]


def keyed_tier(**options: Any) -> FakeWebTier:
    """A web tier that asks for keys."""
    return FakeWebTier(keys=InMemoryApiKeys(*KEYS), **options)


def test_result_is_read_only_by_the_key_that_asked_or_by_admin() -> None:
    """While it is pending and later, in another process too; another key gets the reply for an unknown id."""
    path = ""
    with running(keyed_tier()) as tier:

        def send(_: int) -> None:
            picked = {"inputFile": (BytesIO(picture()), "a.jpg")}
            tier.app.test_client().post("/", data=picked, headers={"x-api-key": ASKER[1].reveal()})

        with together(1, send):
            [task] = tier.tasks.await_count(1)
            path = f"/api/v1/results/{task.request_id}"
            assert statuses(tier, path) == [202, 404, 202, 404]
            tier.work(task, result_for(task, "Jane"))
    restarted = keyed_tier()
    restarted.store = tier.store
    restarted.app = restarted._app()
    for process in (tier, restarted):
        assert statuses(process, path) == [200, 404, 200, 404]
    unknown = uuid4()
    said = as_client(tier, OTHER, path).text
    assert said.replace(str(task.request_id), str(unknown)) == as_client(tier, OTHER, f"/api/v1/results/{unknown}").text
    tier.store.outage = Transient("no route")
    assert statuses(tier, path) == [503, 404, 503, 404]


def test_results_of_open_mode_and_of_earlier_versions_are_for_admin_once_keys_are_needed() -> None:
    """No key asked for them."""
    with running(FakeWebTier(answer=answers("Jane"))) as opened:
        path = f"/api/v1/results/{upload(opened.app.test_client()).headers['X-Request-Id']}"
    tier = keyed_tier()
    tier.store = opened.store
    tier.app = tier._app()
    assert statuses(tier, path) == [404, 404, 200, 404]
    assert opened.app.test_client().get(path).status_code == 200


def test_late_result_is_read_at_the_address_in_the_reply_by_its_key_alone() -> None:
    """The copies by file name are on no address."""
    tier = keyed_tier(settings=Settings(key_style="filename"))
    tier.waiters.give_up()
    picked = {"inputFile": (BytesIO(picture()), "a.jpg")}
    reply = tier.app.test_client().post("/", data=picked, headers={"x-api-key": ASKER[1].reveal()})
    assert reply.status_code == 504
    assert statuses(tier, reply.text.split()[-1]) == [202, 404, 202, 404]
    assert statuses(tier, "/api/v1/results/a.jpg") == [404, 404, 404, 404]
