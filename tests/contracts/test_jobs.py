"""One suite for every store of jobs: memory, and DynamoDB in ministack and in moto."""

import uuid
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from facerec.aws.clients import Clients
from facerec.aws.dynamodb.jobs import DynamoJobs
from facerec.errors import ConfigurationError
from facerec.job_records import CallbackState, FileStatus, Job, JobFile, JobStatus
from facerec.ports import Jobs
from facerec.provision import provisioning
from tests.fakes.jobs import InMemoryJobs

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "ministack", "moto"])
def store(request: pytest.FixtureRequest) -> Jobs:
    """Each kind in turn, empty."""
    if request.param == "memory":
        return InMemoryJobs()
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "JOBS_TABLE", name, ("kind", "item"))
    return DynamoJobs(clients, name)


def make_job(number: int = 1, owner: str = "0123456789ab") -> Job:
    """A job of this owner; a greater number is a later one."""
    created = NOW + timedelta(seconds=number)
    return Job(
        job_id=UUID(int=number),
        owner=owner,
        source="files",
        created_at=created,
        expires_at=created + timedelta(days=8),
        callback=CallbackState(url="https://example.com/ended"),
    )


def make_file(index: int) -> JobFile:
    """A file that ended."""
    return JobFile(index=index, file=f"folder/photo {index}.jpg", status=FileStatus.DONE, outcome="unknown", faces=1)


def test_new_store_has_no_jobs(store: Jobs) -> None:
    """New store has no jobs."""
    assert store.job(UUID(int=1)) is None
    assert store.newest("0123456789ab", 10) == store.unsettled() == []
    assert list(store.files(UUID(int=1))) == []


def test_job_keeps_every_field(store: Jobs) -> None:
    """Through its changes, each of which is read at once."""
    job = make_job()
    assert store.create(job) == store.job(job.job_id) == job
    changed = job.next(status=JobStatus.RUNNING, total=3, counts={"done": 1}, feeder="web-1", started_at=NOW)
    assert store.put(changed)
    assert store.job(job.job_id) == changed


def test_second_of_two_concurrent_changes_fails(store: Jobs) -> None:
    """So that two processes do not both take a job over, and no cancellation is lost."""
    job = store.create(make_job())
    assert store.put(job.next(cancel_requested=True))
    assert not store.put(job.next(feeder="web-1"))
    found = store.job(job.job_id)
    assert found is not None
    assert (found.cancel_requested, found.feeder) == (True, None)
    assert not store.put(make_job(2).next())
    assert not store.put(job.next(status=JobStatus.CANCELLED, callback=None)), "also of the change that settles it"


def test_jobs_of_an_owner_are_listed_newest_first(store: Jobs) -> None:
    """Without those of other owners."""
    for number in (3, 1, 4, 2):
        store.create(make_job(number))
    store.create(make_job(5, owner="another"))
    assert [job.job_id.int for job in store.newest("0123456789ab", 3)] == [4, 3, 2]
    assert sorted(job.job_id.int for job in store.every()) == [1, 2, 3, 4, 5]


def test_same_idempotency_key_gives_the_earlier_job(store: Jobs) -> None:
    """Only to the same owner; other jobs have no key."""
    first = store.create(make_job(1), "order 7")
    assert store.create(make_job(2), "order 7") == first
    assert store.created_with("0123456789ab", "order 7") == first
    assert store.created_with("another", "order 7") is None
    assert store.create(make_job(3, owner="another"), "order 7").job_id.int == 3
    assert store.create(make_job(4)).job_id.int == 4
    assert store.create(make_job(5)).job_id.int == 5
    assert store.job(UUID(int=2)) is None


def test_job_is_unsettled_until_its_callback_is_not_due(store: Jobs) -> None:
    """An ended job with a callback still needs a process."""
    job = store.create(make_job())
    assert store.unsettled() == [job]
    callback = CallbackState(url="https://example.com/ended", due_at=NOW)
    ended = job.next(status=JobStatus.DONE, callback=callback)
    assert store.put(ended)
    assert store.unsettled() == [ended]
    settled = ended.next(callback=callback.model_copy(update={"due_at": None, "delivered_at": NOW}))
    assert store.put(settled)
    assert store.unsettled() == []
    assert store.job(job.job_id) == settled


def test_files_are_read_by_their_places_also_after_one(store: Jobs) -> None:
    """More than one batch; a file that is recorded again is replaced."""
    job = store.create(make_job())
    files = [make_file(index) for index in range(60)]
    store.add_files(job.job_id, files[::-1], job.expires_at)
    again = files[7].model_copy(update={"detail": "again"})
    store.add_files(job.job_id, [again], job.expires_at)
    files[7] = again
    assert list(store.files(job.job_id)) == files
    assert list(store.files(job.job_id, after=57)) == files[58:]
    assert list(store.files(job.job_id, after=0)) == files[1:]


def test_missing_table_is_a_configuration_error(ministack_clients: Clients) -> None:
    """Missing table is a configuration error."""
    with pytest.raises(ConfigurationError, match="provision"):
        DynamoJobs(ministack_clients, "nobodys-table").unsettled()
