"""The view of jobs, without a browser; the jobs themselves are tested in tests/unit/facerec/web/jobs."""

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from facerec.gallery.enrolment import EnrolmentStatus
from facerec.job_records import CallbackState, FileStatus, Job, JobFile, JobStatus
from facerec.messages import Outcome
from facerec.settings import Settings
from facerec.settings.tiers import JobSettings
from facerec.web.pages import jobs as view
from facerec.web.pages.texts import catalogue
from tests.fakes.web_tier import FakeWebTier, answers, picture, running

NOW = datetime.now(UTC)
SCRIPT = {"HX-Request": "true"}


@pytest.fixture
def tier() -> Iterator[FakeWebTier]:
    """A tier whose jobs are not fed."""
    with running(FakeWebTier(Settings(jobs=JobSettings(max_files=3)), answers("Ada"))) as one:
        yield one


@pytest.fixture
def client(tier: FakeWebTier) -> FlaskClient:
    """Its client."""
    return tier.app.test_client()


def _job(tier: FakeWebTier, files: list[JobFile] | None = None, **fields: object) -> Job:
    values = {"source": "files", "total": 8, "status": JobStatus.RUNNING, "started_at": NOW, **fields}
    job = Job.model_validate(
        {"job_id": uuid4(), "owner": "open", "created_at": NOW, "expires_at": NOW + timedelta(days=1), **values}
    )
    tier.jobs.create(job)
    tier.jobs.add_files(job.job_id, files or [], job.expires_at)
    return job


def _rows(count: int, status: FileStatus = FileStatus.DONE, outcome: str | None = "match") -> list[JobFile]:
    return [JobFile(index=n, file=f"{n}.jpg", status=status, outcome=outcome, result="Ada") for n in range(count)]


def test_files_become_a_job_and_its_page_is_named(tier: FakeWebTier, client: FlaskClient) -> None:
    """The same key gives the same job; the options are in the address."""
    addresses = set()
    for _ in range(2):
        reply = client.post(
            "/jobs?operation=enrol&person=Ada",
            data={"file": [(io.BytesIO(picture()), "Ada/1.jpg")]},
            headers={"Idempotency-Key": "k", **SCRIPT},
        )
        assert reply.status_code == 202
        addresses.add(reply.headers["Location"])
    [job] = tier.jobs.every()
    assert addresses == {f"/jobs/{job.job_id}"}
    assert (job.operation, job.person, job.total) == ("enrol", "Ada", 1)
    assert "Ada" in client.get(addresses.pop()).text


@pytest.mark.parametrize(
    ("query", "name", "body", "status", "says"),
    [
        ("", "a.zip", b"no zip", 400, "the zip cannot be read"),
        ("?operation=eat", "a.jpg", picture(), 400, "operation"),
        ("?operation=enrol&person=Unknown", "a.jpg", picture(), 400, "Unknown"),
        ("?speed=9", "a.jpg", picture(), 400, "speed"),
    ],
)
def test_refusal_of_a_job_is_a_sentence(
    tier: FakeWebTier, client: FlaskClient, query: str, name: str, body: bytes, status: int, says: str
) -> None:
    """The script shows it next to the form."""
    reply = client.post(f"/jobs{query}", data={"file": [(io.BytesIO(body), name)]}, headers=SCRIPT)
    assert (reply.status_code, reply.mimetype, says in reply.text) == (status, "text/plain", True), reply.text
    assert list(tier.jobs.every()) == []


def test_too_many_files_are_refused(client: FlaskClient) -> None:
    """With the most of one job."""
    files = [(io.BytesIO(picture()), f"{n}.jpg") for n in range(4)]
    reply = client.post("/jobs", data={"file": files}, headers=SCRIPT)
    assert (reply.status_code, "more than 3 files" in reply.text) == (413, True)


@pytest.mark.parametrize("path", ["no-uuid", "00000000-0000-4000-8000-000000000000"])
def test_unknown_job_is_a_page(client: FlaskClient, path: str) -> None:
    """Also for its report and its cancellation."""
    for reply in (
        client.get(f"/jobs/{path}"),
        client.get(f"/jobs/{path}/results"),
        client.post(f"/jobs/{path}/cancel"),
    ):
        assert (reply.status_code, reply.mimetype) == (404, "text/html")


def test_files_are_paged_and_filtered(tier: FakeWebTier, client: FlaskClient) -> None:
    """A hundred at a time; a filter counts those of one outcome."""
    files = _rows(250)
    files[7] = JobFile(index=7, file="seven.txt", status=FileStatus.SKIPPED, detail="it is empty")
    job = _job(
        tier, files, status=JobStatus.DONE, total=250, counts={"done": 249, "skipped": 1}, outcomes={"match": 249}
    )
    path = f"/jobs/{job.job_id}"
    first = client.get(path).text
    assert (first.count('scope="row"'), "99.jpg" in first, "100.jpg" in first) == (100, True, False)
    assert f'href="{path}?after=99#job-files"' in first
    last = client.get(f"{path}?after=199").text
    assert (last.count('scope="row"'), "249.jpg" in last, 'id="job-next"' in last) == (50, True, False)
    skipped = client.get(f"{path}?outcome=skipped").text
    assert (skipped.count('scope="row"'), "seven.txt" in skipped, "it is empty" in skipped) == (1, True, True)
    assert client.get(f"{path}?after=x").status_code == 400


