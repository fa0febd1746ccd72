"""The Python client, against the application on fakes and against scripted answers, without a socket."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import urllib3
from pydantic import BaseModel
from urllib3.exceptions import NewConnectionError, ProtocolError, ReadTimeoutError
from urllib3.filepost import encode_multipart_formdata

from facerec.api_keys import Scope, issue
from facerec.client import (
    ApiError,
    Client,
    Conflict,
    Forbidden,
    InvalidPhoto,
    NotDone,
    NotEnrolled,
    NotFound,
    StillPending,
    Unavailable,
    Unreachable,
    models,
)
from facerec.errors import ConfigurationError
from facerec.job_records import FileStatus, JobStatus
from facerec.jobs.report import JobSummary
from facerec.messages import Outcome
from facerec.settings import Settings
from facerec.settings.tiers import UnknownSettings
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.drawn_faces import DrawnFace, photo
from tests.fakes.web_tier import FakeWebTier, answers, picture, running

URL = "http://facerec.test"
DOCUMENT = json.loads((Path(__file__).parents[4] / "docs" / "openapi.json").read_text())


class ApplicationPool(urllib3.PoolManager):
    """Passes requests to the application, without a socket."""

    def __init__(self, tier: FakeWebTier) -> None:
        super().__init__()
        self._client = tier.app.test_client()

    def request(self, method: str, url: str, **options: Any) -> Any:  # type: ignore[override] # the arguments in use
        """Answer as a server would."""
        headers, body = dict(options["headers"]), options.get("body", b"")
        if "fields" in options:
            body, headers["Content-Type"] = encode_multipart_formdata(options["fields"])
        data = body if isinstance(body, bytes) else body.read()
        reply = self._client.open(url.removeprefix(URL), method=method, data=data, headers=headers)
        return urllib3.HTTPResponse(body=reply.data, status=reply.status_code, headers=dict(reply.headers))


Step = Exception | tuple[int, Mapping[str, str], bytes]


class ScriptedPool(urllib3.PoolManager):
    """Answers with the steps of a script, and keeps what it was sent."""

    def __init__(self, *steps: Step) -> None:
        super().__init__()
        self._steps = list(steps)
        self.sent: list[tuple[str, str, bytes]] = []

    def request(self, method: str, url: str, **options: Any) -> Any:  # type: ignore[override] # the arguments in use
        """Answer with the next step."""
        body = options.get("body", b"")
        self.sent.append((method, url, body if isinstance(body, bytes) else body.read()))
        step = self._steps.pop(0)
        if isinstance(step, Exception):
            raise step
        status, headers, text = step
        return urllib3.HTTPResponse(body=text, status=status, headers=headers)


class Time:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Pass this time at once."""
        self.slept.append(seconds)
        self.now += seconds


def scripted(*steps: Step, retry_seconds: float = 60) -> tuple[Client, ScriptedPool, Time]:
    """A client whose server answers with these steps."""
    pool, time = ScriptedPool(*steps), Time()
    client = Client(URL, "secret", retry_seconds=retry_seconds, pool=pool, sleep=time.sleep, clock=lambda: time.now)
    return client, pool, time


def broken(kind: type[Exception]) -> Exception:
    """An error of urllib3."""
    if kind is ReadTimeoutError:
        return ReadTimeoutError(urllib3.HTTPConnectionPool("facerec.test"), "/", "timed out")
    if kind is NewConnectionError:
        return NewConnectionError(urllib3.connection.HTTPConnection("facerec.test"), "refused")
    return kind("reset")


LINE: Step = (200, {}, b"a.jpg: face detected - Ada\n")
BUSY: Step = (503, {"Retry-After": "7"}, b"too many uploads are waiting already: send the picture again")


@pytest.fixture
def tier() -> Iterator[FakeWebTier]:
    """An open web tier with a worker and a feeder of jobs."""
    with running(FakeWebTier(working=True)) as started:
        started.feeder.start()
        yield started
        started.feeder.stop()


@pytest.fixture
def client(tier: FakeWebTier) -> Iterator[Client]:
    """Its client."""
    with Client(URL, pool=ApplicationPool(tier)) as made:
        yield made


