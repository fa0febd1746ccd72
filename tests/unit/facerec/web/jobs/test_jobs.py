"""Jobs over the API, from the call to the report, on a web tier of fakes."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from facerec.api_keys import Scope, issue
from facerec.callbacks import CallbackFailed, CallbackRefused, owner_secret
from facerec.errors import Transient
from facerec.job_records import FileStatus, JobStatus
from facerec.messages import Outcome, RecognitionRequest, RecognitionResult
from facerec.settings import Settings
from facerec.settings.tiers import CallbackSettings, JobSettings, WebSettings
from facerec.web.jobs import feeder as feeding
from facerec.web.jobs.files import file_request_id
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.clock import Clock
from tests.fakes.drawn_faces import photo
from tests.fakes.web_tier import answers, picture, result_for
from tests.unit.facerec.web.jobs.conftest import Fed, job_id_of, zipped

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_files_of_a_form_become_a_report(fed: Fed) -> None:
    """One row for each file, in the sequence of the form; what is no picture is skipped with the reason."""
    tier = fed()
    created = tier.create("one.jpg", "folder/two.jpg", "one.jpg")
    assert created.headers["Location"] == f"/api/v1/jobs/{job_id_of(created)}"
    assert created.json is not None
    assert (created.json["status"], created.json["total"]) == ("queued", 3)
    job, files = tier.ended(created)
    assert (job.status, job.counts, job.outcomes) == (JobStatus.DONE, {"done": 3}, {"match": 3})
    assert [(file.index, file.file, file.result) for file in files] == [
        (0, "one.jpg", "Ada"),
        (1, "folder/two.jpg", "Ada"),
        (2, "one.jpg", "Ada"),
    ]
    whole = tier.get(f"/api/v1/results/{files[1].request_id}")
    assert whole.json is not None
    assert (whole.json["result"], whole.json["filename"]) == ("Ada", "two.jpg")
    shown = tier.get(f"/api/v1/jobs/{job.job_id}").json
    assert shown is not None
    assert (shown["status"], shown["done"], shown["counts"], shown["seconds_left"]) == ("done", 3, {"done": 3}, None)


def test_what_is_no_picture_is_skipped_with_the_reason(fed: Fed) -> None:
    """And the others are recognised."""
    tier = fed()
    body = zipped(
        **{
            "1.jpg": picture(),
            "notes.txt": b"no picture",
            "empty.jpg": b"",
            "inner.zip": zipped(a=b"x"),
            "../../up.jpg": picture(),
        }
    )
    job, files = tier.ended(tier.create_from_zip(body))
    assert job.counts == {"done": 1, "skipped": 4}
    details = {file.file: (file.status, file.detail or "") for file in files}
    assert details["1.jpg"] == (FileStatus.DONE, "")
    assert "JPEG" in details["notes.txt"][1]
    assert "zip within the zip" in details["inner.zip"][1]
    assert "out of the zip" in details["../../up.jpg"][1]
    assert all(status is FileStatus.SKIPPED for name, (status, _) in details.items() if name != "1.jpg")
    tier2 = fed()
    _, [file] = tier2.ended(tier2.create("photo.jpg", body=b"no picture"))
    assert (file.status, "JPEG" in str(file.detail)) == (FileStatus.SKIPPED, True)


def test_zip_in_a_form_is_a_zip(fed: Fed) -> None:
    """By the name of its file."""
    tier = fed()
    _, files = tier.ended(tier.create("holiday.zip", body=zipped(**{"a/1.jpg": picture(), "a/2.jpg": picture()})))
    assert [file.file for file in files] == ["a/1.jpg", "a/2.jpg"]


def test_source_is_removed_at_the_end(fed: Fed) -> None:
    """The uploaded zip holds photos of people."""
    tier = fed()
    job, _ = tier.ended(tier.create_from_zip(zipped(a=picture())))
    tier.tier.feeder.stop()  # it removes the source after the job's record says that it has ended
    assert tier.tier.store.keys(tier.tier.settings.input_bucket, f"jobs/{job.job_id}/") == []


def test_prefix_of_an_allowed_bucket_is_a_job(fed: Fed) -> None:
    """Every object with the prefix; other buckets are refused alike, whether or not they exist."""
    tier = fed(Settings(jobs=JobSettings(source_buckets=("photos",), max_files=20)))
    for key in ("people/Ada/1.jpg", "people/Ada/2.jpg", "people/", "other/3.jpg"):
        tier.tier.store.put("photos", key, picture(), "image/jpeg")
    created = tier.client.post("/api/v1/jobs", json={"bucket": "photos", "prefix": "people/"})
    job, files = tier.ended(created)
    assert (job.total, [file.file for file in files]) == (2, ["people/Ada/1.jpg", "people/Ada/2.jpg"])
    for bucket in ("nobodys", tier.tier.settings.input_bucket):
        refused = tier.client.post("/api/v1/jobs", json={"bucket": bucket})
        assert (refused.status_code, "SOURCE_BUCKETS" in refused.text) == (403, True)


def test_prefix_with_too_many_objects_fails(fed: Fed) -> None:
    """The job says so; nothing is sent."""
    tier = fed(Settings(jobs=JobSettings(source_buckets=("photos",), max_files=2)))
    for number in range(3):
        tier.tier.store.put("photos", f"{number}.jpg", picture(), "image/jpeg")
    job, files = tier.ended(tier.client.post("/api/v1/jobs", json={"bucket": "photos"}))
    assert (job.status, files, tier.tier.tasks.requests) == (JobStatus.FAILED, [], [])
    assert "more than 2 objects" in str(job.problem)


def test_window_bounds_what_is_in_work(fed: Fed) -> None:
    """Uploads of others are not stuck behind a large job."""
    tier = fed(answer=None)
    tier.create(*(f"{number}.jpg" for number in range(10)))
    first = tier.tier.tasks.await_count(4)
    assert len(tier.tier.tasks.requests) == 4
    tier.tier.work(first[0], result_for(first[0], "Ada"))
    assert len(tier.tier.tasks.await_count(5)) == 5


def test_cancelled_job_ends_what_is_in_work_and_sends_no_more(fed: Fed) -> None:
    """Each file that was not sent is reported as cancelled."""
    tier = fed(answer=None)
    created = tier.create(*(f"{number}.jpg" for number in range(10)))
    in_work = tier.tier.tasks.await_count(4)
    path = f"/api/v1/jobs/{job_id_of(created)}"
    cancelled = tier.client.delete(path)
    assert cancelled.json is not None
    assert (cancelled.status_code, cancelled.json["cancelling"]) == (202, True)
    tier.tier.jobs.await_files(job_id_of(created), 6)
    for request in in_work:
        tier.tier.work(request, result_for(request, "Ada"))
    job, files = tier.ended(created)
    assert (job.status, job.counts) == (JobStatus.CANCELLED, {"done": 4, "cancelled": 6})
    assert [file.status for file in files] == ["done"] * 4 + ["cancelled"] * 6
    again = tier.client.delete(path)
    assert again.json is not None
    assert (again.status_code, again.json["status"]) == (202, "cancelled")


def test_enrolment_takes_the_person_from_the_folder(fed: Fed) -> None:
    """A file without one is skipped; the query may name the person of all files instead."""
    tier = fed(answer=answers("Ada"))
    _, files = tier.ended(
        tier.create_from_zip(
            zipped(**{"people/Ada/1.jpg": picture(), "2.jpg": picture()}), "?operation=enrol&force=true"
        )
    )
    assert [(file.person, file.status) for file in files] == [("Ada", "done"), (None, "skipped")]
    [request] = tier.tier.tasks.requests
    assert request.operation.model_dump() | {"identity": "Ada", "force": True} == request.operation.model_dump()
    tier.ended(tier.create("x.jpg", query="?operation=enrol&person=Grace"))
    operation = tier.tier.tasks.requests[-1].operation
    assert (operation.kind, getattr(operation, "identity", None)) == ("enrol", "Grace")


def test_bulk_enrolment_reports_each_photo(fed: Fed) -> None:
    """Done by the real use case: the enrolled ones, and the others with the reason; then all are known."""
    tier = fed(answer=None, working=True)
    members = {f"{name}/{number}.jpg": photo(name, take=number) for name in ("Ada", "Grace") for number in (1, 2)}
    members |= {
        "Ada/group.jpg": photo("Ada", "Grace", take=3),
        "Ada/none.jpg": photo(),
        "Ada/again.jpg": members["Ada/1.jpg"],
    }
    job, files = tier.ended(tier.create_from_zip(zipped(**members), "?operation=enrol"))
    rows = {file.file: file for file in files}
    assert (job.status, job.counts) == (JobStatus.DONE, {"done": 5, "failed": 2})
    # Of two copies, whichever is sent first is enrolled.
    assert job.outcomes == {"enrolled": 4, "duplicate": 1, "several_faces": 1, "no_face": 1}
    assert (rows["Ada/group.jpg"].outcome, rows["Ada/none.jpg"].outcome) == ("several_faces", "no_face")
    assert "face" in str(rows["Ada/none.jpg"].detail)
    assert sorted(set(tier.tier.templates.owners("default").values())) == ["Ada", "Grace"]
    _, [known] = tier.ended(tier.create("probe.jpg", body=photo("Grace", take=9)))
    assert known.result == "Grace"


@pytest.mark.parametrize("name", ["Unknown", "%20", "a%0Ab", "x" * 129])
def test_name_that_nobody_may_have_is_refused_at_once(fed: Fed, name: str) -> None:
    """Before the files are sent, none of which could be enrolled."""
    tier = fed()
    refused = tier.create("1.jpg", query=f"?operation=enrol&person={name}")
    assert (refused.status_code, tier.tier.store.keys(tier.tier.settings.input_bucket, "")) == (400, [])


def test_same_idempotency_key_gives_the_same_job(fed: Fed) -> None:
    """And nothing is done twice."""
    tier = fed()
    first = tier.create("1.jpg", Idempotency_Key="order 7")
    tier.ended(first)
    again = tier.create("2.jpg", Idempotency_Key="order 7")
    assert (again.status_code, job_id_of(again)) == (202, job_id_of(first))
    assert len(tier.tier.tasks.requests) == 1
    assert job_id_of(tier.create("3.jpg", Idempotency_Key="order 8")) != job_id_of(first)
    assert tier.create("4.jpg", Idempotency_Key="k" * 256).status_code == 400


def test_idempotency_key_of_a_job_with_other_options_is_refused(fed: Fed) -> None:
    """Its client would take the results of that job for its own."""
    tier = fed()
    first = tier.create("1.jpg", Idempotency_Key="order 7")
    refused = tier.create("1.jpg", query="?threshold=0.9", Idempotency_Key="order 7")
    assert refused.status_code == 409
    assert str(job_id_of(first)) in refused.text
    assert "threshold" in refused.text


def test_report_has_both_forms(fed: Fed) -> None:
    """JSON Lines and CSV, with the same rows."""
    tier = fed()
    created = tier.create(*(f"{number}.jpg" for number in range(3)))
    tier.ended(created)
    path = f"/api/v1/jobs/{job_id_of(created)}/results"
    lines = tier.get(path)
    assert lines.content_type.startswith("application/jsonl")
    assert [json.loads(line)["file"] for line in lines.text.splitlines()] == ["0.jpg", "1.jpg", "2.jpg"]
    table = tier.get(f"{path}?format=csv")
    assert table.content_type.startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(table.text)))
    assert [(row["index"], row["file"], row["status"], row["result"]) for row in rows] == [
        (str(number), f"{number}.jpg", "done", "Ada") for number in range(3)
    ]
    assert tier.get(f"{path}?format=xml").status_code == 400


def test_report_has_no_cell_that_a_spreadsheet_would_run(fed: Fed) -> None:
    """An apostrophe goes before it; without that one it is the file's name again. JSON Lines have the bare name."""
    tier = fed()
    names = ["=HYPERLINK(1).jpg", "+1.jpg", "-1.jpg", "@SUM(1).jpg", "'=1.jpg", "'t Hooft.jpg", "plain.jpg"]
    created = tier.create(*names)
    tier.ended(created)
    path = f"/api/v1/jobs/{job_id_of(created)}/results"
    rows = [row["file"] for row in csv.DictReader(io.StringIO(tier.get(f"{path}?format=csv").text))]
    assert rows == [*(f"'{name}" for name in names[:5]), "'t Hooft.jpg", "plain.jpg"]
    assert [re.sub(r"^'(?='*[=+@\t\r\n-])", "", row) for row in rows] == names  # as docs/jobs.md says
    assert [json.loads(line)["file"] for line in tier.get(path).text.splitlines()] == names


