"""One suite for every ledger of erasures and every list of gallery readers: memory and DynamoDB."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from facerec.access_records import AccessRecord
from facerec.aws.clients import Clients
from facerec.aws.dynamodb.accesses import DynamoAccessRecords
from facerec.aws.dynamodb.erasures import DynamoErasureLedger, DynamoGalleryReaders
from facerec.erasure_records import ErasureRecord, Place, ReaderKind, ReaderReport
from facerec.errors import LeaseLost
from facerec.ports import AccessRecords, ErasureLedger, GalleryReaders
from facerec.provision import provisioning
from tests.fakes.erasures import InMemoryAccessRecords, InMemoryErasureLedger, InMemoryGalleryReaders

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)


@dataclass
class Books:
    """Both stores, and the time of the ledger."""

    ledger: ErasureLedger = field(init=False)
    readers: GalleryReaders = field(init=False)
    accesses: AccessRecords = field(init=False)
    seconds: float = 1000.0

    def clock(self) -> float:
        """Return the time."""
        return self.seconds


@pytest.fixture(params=["memory", "ministack", "moto"])
def books(request: pytest.FixtureRequest) -> Books:
    """Each kind in turn, empty."""
    made = Books()
    if request.param == "memory":
        made.ledger, made.readers = InMemoryErasureLedger(made.clock), InMemoryGalleryReaders()
        made.accesses = InMemoryAccessRecords()
        return made
    clients: Clients = request.getfixturevalue(f"{request.param}_clients")
    name = f"test-{uuid.uuid4().hex[:12]}"
    provisioning._table(clients, "PEOPLE_TABLE", name, ("kind", "item"), expiry="expires_at")
    made.ledger, made.readers = (
        DynamoErasureLedger(clients, name, clock=made.clock),
        DynamoGalleryReaders(clients, name),
    )
    made.accesses = DynamoAccessRecords(clients, name, days=90, now=lambda: NOW)
    return made


def record(number: int = 1, **fields: object) -> ErasureRecord:
    """An erasure that has just begun."""
    known = {"collection": "staff", "names": ("Ada",), "template_ids": ("0" * 32,), "by": "0123456789ab"}
    times = {"begun_at": NOW + timedelta(seconds=number), "next_pass_at": NOW}
    return ErasureRecord.model_validate({"erasure_id": f"{number:032x}"} | known | times | fields)


def report(reader_id: str = "i-1:aa/1", **fields: object) -> ReaderReport:
    """The report of a process."""
    known = {"kind": ReaderKind.PROCESS, "where": "i-1 /cache", "collections": {"staff": 7}, "reported_at": NOW}
    return ReaderReport.model_validate({"reader_id": reader_id} | known | fields)


def test_new_ledger_is_empty(books: Books) -> None:
    """Neither open nor complete ones."""
    assert (books.ledger.open(), books.ledger.complete(), books.ledger.get("0" * 32)) == ([], [], None)


def test_open_erasures_come_oldest_first(books: Books) -> None:
    """With every field."""
    for number in (2, 1):
        books.ledger.add(record(number), "first", 60)
    assert books.ledger.open() == [record(1), record(2)]
    assert books.ledger.get(record(2).erasure_id) == record(2)


def test_complete_erasure_leaves_the_open_ones(books: Books) -> None:
    """It is found by its id as before."""
    books.ledger.add(record(), "first", 60)
    done = record(names=(), completed_at=NOW, places=(Place(name="photos", removed=3),))
    books.ledger.save(done, "first", release=True)
    assert (books.ledger.open(), books.ledger.complete()) == ([], [done])
    assert books.ledger.get(done.erasure_id) == done
    assert books.ledger.lease(done.erasure_id, "first", 60) is None


def test_lease_keeps_other_processes_out_until_it_ends(books: Books) -> None:
    """Its holder renews it with each write; a killed one loses it."""
    identifier = record().erasure_id
    books.ledger.add(record(), "first", 60)
    assert books.ledger.lease(identifier, "second", 60) is None
    books.seconds += 50
    books.ledger.save(record(passes=1), "first", seconds=60)
    books.seconds += 50
    assert books.ledger.lease(identifier, "second", 60) is None
    books.seconds += 11
    assert books.ledger.lease(identifier, "second", 60) == record(passes=1)
    with pytest.raises(LeaseLost):
        books.ledger.save(record(passes=2), "first", seconds=60)
    with pytest.raises(LeaseLost):
        books.ledger.save(record(completed_at=NOW), "first", release=True)
    assert books.ledger.get(identifier) == record(passes=1)


def test_released_erasure_can_be_leased_at_once(books: Books) -> None:
    """And its own holder leases it again while it has it."""
    books.ledger.add(record(), "first", 60)
    assert books.ledger.lease(record().erasure_id, "first", 60) is not None
    books.ledger.save(record(), "first", release=True)
    assert books.ledger.lease(record().erasure_id, "second", 60) is not None
    assert books.ledger.lease("f" * 32, "second", 60) is None


def test_reader_replaces_its_report(books: Books) -> None:
    """All others stay; they come by their ids."""
    disk = report("i-1:aa", kind=ReaderKind.DISK, collections={}, clean=False)
    for each in (report(), disk, report(collections={"staff": 9})):
        books.readers.report(each)
    assert books.readers.reports() == [disk, report(collections={"staff": 9})]


def test_forgotten_reader_is_listed_no_more(books: Books) -> None:
    """Forgetting is idempotent."""
    books.readers.report(report())
    for _ in range(2):
        books.readers.forget(report().reader_id)
    assert books.readers.reports() == []


def test_written_off_reader_counts_again_with_its_next_report(books: Books) -> None:
    """The disk was not gone after all."""
    books.readers.report(report())
    assert books.readers.write_off(report().reader_id, "ops")
    assert books.readers.reports() == [report(written_off_by="ops")]
    books.readers.report(report())
    assert books.readers.reports() == [report()]
    assert not books.readers.write_off("nowhere", "ops")


def test_accesses_are_read_from_a_moment_on(books: Books) -> None:
    """In batches of any size, with every field."""
    records = [
        AccessRecord(
            at=NOW - timedelta(seconds=number),
            client="0123456789ab",
            collection="staff",
            operation="enrol",
            request_id=uuid.uuid4(),
            outcome="done",
            faces=2,
            matches=1,
            enrolled=1,
        )
        for number in range(1100)
    ]
    books.accesses.add(records)
    books.accesses.add([])
    found = list(books.accesses.since(NOW - timedelta(seconds=600)))
    assert sorted(found, key=lambda record: record.at) == records[600::-1]
    assert list(books.accesses.since(NOW + timedelta(seconds=1))) == []