def test_photos_are_recognised_compared_and_verified(client: Client, tmp_path: Path) -> None:
    """Given as bytes or as the path of a file."""
    enrolled = client.photos.add("Ada Lovelace", photo("Ada"))
    file = tmp_path / "two.jpg"
    file.write_bytes(photo("Grace", DrawnFace("Ada", side=200)))
    found = client.recognise(file, nearest=1)
    assert (found.outcome, found.filename, len(found.faces)) == (Outcome.UNKNOWN, "two.jpg", 2)
    assert found.faces[1].matches[0].identity == "Ada Lovelace"
    assert [face.primary for face in found.faces] == [True, False]
    assert client.result(found.request_id) == found
    assert len(client.detect(str(file)).faces) == 2
    assert client.compare(photo("Ada"), photo("Grace", "Ada")).faces[1].similarity == pytest.approx(1, abs=0.001)
    assert client.verify(photo("Ada"), "Ada Lovelace").faces[0].similarity == pytest.approx(1, abs=0.001)
    assert enrolled.id is not None
    assert client.photos.verify(enrolled.id, photo("Grace")).faces[0].similarity == pytest.approx(0, abs=0.25)
    assert client.upload(photo("Ada"), filename="ada.jpg") == "ada.jpg: face detected - Ada Lovelace"


def test_people_are_managed(client: Client) -> None:
    """Listed, added, renamed, merged, un-merged and removed, with names that a path must escape."""
    client.people.add("Grace/Hopper #1?")
    assert client.people.show("grace/hopper #1?").photos == 0
    client.photos.add("Ada", photo("Ada"))
    client.people.rename("Ada", "Ada Lovelace")
    client.photos.add("A. L.", photo("Ada", take=1))
    assert client.people.merge("A. L.", "Ada Lovelace").photos == 1
    assert [(each.name, each.photos) for each in client.people.list()] == [("Ada Lovelace", 2), ("Grace/Hopper #1?", 0)]
    assert client.people.unmerge("A. L.").source == "A. L."
    assert len([*client.photos.list("Ada Lovelace")]) == 1
    begun = client.people.remove("A. L.")
    assert client.erasure(begun.erasure_id).erasure_id == begun.erasure_id
    with pytest.raises(NotFound, match="signs no receipts"):
        client.receipt(begun.erasure_id)
    with pytest.raises(NotFound, match="nobody is enrolled"):
        client.people.show("A. L.")
    with pytest.raises(Conflict):
        client.people.add("ada lovelace")


def test_photo_is_enrolled_read_and_removed(client: Client) -> None:
    """The same one again is no error, and what cannot be enrolled is one with its reason."""
    body = photo("Ada")
    first = client.photos.add("Ada", body, filename="ada.jpg")
    assert first.status == "enrolled"
    assert client.photos.add("Ada", body).status == "duplicate"
    with pytest.raises(NotEnrolled) as other:
        client.photos.add("Grace", body)
    assert (other.value.status, other.value.enrolment.enrolled_for) == (409, "Ada")
    with pytest.raises(NotEnrolled) as faceless:
        client.photos.add("Grace", picture())
    assert (faceless.value.status, faceless.value.enrolment.status) == (422, "no_face")
    assert first.id is not None
    assert client.photos.get(first.id) == body
    client.photos.remove(first.id)
    with pytest.raises(NotFound):
        client.photos.get(first.id)


def test_face_of_an_earlier_request_is_not_a_person(client: Client) -> None:
    """Nor is one of a photo that is sent."""
    client.photos.add("Ada", photo("Ada"))
    alike = photo("Ada", take=1)
    found = client.recognise(alike)
    assert found.result == "Ada"
    assert client.people.reject("Ada", request_id=found.request_id).face == 0
    assert client.recognise(alike).result == "Unknown"
    with pytest.raises(NotDone, match="face"):
        client.people.reject("Ada", photo("Ada", take=2), face=3)