def test_jobs_belong_to_their_key(fed: Fed) -> None:
    """Another key's job is 404, as one that does not exist; admin reads it, and results belong to the key, too."""
    made = [
        issue(name, [scope], now=NOW)
        for name, scope in (("a", Scope.RECOGNISE), ("b", Scope.RECOGNISE), ("c", Scope.ADMIN))
    ]
    keys = InMemoryApiKeys(*(key for key, _ in made))
    own, other, admin = ({"x-api-key": token.reveal()} for _, token in made)
    tier = fed(Settings(web=WebSettings(auth="keys")), keys=keys, headers=own)
    created = tier.create("1.jpg")
    _, [file] = tier.ended(created)
    path = f"/api/v1/jobs/{job_id_of(created)}"
    for reader, status in ((own, 200), (other, 404), (admin, 200), ({}, 401)):
        for read in (path, f"{path}/results", f"/api/v1/results/{file.request_id}"):
            assert tier.client.get(read, headers=reader).status_code == status, (read, reader)
    assert tier.client.delete(path, headers=other).status_code == 404
    assert tier.client.get("/api/v1/jobs", headers=other).json == {"jobs": []}
    listed = tier.client.get("/api/v1/jobs", headers=own).json
    assert listed is not None
    assert [job["job_id"] for job in listed["jobs"]] == [str(job_id_of(created))]
    assert tier.create("1.jpg", query="?operation=enrol&person=Ada").status_code == 403
    assert tier.create("1.jpg", query="?collection=others").status_code == 403
    unknown = tier.client.get(f"/api/v1/jobs/{uuid4()}", headers=own)
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("query", "sent", "status", "says"),
    [
        ("", {"data": b"--x\r\n", "content_type": "multipart/form-data; boundary=x"}, 400, "incomplete"),
        ("", {"data": b"x", "content_type": "multipart/form-data"}, 400, "boundary"),
        ("", {"data": b"--x\r\nno form", "content_type": "multipart/form-data; boundary=x"}, 400, "incomplete"),
        ("", {"data": {"person": "Ada"}, "content_type": "multipart/form-data"}, 400, "query"),
        ("", {"data": b"x", "content_type": "application/octet-stream"}, 415, "application/zip"),
        ("", {"data": b"no zip", "content_type": "application/zip"}, 400, "cannot be read"),
        ("", {"data": zipped(), "content_type": "application/zip"}, 400, "no files"),
        ("", {"json": {"bucket": 7}}, 400, "bucket"),
        ("?operation=eat", {"json": {"bucket": "x"}}, 400, "operation"),
        ("?speed=9", {"json": {"bucket": "x"}}, 400, "speed"),
        ("?callback_url=ftp://x", {"json": {"bucket": "x"}}, 400, "https://"),
    ],
)
def test_wrong_call_is_refused_in_one_sentence(
    fed: Fed, query: str, sent: dict[str, object], status: int, says: str
) -> None:
    """Nothing is kept of it."""
    tier = fed()
    refused = tier.client.post(f"/api/v1/jobs{query}", **sent)
    assert (refused.status_code, says in refused.text) == (status, True), refused.text
    assert tier.tier.jobs.unsettled() == []


