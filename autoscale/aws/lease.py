"""Exactly one autoscaler acts: a lease in the fleet's table.

The algorithm is the published one of AWS's DynamoDB lock client ("Building Distributed Locks with the DynamoDB Lock
Client", AWS Database Blog): no clocks are compared. The owner raises a version with every renewal. A waiter takes over
once it has seen one version unchanged for the lease's length by its own monotonic clock; the owner, by its own, stops
believing in its lease when its last renewal began longer ago than that, which is always the earlier moment.
"""

import socket
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, readable
from facerec.errors import LeaseLost

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

log = structlog.get_logger(__name__)

_KEY: Any = {"kind": {"S": "lease"}, "item": {"S": "controller"}}  # the same for ever: two keys are two leases
_NAMES = {"#owner": "owner"}


class TakenOver(LeaseLost):
    """Another autoscaler owns the lease."""

    def __init__(self) -> None:
        super().__init__("another autoscaler is active; this one waits")


class DynamoLease:
    """`Lease` in DynamoDB. `clock` is monotonic, in seconds; not to be shared by threads."""

    def __init__(
        self,
        clients: Clients,
        table: str,
        *,
        lease_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clients = clients
        self._table = Table(clients, table)
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._owner = f"{socket.gethostname()}/{uuid.uuid4()}"
        self._version = 0
        """Of the last attempt to write; each number is written once, or a waiter would miss a renewal."""
        self._ours = False
        self._held_until = -float("inf")
        self._seen: tuple[str, int] | None = None
        self._seen_at = 0.0

    @property
    def held(self) -> bool:
        """Whether the lease is ours by our own clock."""
        return self._clock() < self._held_until

    def acquire_or_renew(self) -> bool:
        """Renew the lease, or take it if it is free or has not been renewed for its length."""
        began = self._clock()
        # A lease that has expired by our clock is renewed if no other autoscaler has taken it.
        if self._ours and self._write(began, "#owner = :me"):
            return True
        with translated("read the autoscalers' lease"):
            found = self._table.item(_KEY)
        if found is None:
            return self._write(began, "attribute_not_exists(#owner)")
        with readable(found):
            seen = (found["owner"]["S"], int(found["version"]["N"]))
            their_length = float(found["lease_seconds"]["N"])
        if seen[0] == self._owner:  # the answer to our first write was lost
            return self._write(began, "#owner = :me")
        now = self._clock()
        if seen != self._seen:
            self._seen, self._seen_at = seen, now
        # The owner's lease may be longer than ours.
        length = max(self._lease_seconds, their_length)
        if now - self._seen_at < length:
            return False
        log.warning("lease_taken_over", owner=seen[0], silent_seconds=round(now - self._seen_at, 1))
        return self._write(
            began,
            "#owner = :them AND version = :theirs",
            {":them": {"S": seen[0]}, ":theirs": {"N": str(seen[1])}},
        )

    def raise_if_expired(self) -> None:
        """Raise `LeaseLost` if the lease has expired by our own clock; DynamoDB is not asked."""
        if not self.held:
            raise LeaseLost("the lease has expired; another autoscaler may be active")

    def renew_or_raise(self) -> None:
        """Renew the lease during a long operation; raises `LeaseLost`, and never takes the lease back.

        Another owner may have changed everything meanwhile.
        """
        self.raise_if_expired()
        if not self._write(self._clock(), "#owner = :me"):
            raise TakenOver

    def release(self) -> None:
        """Delete the item, if it is ours."""
        self._held_until = -float("inf")
        if not self._ours:
            return
        try:
            with translated("release the autoscalers' lease", ConditionalCheckFailedException=TakenOver):
                self._clients.dynamodb.delete_item(
                    TableName=self._table.name,
                    Key=_KEY,
                    ConditionExpression="#owner = :me",
                    ExpressionAttributeNames=_NAMES,
                    ExpressionAttributeValues={":me": {"S": self._owner}},
                )
        except TakenOver:
            log.info("lease_was_lost", owner=self._owner)
        self._ours = False

    def condition(self) -> "TransactWriteItemTypeDef":
        """Return a transaction's condition that the lease is ours; raises `LeaseLost` if it has expired."""
        self.raise_if_expired()
        return {
            "ConditionCheck": {
                "TableName": self._table.name,
                "Key": _KEY,
                "ConditionExpression": "#owner = :me",
                "ExpressionAttributeNames": _NAMES,
                "ExpressionAttributeValues": {":me": {"S": self._owner}},
            }
        }

    def _write(self, began: float, condition: str, values: Any = None) -> bool:
        """Write the next version under the condition; returns whether the condition held."""
        self._version += 1
        try:
            with translated("write the autoscalers' lease", ConditionalCheckFailedException=TakenOver):
                self._clients.dynamodb.update_item(
                    TableName=self._table.name,
                    Key=_KEY,
                    UpdateExpression="SET #owner = :me, version = :version, lease_seconds = :length",
                    ConditionExpression=condition,
                    ExpressionAttributeNames=_NAMES,
                    ExpressionAttributeValues={
                        ":me": {"S": self._owner},
                        ":version": {"N": str(self._version)},
                        ":length": {"N": repr(self._lease_seconds)},
                    }
                    | (values or {}),
                )
        except TakenOver:
            self._ours, self._held_until = False, -float("inf")
            return False
        self._ours, self._held_until = True, began + self._lease_seconds
        return True


def lease_owner(clients: Clients, table: str) -> str | None:
    """Return the latest owner of the lease, alive or not; None after it was released."""
    with translated("read the autoscalers' lease"):
        found = Table(clients, table).item(_KEY)
    if found is None:
        return None
    with readable(found):
        return str(found["owner"]["S"])