def test_job_is_created_followed_and_read(client: Client, tmp_path: Path) -> None:
    """From files, whose folders are kept, and from a zip; the same key gives the same job."""
    (tmp_path / "Ada").mkdir()
    for name in ("Ada/1.jpg", "Ada/notes.txt"):
        (tmp_path / name).write_bytes(photo("Ada") if name.endswith("jpg") else b"no picture")
    files = sorted(tmp_path.rglob("*.*"))
    seen: list[JobSummary] = []
    job = client.jobs.create_from_files(files, relative_to=tmp_path, operation="enrol")
    assert client.jobs.wait(job.job_id, seconds=30, progress=seen.append).status is JobStatus.DONE
    assert seen[-1].done == 2
    assert [(file.file, file.status) for file in client.jobs.results(job.job_id)] == [
        ("Ada/1.jpg", FileStatus.DONE),
        ("Ada/notes.txt", FileStatus.SKIPPED),
    ]
    assert client.jobs.report(job.job_id).startswith("index,file,status")
    assert client.jobs.cancel(job.job_id).status is JobStatus.DONE
    again = [client.jobs.create_from_files(files[:1], idempotency_key="k").job_id for _ in range(2)]
    assert again[0] == again[1]
    assert [each.job_id for each in client.jobs.list()] == [again[0], job.job_id]
    with pytest.raises(ApiError, match="SOURCE_BUCKETS"):
        client.jobs.create_from_prefix("a-bucket", "2026/")


def test_unknown_person_is_searched_promoted_and_removed() -> None:
    """Where the collection keeps unknown people."""
    settings = Settings(unknown=UnknownSettings(collections=("default",)))
    with running(FakeWebTier(settings, working=True)) as tier, Client(URL, pool=ApplicationPool(tier)) as client:
        ids = []
        for name in ("Ada", "Grace"):
            seen = client.recognise(photo(name)).faces[0].unknown
            assert seen is not None
            ids.append(seen.unknown_id)
        (found,) = client.unknown.search(photo("Ada", take=1)).faces
        assert found.unknown is not None
        assert found.unknown.unknown_id == ids[0]
        assert sorted(each.unknown_id for each in client.unknown.list()) == sorted(ids)
        assert client.unknown.show(ids[1]).faces == 1
        assert client.unknown.promote(ids[0], "Ada Lovelace").name == "Ada Lovelace"
        assert client.recognise(photo("Ada", take=2)).result == "Ada Lovelace"
        assert client.unknown.remove(ids[1]).faces == 1
        with pytest.raises(NotFound):
            client.unknown.show(ids[1])


def test_result_that_comes_late_is_waited_for() -> None:
    """The server says where it will be, and the client asks there."""
    time = Time()

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if len(time.slept) == 3:
            [request] = web.tasks.await_count(1)
            web.work(request, answers("Jane")(request))

    with running(FakeWebTier()) as web:
        web.waiters.give_up()
        client = Client(URL, pool=ApplicationPool(web), sleep=sleep, clock=lambda: time.now)
        assert client.recognise(picture()).result == "Jane"
        assert len(time.slept) == 3


def test_enrolment_that_is_answered_late_has_the_same_report() -> None:
    """Also one that failed, and a refusal."""
    with running(FakeWebTier(working=True)) as tier:
        tier.waiters.give_up()
        client = Client(URL, pool=ApplicationPool(tier))
        body = photo("Ada")
        enrolled = client.photos.add("Ada", body)
        assert (enrolled.status, enrolled.name) == ("enrolled", "Ada")
        assert enrolled.id is not None
        assert client.photos.get(enrolled.id) == body
        with pytest.raises(NotEnrolled) as other:
            client.photos.add("Grace", body)
        assert (other.value.status, other.value.enrolment.enrolled_for) == (409, "Ada")
        assert client.people.reject("Ada", photo("Grace")).name == "Ada"
        with pytest.raises(NotFound, match="no such person"):
            client.verify(body, "Zoe")