def test_too_many_or_too_large_files_are_refused(fed: Fed) -> None:
    """By the number of files, and by the size of the body."""
    tier = fed(Settings(jobs=JobSettings(max_files=2, max_bytes=100_000)))
    assert tier.create("1.jpg", "2.jpg", "3.jpg").status_code == 413
    assert tier.create("1.jpg", body=bytes(200_000)).status_code == 413
    assert tier.create_from_zip(bytes(200_000)).status_code == 413
    assert tier.create_from_zip(zipped(a=b"x", b=b"x", c=b"x")).status_code == 400
    two_zips = {"file": [(io.BytesIO(zipped(a=b"x")), name) for name in ("1.zip", "2.zip")]}
    assert tier.client.post("/api/v1/jobs", data=two_zips).status_code == 400
    mixed = {"file": [(io.BytesIO(zipped(a=b"x")), "1.zip"), (io.BytesIO(picture()), "2.jpg")]}
    assert tier.client.post("/api/v1/jobs", data=mixed).status_code == 400


def test_file_that_is_too_large_is_skipped(fed: Fed) -> None:
    """The others are recognised."""
    tier = fed(Settings(web=WebSettings(max_upload_bytes=1000), jobs=JobSettings(max_files=20)))
    files = [(io.BytesIO(body), name) for name, body in (("small.jpg", picture()), ("large.jpg", bytes(1001)))]
    _, [small, large] = tier.ended(tier.client.post("/api/v1/jobs", data={"file": files}))
    assert (small.status, large.status) == (FileStatus.DONE, FileStatus.SKIPPED)
    assert "larger than" in str(large.detail)