def test_person_of_a_job_is_looked_for_in_its_collection(tier: FakeWebTier, client: FlaskClient) -> None:
    """The list of jobs has those of other collections, too."""
    job = _job(tier, _rows(1), collection="staff")
    [link] = re.findall(r'<a href="(/people[^"]*)">Ada</a>', client.get(f"/jobs/{job.job_id}").text)
    assert link == "/people?q=Ada&amp;collection=staff"
    job = _job(tier, _rows(1))
    assert '<a href="/people?q=Ada">Ada</a>' in client.get(f"/jobs/{job.job_id}").text


def test_running_job_is_read_again_and_an_ended_one_is_not(tier: FakeWebTier, client: FlaskClient) -> None:
    """On its own page and in the list; a full page of files is not read again with it."""
    few = _job(tier, _rows(3), counts={"done": 3}, outcomes={"match": 3})
    page = client.get(f"/jobs/{few.job_id}").text
    assert f'hx-get="/jobs/{few.job_id}"' in page
    assert re.search(r"about <data[^>]*>\d+</data> \w+ left", page)
    assert 'hx-get="/jobs"' in client.get("/jobs").text
    many = _job(tier, _rows(101), total=500, counts={"done": 101}, outcomes={"match": 101})
    assert f'hx-get="/jobs/{many.job_id}?rows=stay"' in client.get(f"/jobs/{many.job_id}").text
    assert 'id="job-rows"' not in client.get(f"/jobs/{many.job_id}?rows=stay").text
    for job in (few, many):
        tier.jobs.put(job.next(status=JobStatus.DONE, ended_at=NOW))
        page = client.get(f"/jobs/{job.job_id}?rows=stay").text
        assert ("hx-get" in page, 'id="job-rows"' in page) == (False, True)
    assert "hx-get" not in client.get("/jobs").text


def test_cancellation_is_shown_at_once(tier: FakeWebTier, client: FlaskClient) -> None:
    """The button to cancel is gone."""
    job = _job(tier)
    assert 'id="job-cancel"' in client.get(f"/jobs/{job.job_id}").text
    page = client.post(f"/jobs/{job.job_id}/cancel").text
    assert ('id="job-cancel"' in page, "Being cancelled" in page) == (False, True)
    kept = tier.jobs.job(job.job_id)
    assert kept is not None
    assert kept.cancel_requested


def test_problem_and_callback_of_a_job_are_shown(tier: FakeWebTier, client: FlaskClient) -> None:
    """With the reason, as it is; an address is no markup."""
    url = "https://example.com/<b>"
    for state, says in (
        (CallbackState(url=url), "sent when the job has ended"),
        (CallbackState(url=url, due_at=NOW, problem="it answered 500"), "because it answered 500"),
        (CallbackState(url=url, problem="it is no public address"), "given up, because it is no public address"),
        (CallbackState(url=url, delivered_at=NOW), "delivered"),
    ):
        job = _job(tier, callback=state, source="prefix", bucket="photos", total=None, problem="a bucket is unreadable")
        page = client.get(f"/jobs/{job.job_id}").text
        assert says in page
        assert "a bucket is unreadable" in page
        assert "https://example.com/&lt;b&gt;" in page
        assert "Recognise the files of photos" in page


def test_downloads_are_the_reports_of_the_api(tier: FakeWebTier, client: FlaskClient) -> None:
    """Both forms, as files."""
    job = _job(tier, _rows(2))
    for form in ("csv", "jsonl"):
        own = client.get(f"/jobs/{job.job_id}/results?format={form}")
        api = client.get(f"/api/v1/jobs/{job.job_id}/results?format={form}")
        assert (own.text, own.headers["Content-Disposition"]) == (api.text, api.headers["Content-Disposition"])
    assert client.get(f"/jobs/{job.job_id}/results?format=xml").status_code == 400


def test_groups_count_each_file_once(tier: FakeWebTier) -> None:
    """By its outcome, or by its status if it has none."""
    job = _job(
        tier,
        counts={"done": 5, "failed": 4, "skipped": 2, "cancelled": 1},
        outcomes={"no_face": 2, "enrolled": 5, "failed": 1},
        total=12,
    )
    assert view.groups_of(job) == {"enrolled": 5, "no_face": 2, "failed": 2, "skipped": 2, "cancelled": 1}


def test_every_outcome_of_a_file_has_a_text() -> None:
    """Of recognition, of enrolment, and without a result."""
    groups = {*Outcome, *EnrolmentStatus, *FileStatus}
    assert {f"jobs.outcome.{group}" for group in groups} <= catalogue().keys()
    assert {f"jobs.status.{status}" for status in (*JobStatus, "cancelling")} <= catalogue().keys()