def test_late_result_is_given_up_after_the_timeout() -> None:
    """The error has the id under which it will be found."""
    request_id = UUID(int=5)
    pending: Step = (202, {}, json.dumps({"request_id": str(request_id), "status": "pending"}).encode())
    client, pool, time = scripted(*[pending] * 100)
    with pytest.raises(StillPending) as late:
        client.recognise(b"photo")
    assert late.value.request_id == request_id
    assert 190 < time.now <= 200
    assert {url for _, url, _ in pool.sent[1:]} == {f"{URL}/api/v1/results/{request_id}"}


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again_when_it_says(status: int) -> None:
    """After `Retry-After`, with jitter."""
    client, pool, time = scripted((status, {"Retry-After": "7"}, b"busy"), LINE)
    assert client.upload(b"photo", filename="a.jpg") == "a.jpg: face detected - Ada"
    assert len(pool.sent) == 2
    assert 7 <= time.slept[0] <= 8


def test_retries_end_with_the_reason_of_the_server() -> None:
    """When the next one would begin too late."""
    client, pool, time = scripted(*[BUSY] * 20, retry_seconds=30)
    with pytest.raises(Unavailable, match="too many uploads") as busy:
        client.upload(b"photo")
    assert busy.value.status == 503
    assert len(pool.sent) in {4, 5}
    assert time.now <= 30


def test_waits_double_without_advice() -> None:
    """From half a second on, each less up to half of jitter."""
    client, _, time = scripted(*[(503, {}, b"busy")] * 4, LINE)
    client.upload(b"photo")
    assert all(wait / 2 <= slept <= wait for slept, wait in zip(time.slept, [0.5, 1, 2, 4], strict=True))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, ApiError),
        (401, Forbidden),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (413, InvalidPhoto),
        (415, InvalidPhoto),
        (422, NotDone),
        (500, ApiError),
        (501, NotDone),
    ],
)
def test_errors_are_raised_at_once(status: int, error: type[ApiError]) -> None:
    """With what the server said, and the id to report."""
    body = json.dumps({"message": "do this", "code": 28}).encode()
    client, pool, time = scripted((status, {"X-Request-Id": "r-1"}, body))
    with pytest.raises(error, match=r"^do this$") as raised:
        client.recognise(b"photo")
    assert type(raised.value) is error
    assert (raised.value.status, raised.value.code, raised.value.request_id) == (status, 28, "r-1")
    assert (len(pool.sent), time.slept) == (1, [])


def test_error_page_of_a_proxy_is_one_sentence() -> None:
    """Its markup is of no use."""
    client, _, _ = scripted((502, {}, b"<html>\n<h1>Bad gateway</h1></html>"))
    with pytest.raises(ApiError, match=r"^the server answered with status 502$"):
        client.recognise(b"photo")


@pytest.mark.parametrize("kind", [NewConnectionError, ProtocolError])
def test_connection_that_fails_is_made_again(kind: type[Exception]) -> None:
    """A photo may be sent twice."""
    client, pool, _ = scripted(broken(kind), LINE)
    client.upload(b"photo")
    assert len(pool.sent) == 2


def test_server_out_of_reach_is_named() -> None:
    """After some seconds, in which it may have restarted; a wrong address costs no minutes."""
    client, pool, time = scripted(*[broken(NewConnectionError) for _ in range(30)], retry_seconds=300)
    with pytest.raises(Unreachable, match=r"http://facerec\.test cannot be reached") as error:
        client.upload(b"photo")
    assert not error.value.connected
    assert len(pool.sent) == 5
    assert 3 < time.now < 8


def test_photo_that_the_server_hangs_up_on_costs_three_connections() -> None:
    """Such as one that is far too large."""
    client, pool, _ = scripted(*[broken(ProtocolError) for _ in range(10)])
    with pytest.raises(Unreachable, match="closed the connection"):
        client.upload(b"photo")
    assert len(pool.sent) == 3


def test_time_limit_is_not_waited_for_twice() -> None:
    """It is the caller's."""
    client, pool, _ = scripted(broken(ReadTimeoutError), LINE)
    with pytest.raises(Unreachable, match="has not answered within 200 s"):
        client.upload(b"photo")
    assert len(pool.sent) == 1