def test_outage_of_the_queue_delays_a_job(fed: Fed) -> None:
    """It goes on where it was."""
    tier = fed()
    tier.tier.tasks.outage = Transient("the queue is unreachable")
    created = tier.create(*(f"{number}.jpg" for number in range(6)))
    assert tier.get(f"/api/v1/jobs/{job_id_of(created)}").status_code == 200
    tier.tier.tasks.outage = None
    job, files = tier.ended(created)
    assert (job.counts, len(files)) == ({"done": 6}, 6)


def test_outage_of_the_table_is_a_503(fed: Fed) -> None:
    """With the time to try again."""
    tier = fed()
    tier.tier.jobs.outage = Transient("the table is unreachable")
    for reply in (tier.create("1.jpg"), tier.get("/api/v1/jobs"), tier.get(f"/api/v1/jobs/{uuid4()}")):
        assert (reply.status_code, "Retry-After" in reply.headers) == (503, True)


def test_process_that_stops_leaves_its_job_to_another(fed: Fed) -> None:
    """Which sends only what has no result; a result whose message went to the first one is found in the store."""
    tier = fed(answer=None)
    created = tier.create(*(f"{number}.jpg" for number in range(6)))
    sent = tier.tier.tasks.await_count(4)
    tier.tier.feeder.stop()
    for request in sent:
        tier.tier.work(request, result_for(request, "Ada"))
    assert tier.tier.inbox_thread.stop(5)  # every message has gone to the first process, and is lost
    tier.tier.inbox_thread.start()
    second = tier.tier.new_feeder()
    second.start()
    try:
        rest = tier.tier.tasks.await_count(6)[4:]
        assert {request.request_id for request in rest}.isdisjoint(request.request_id for request in sent)
        for request in rest:
            tier.tier.work(request, result_for(request, "Grace"))
        job, files = tier.ended(created)
    finally:
        second.stop()
    assert (job.counts, [file.result for file in files]) == ({"done": 6}, ["Ada"] * 4 + ["Grace"] * 2)


