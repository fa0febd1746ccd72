"""The access log in the people's table: an item for each batch, which DynamoDB removes after its retention.

The partition `access#<day>` has the batches of a UTC day by their times; an item holds a record in each line.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import structlog

from facerec.access_records import AccessRecord
from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, expiring
from facerec.errors import InvalidMessage

log = structlog.get_logger(__name__)

_AT_ONCE = 500
"""Records of one item: some 150 kB of the 400 that an item may have."""
_LATE = timedelta(hours=1)
"""By how much a record may be older than its batch."""


class DynamoAccessRecords:
    """`AccessRecords` on DynamoDB."""

    def __init__(
        self, clients: Clients, table: str, *, days: int, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._table = Table(clients, table)
        self._days = days
        self._now = now

    def add(self, records: Sequence[AccessRecord]) -> None:
        """Write one item for each 500 records."""
        now = self._now()
        expires = expiring(now + timedelta(days=self._days))
        with translated("write the access log"):
            for start in range(0, len(records), _AT_ONCE):
                lines = "\n".join(record.to_json() for record in records[start : start + _AT_ONCE])
                item = self._table.key(f"access#{now:%Y-%m-%d}", f"{now.isoformat()}#{secrets.token_hex(4)}")
                self._table.put(item | {"records": {"S": lines}} | expires)

    def since(self, moment: datetime) -> Iterator[AccessRecord]:
        """Read day by day; a batch that cannot be read is left out with a warning."""
        day, today = moment.astimezone(UTC).date(), (self._now() + _LATE).date()
        while day <= today:
            with translated("read the access log"):
                for item in self._table.items(f"access#{day:%Y-%m-%d}"):
                    try:
                        found = [AccessRecord.parse(line) for line in item["records"]["S"].splitlines()]
                    except (KeyError, InvalidMessage) as exc:
                        log.warning("access_records_unreadable", item=item["item"]["S"], reason=str(exc))
                        continue
                    yield from (record for record in found if record.at >= moment)
            day += timedelta(days=1)