CHANGES: dict[str, Callable[[Client], object]] = {
    "rename": lambda client: client.people.rename("a", "b"),
    "merge": lambda client: client.people.merge("a", "b"),
    "unmerge": lambda client: client.people.unmerge("a"),
    "remove": lambda client: client.people.remove("a"),
    "add": lambda client: client.people.add("a"),
    "promote": lambda client: client.unknown.promote("unknown-1", "a"),
    "forget": lambda client: client.unknown.remove("unknown-1"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_that_may_have_been_made_is_not_repeated(change: str) -> None:
    """The second one would find nothing to change, and hide the success of the first."""
    client, pool, _ = scripted(broken(ProtocolError), LINE)
    with pytest.raises(Unreachable):
        CHANGES[change](client)
    assert len(pool.sent) == 1


def test_body_of_a_job_is_sent_whole_again(tmp_path: Path) -> None:
    """The file was read to its end by the first attempt."""
    (tmp_path / "photos.zip").write_bytes(b"PK zip")
    client, pool, _ = scripted(BUSY, (404, {}, b"{}"))
    with pytest.raises(NotFound):
        client.jobs.create_from_zip(tmp_path / "photos.zip")
    assert [body for _, _, body in pool.sent] == [b"PK zip", b"PK zip"]


def test_key_is_sent_and_not_shown() -> None:
    """A key of the wrong scope is refused."""
    key, token = issue("holiday", [Scope.RECOGNISE], now=datetime.now(UTC))
    secret = token.reveal()
    with running(FakeWebTier(answer=answers("Jane"), keys=InMemoryApiKeys(key))) as tier:
        client = Client(URL, secret, pool=ApplicationPool(tier))
        assert client.recognise(picture()).result == "Jane"
        with pytest.raises(Forbidden, match="scope"):
            client.people.add("Ada")
        with pytest.raises(Forbidden, match="API key"):
            Client(URL, pool=ApplicationPool(tier)).recognise(picture())
    assert secret not in f"{client!r} {vars(client)!r} {vars(client.people)!r}"


@pytest.mark.parametrize("url", ["faces.example.org", "ftp://faces", "http://", "http://user:word@faces"])
def test_wrong_address_is_refused(url: str) -> None:
    """In one sentence, without a password."""
    with pytest.raises(ConfigurationError, match="must be like https") as error:
        Client(url)
    assert "word" not in str(error.value)


METHODS = {
    "recognise": "recognise",
    "detect": "detect",
    "compare": "compare",
    "verify": "verify",
    "verify_photo": "photos.verify",
    "get_result": "result",
    "list_people": "people.list",
    "add_person": "people.add",
    "get_person": "people.show",
    "rename_person": "people.rename",
    "remove_person": "people.remove",
    "merge_person": "people.merge",
    "unmerge_person": "people.unmerge",
    "list_photos": "photos.list",
    "add_photo": "photos.add",
    "get_photo": "photos.get",
    "remove_photo": "photos.remove",
    "reject": "people.reject",
    "get_erasure": "erasure",
    "get_receipt": "receipt",
    "list_jobs": "jobs.list",
    "create_job": "jobs.create_from_zip",
    "get_job": "jobs.status",
    "get_job_results": "jobs.results",
    "cancel_job": "jobs.cancel",
    "list_unknown": "unknown.list",
    "get_unknown": "unknown.show",
    "search_unknown": "unknown.search",
    "promote_unknown": "unknown.promote",
    "remove_unknown": "unknown.remove",
}


def test_every_operation_of_the_document_has_a_method() -> None:
    """A new route needs one."""
    operations = {each["operationId"] for path in DOCUMENT["paths"].values() for each in path.values()}
    assert set(METHODS) == operations
    for path in METHODS.values():
        found: Any = Client(URL)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found)


@pytest.mark.parametrize(
    ("model", "schema"),
    [(models.Recognition, "Result"), (models.FoundFace, "ResultFace"), (models.Enrolled, "Enrolled")],
)
def test_fields_are_those_of_the_document(model: type[BaseModel], schema: str) -> None:
    """No field of the server is dropped, or asked for in vain."""
    assert set(model.model_fields) == set(DOCUMENT["components"]["schemas"][schema]["properties"])


def test_client_needs_the_core_alone() -> None:
    """It starts quickly, and runs where no tier is installed."""
    script = "import sys, facerec.client; print(*{'flask', 'boto3', 'botocore', 'numpy', 'celery'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == ""