def test_job_of_a_dead_process_is_taken_over_after_the_lease(fed: Fed) -> None:
    """Not before, as its record may change."""
    tier = fed(answer=None)
    tier.tier.feeder.stop()
    created = tier.create("1.jpg")
    job = tier.tier.jobs.job(job_id_of(created))
    assert job is not None
    tier.tier.jobs.put(job.next(feeder="a dead process", status=JobStatus.RUNNING, started_at=NOW))
    clock = Clock()
    second = tier.tier.new_feeder(clock=clock)
    try:
        second.look()
        clock.now += feeding.LEASE_SECONDS - 1
        second.look()
        assert tier.tier.tasks.requests == []
        current = tier.tier.jobs.job(job.job_id)
        assert current is not None
        assert current.feeder == "a dead process"
        clock.now += 1.5
        second.look()
        [request] = tier.tier.tasks.await_count(1)
        assert request.request_id == file_request_id(job.owner, job.job_id, 0)
        tier.tier.work(request, result_for(request, "Ada"))
    finally:
        second.stop()


def test_callback_is_signed_for_the_owner(fed: Fed) -> None:
    """With the summary of the job as its body; the job says that it was delivered."""
    tier = fed()
    created = tier.create("1.jpg", query="?callback_url=https://example.com/ended")
    job, _ = tier.ended(created)
    [(url, body, secret)] = tier.tier.callbacks.sent
    assert (url, secret) == ("https://example.com/ended", owner_secret("a secret of sixteen or more", "open"))
    told = json.loads(body)
    assert (told["event"], told["job_id"], told["status"]) == ("job.ended", str(job.job_id), "done")
    assert (told["counts"], told["results_url"]) == ({"done": 1}, f"/api/v1/jobs/{job.job_id}/results")
    assert job.callback is not None
    assert job.callback.delivered_at is not None


