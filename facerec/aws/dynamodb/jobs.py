"""Jobs in a DynamoDB table of their own, which removes them when they expire.

The partition of a job has its record and an item for each ended file. More items make it findable: in the partition
of its owner, in those of all jobs and of all unsettled ones, and by its idempotency key.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from facerec.aws.clients import Clients, translated, translated_for_one
from facerec.aws.dynamodb import Table, condition_failed, expiring
from facerec.errors import InvalidMessage, Transient
from facerec.job_records import Job, JobFile

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

log = structlog.get_logger(__name__)

_RECORD, _FILE = "#record", "file#"
_UNSETTLED, _EVERY = "unsettled", "jobs"
_READS_AT_ONCE = 100
_WRITES_AT_ONCE = 25  # items that one BatchWriteItem may put
_LATEST = 10**17  # microseconds since the epoch, far in the future: what is later has a smaller sort key


class DynamoJobs:
    """`Jobs` on DynamoDB: a small write for each change of a record, and a request for every 25 files."""

    def __init__(self, clients: Clients, table: str) -> None:
        self._clients = clients
        self._table = Table(clients, table)

    def create(self, job: Job, idempotency_key: str = "") -> Job:
        """Add the job in one transaction, unless its idempotency key is taken."""
        expires = expiring(job.expires_at)
        made = _LATEST - round(job.created_at.timestamp() * 1_000_000)
        items = [
            self._record_item(job),
            self._table.key(f"owner#{job.owner}", f"{made:017d}#{job.job_id}") | expires,
            self._table.key(_UNSETTLED, str(job.job_id)) | expires,
            self._table.key(_EVERY, str(job.job_id)) | expires,
        ]
        writes: list[TransactWriteItemTypeDef] = [
            {"Put": {"TableName": self._table.name, "Item": item}} for item in items
        ]
        if idempotency_key:
            key = self._idempotency_key(job.owner, idempotency_key)
            item = key | {"job_id": {"S": str(job.job_id)}} | expires
            unless = "attribute_not_exists(job_id)"
            writes.append({"Put": {"TableName": self._table.name, "Item": item, "ConditionExpression": unless}})
        with translated_for_one(f"create job {job.job_id}"):
            try:
                self._clients.dynamodb.transact_write_items(TransactItems=writes)
            except self._clients.dynamodb.exceptions.TransactionCanceledException:
                earlier = self.created_with(job.owner, idempotency_key) if idempotency_key else None
                if earlier is None:
                    raise
                return earlier
        return job

    def created_with(self, owner: str, idempotency_key: str) -> Job | None:
        """Return the job of an idempotency key."""
        with translated("read an idempotency key"):
            item = self._table.item(self._idempotency_key(owner, idempotency_key))
        return None if item is None else self.job(UUID(item["job_id"]["S"]))

    def job(self, job_id: UUID) -> Job | None:
        """Return the job by one consistent read; None, with a warning, if it cannot be read."""
        with translated(f"read job {job_id}"):
            item = self._table.item(self._record_key(job_id))
        return None if item is None else _parse(item)

    def newest(self, owner: str, limit: int) -> list[Job]:
        """Return the owner's newest jobs."""
        with translated("list jobs"):
            items = islice(self._table.items(f"owner#{owner}"), limit)
            ids = [UUID(item["item"]["S"].partition("#")[2]) for item in items]
            found = self._records(ids)
        return [found[job_id] for job_id in ids if job_id in found]

    def every(self) -> Iterator[Job]:
        """Yield all jobs, in any order, a hundred at a time."""
        with translated("list all jobs"):
            items = self._table.items(_EVERY)
            while ids := [UUID(item["item"]["S"]) for item in islice(items, _READS_AT_ONCE)]:
                yield from self._records(ids).values()

    def unsettled(self) -> list[Job]:
        """Return the unsettled jobs, in any order."""
        with translated("look for jobs"):
            ids = [UUID(item["item"]["S"]) for item in self._table.items(_UNSETTLED)]
            return list(self._records(ids).values()) if ids else []

    def put(self, job: Job) -> bool:
        """Write the record on condition that it has the previous revision."""
        item, condition = self._record_item(job), "revision = :before"
        values: Any = {":before": {"N": str(job.revision - 1)}}
        with translated_for_one(f"write job {job.job_id}"):
            if not job.settled:
                return self._table.put_if(item, condition, values)
            name = self._table.name
            put: Any = {"TableName": name, "Item": item, "ConditionExpression": condition}
            delete: Any = {"TableName": name, "Key": self._table.key(_UNSETTLED, str(job.job_id))}
            dynamodb = self._clients.dynamodb
            try:
                dynamodb.transact_write_items(
                    TransactItems=[{"Put": put | {"ExpressionAttributeValues": values}}, {"Delete": delete}]
                )
            except dynamodb.exceptions.TransactionCanceledException as exc:
                if condition_failed(exc):
                    return False
                raise Transient(f"could not write job {job.job_id}: {exc}") from exc
        return True

    def add_files(self, job_id: UUID, files: Sequence[JobFile], expires_at: datetime) -> None:
        """Write the files, 25 at a time."""
        expires = expiring(expires_at)
        puts: list[Any] = []
        for file in files:
            item = self._table.key(_partition(job_id), f"{_FILE}{file.index:08d}")
            puts.append({"PutRequest": {"Item": item | {"record": {"S": file.to_json()}} | expires}})
        with translated(f"write files of job {job_id}"):
            while puts:
                batch, puts = puts[:_WRITES_AT_ONCE], puts[_WRITES_AT_ONCE:]
                answer = self._clients.dynamodb.batch_write_item(RequestItems={self._table.name: batch})
                left: list[Any] = answer.get("UnprocessedItems", {}).get(self._table.name, [])
                if len(left) == len(batch):
                    raise Transient(f"could not write files of job {job_id}: DynamoDB took none of them")
                puts += left

    def files(self, job_id: UUID, after: int = -1) -> Iterator[JobFile]:
        """Yield the ended files by their places; one that cannot be read is left out, with a warning."""
        since = f"{_FILE}{after:08d}" if after >= 0 else ""
        with translated(f"read files of job {job_id}"):
            for item in self._table.items(_partition(job_id), _FILE, after=since):
                try:
                    yield JobFile.parse(item["record"]["S"])
                except (KeyError, InvalidMessage) as exc:
                    log.warning("job_file_unreadable", job_id=str(job_id), reason=str(exc))

    def _records(self, ids: Sequence[UUID]) -> dict[UUID, Job]:
        jobs = map(_parse, self._table.present([self._record_key(job_id) for job_id in ids]))
        return {job.job_id: job for job in jobs if job is not None}

    def _record_item(self, job: Job) -> Any:
        return self._record_key(job.job_id) | {
            "revision": {"N": str(job.revision)},
            "record": {"S": job.to_json()},
            **expiring(job.expires_at),
        }

    def _record_key(self, job_id: UUID) -> Any:
        return self._table.key(_partition(job_id), _RECORD)

    def _idempotency_key(self, owner: str, key: str) -> Any:
        return self._table.key(f"idempotency#{owner}", hashlib.sha256(key.encode()).hexdigest())


def _partition(job_id: UUID) -> str:
    return f"job#{job_id}"


def _parse(item: Any) -> Job | None:
    try:
        return Job.parse(item["record"]["S"])
    except (KeyError, InvalidMessage) as exc:
        log.warning("job_unreadable", job=item["kind"]["S"], reason=str(exc))
        return None
