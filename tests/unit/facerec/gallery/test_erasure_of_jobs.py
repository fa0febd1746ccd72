"""The rows of jobs about a person who is erased."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from facerec.erasure_records import ErasureRecord, Place, PlaceState
from facerec.gallery.erasure_steps import JobsStep
from facerec.job_records import FileStatus, Job, JobFile, JobStatus
from tests.fakes.jobs import InMemoryJobs

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def erasure(*, settled: bool = True, everyone: bool = False) -> ErasureRecord:
    """The erasure of Ada, or of the whole collection."""
    record = ErasureRecord(
        erasure_id="0" * 32,
        collection="staff",
        names=("Ada Lovelace",),
        everyone=everyone,
        by="test",
        begun_at=NOW,
        version=7,
        next_pass_at=NOW,
    )
    return record.with_place(Place(name="readers").confirmed(NOW, "readers")) if settled else record


def jobs_of(collection: str) -> tuple[InMemoryJobs, Job]:
    """A store with an ended job of this collection."""
    store = InMemoryJobs()
    job = Job(
        job_id=UUID(int=1),
        owner="open",
        status=JobStatus.DONE,
        source="zip",
        operation="enrol",
        person="Ada Lovelace",
        collection=collection,
        created_at=NOW,
        expires_at=NOW + timedelta(days=7),
    )
    store.create(job)
    people = ("Ada Lovelace", "Grace Hopper", "Nobody")
    rows = [
        JobFile(index=index, file=f"{name}/1.jpg", status=FileStatus.DONE, person=name, outcome="enrolled")
        for index, name in enumerate(people)
    ]
    rows[2] = rows[2].model_copy(update={"look_alikes": ("Ada Lovelace",)})
    store.add_files(job.job_id, rows, job.expires_at)
    return store, job


def run(store: InMemoryJobs, record: ErasureRecord, *, seconds: float = 60) -> list[Place]:
    """One pass of the step, so long after the removal."""
    at = NOW + timedelta(seconds=seconds)
    return list(JobsStep(jobs=store, grace_seconds=20, functions=True, now=lambda: at).run(record))


def test_rows_lose_the_person_and_keep_how_the_file_ended() -> None:
    """Also the path, whose folder is the name, and rows where the person is a look-alike."""
    store, job = jobs_of("staff")
    [place] = run(store, erasure())
    assert (place.state, place.removed) == (PlaceState.CONFIRMED, 2)
    rows = list(store.files(job.job_id))
    assert [row.file for row in rows] == ["(erased)", "Grace Hopper/1.jpg", "(erased)"]
    assert [row.outcome for row in rows] == ["enrolled"] * 3
    changed = store.job(job.job_id)
    assert changed is not None
    assert changed.person is None
    assert "Ada" not in "".join(row.to_json() for row in rows) + changed.to_json()


def test_rows_of_another_collection_stay() -> None:
    """They are about another person of this name."""
    store, job = jobs_of("visitors")
    before = list(store.files(job.job_id))
    [place] = run(store, erasure(everyone=True))
    assert (place.removed, list(store.files(job.job_id))) == (0, before)


def test_rows_of_a_whole_collection_go() -> None:
    """Whoever they are about."""
    store, job = jobs_of("staff")
    [place] = run(store, erasure(everyone=True))
    assert place.removed == 3
    assert {row.file for row in store.files(job.job_id)} == {"(erased)"}


def test_rows_wait_until_nobody_recognises_the_person() -> None:
    """A row could be written afterwards."""
    store, _ = jobs_of("staff")
    assert run(store, erasure(settled=False)) == []
    assert run(store, erasure(), seconds=10) == []