def test_failed_callback_is_tried_again_by_whichever_process(fed: Fed) -> None:
    """With a growing pause, which is in the job's record, until it is delivered."""
    tier = fed()
    tier.tier.callbacks.failure = CallbackFailed("the receiver answered with 500")
    created = tier.create("1.jpg", query="?callback_url=https://example.com/ended")
    job = tier.tier.jobs.await_job(
        job_id_of(created), lambda job: job.callback is not None and job.callback.attempts > 0
    )
    tier.tier.feeder.stop()
    assert job.callback is not None
    assert (job.status, job.callback.attempts, job.settled) == (JobStatus.DONE, 1, False)
    assert job.callback.due_at is not None
    assert timedelta(seconds=2) <= job.callback.due_at - datetime.now(UTC) <= timedelta(seconds=5)
    tier.tier.callbacks.failure = None
    second = tier.tier.new_feeder(now=lambda: datetime.now(UTC) + timedelta(seconds=6))
    second.start()
    try:
        settled = tier.tier.jobs.await_settled(job.job_id)
    finally:
        second.stop()
    assert settled.callback is not None
    assert (settled.callback.attempts, settled.callback.problem) == (2, None)
    assert len(tier.tier.callbacks.sent) == 1


def test_callback_is_given_up_in_the_end(fed: Fed) -> None:
    """A refused address at once, a failing one after the hours of the setting; the job says why."""
    tier = fed()
    tier.tier.callbacks.failure = CallbackRefused("it is no public address")
    job, _ = tier.ended(tier.create("1.jpg", query="?callback_url=https://example.com/ended"))
    assert job.callback is not None
    assert (job.callback.problem, job.callback.attempts) == ("it is no public address", 1)
    brief = CallbackSettings.model_validate({"secret": "a secret of sixteen or more", "retry_hours": 1e-9})
    tier = fed(Settings(callbacks=brief))
    tier.tier.callbacks.failure = CallbackFailed("the receiver answered with 500")
    job, _ = tier.ended(tier.create("1.jpg", query="?callback_url=https://example.com/ended"))
    assert job.callback is not None
    assert job.callback.problem == "the receiver answered with 500"


def test_callbacks_are_off_without_a_secret(fed: Fed) -> None:
    """The call is refused: an unsigned message could come from anybody."""
    refused = fed(Settings()).create("1.jpg", query="?callback_url=https://example.com/ended")
    assert (refused.status_code, "FACEREC_CALLBACKS__SECRET" in refused.text) == (400, True)


def test_failure_of_one_file_is_in_its_row(fed: Fed) -> None:
    """The worker's sentence says why; the others are not affected."""

    def answer(request: RecognitionRequest) -> RecognitionResult:
        if request.filename == "bad.jpg":
            return result_for(request, "", outcome=Outcome.FAILED, detail="the engine failed")
        return result_for(request, "Ada")

    tier = fed(answer=answer)
    job, files = tier.ended(tier.create("bad.jpg", "good.jpg"))
    assert (job.status, job.counts) == (JobStatus.DONE, {"failed": 1, "done": 1})
    assert [(file.status, file.detail) for file in files] == [("failed", "the engine failed"), ("done", None)]
