"""Which numbers are taken, and by which instance: the launch slots in the fleet's table.

A slot is the item `kind="number"`, `item=<number>`. It is written before EC2 is asked for an instance, in one
transaction with a check of the autoscalers' lease. So every launch counts towards the cap: after a crash, while EC2's
answers lag, and when an autoscaler loses its lease. It stays as long as its instance and remembers the latest action.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from autoscale.aws.instances import CapacityPool, LaunchRequest, LaunchSlot
from autoscale.aws.lease import DynamoLease, TakenOver
from autoscale.policy import ActionKind
from facerec.aws.clients import Clients, translated
from facerec.aws.dynamodb import Table, readable
from facerec.errors import Transient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

BATCH = 90
"""A transaction takes 100 items, one of which is the lease."""
_KIND = "number"
_CONDITION_FAILED = "ConditionalCheckFailed"
_FREE = "attribute_not_exists(kind)"
_UNCHANGED = "#token = :token"


class LaunchSlots:
    """The slots in the fleet's table."""

    def __init__(self, clients: Clients, table: str, lease: DynamoLease) -> None:
        self._clients = clients
        self._table = Table(clients, table)
        self._lease = lease

    def all(self) -> list[LaunchSlot]:
        """Read every slot, sorted by number: one consistent query."""
        with translated("read the launch slots"):
            return [_from_item(item) for item in self._table.items(_KIND)]

    def take(self, slots: Sequence[LaunchSlot]) -> list[LaunchSlot]:
        """Take free numbers under the lease and return those that were free; raises `LeaseLost`.

        If the slots have a request, they are at most 90, and its count becomes the number of those that were free.
        """
        return [slot for first in range(0, len(slots), BATCH) for slot in self._take(slots[first : first + BATCH])]

    def _take(self, slots: Sequence[LaunchSlot]) -> Sequence[LaunchSlot]:
        while slots:
            slots = [_with_count(slot, len(slots)) for slot in slots]
            failed = self._write_under_lease("take launch slots", [self._put(slot, _FREE) for slot in slots])
            if not failed:
                break
            slots = [slot for index, slot in enumerate(slots, 1) if index not in failed]
        return slots

    def confirm_lease(self) -> None:
        """Return if DynamoDB says that the lease is ours; raises `LeaseLost`."""
        self._write_under_lease("check the lease", [])

    def announce(self, slots: Sequence[LaunchSlot]) -> None:
        """Write the slots' actions under the lease before EC2 is called; raises `LeaseLost`."""
        for first in range(0, len(slots), BATCH):
            puts = [self._put(slot, _UNCHANGED) for slot in slots[first : first + BATCH]]
            if self._write_under_lease("record an action", puts):
                raise Transient("the fleet has changed since it was read; retry later")

    def update(self, slots: Sequence[LaunchSlot] = (), *, gone: Sequence[LaunchSlot] = ()) -> None:
        """Write what has happened to slots, and delete those that are `gone`; slots taken by others since stay."""
        writes = [self._put(slot, _UNCHANGED) for slot in slots]
        writes += [self._delete(slot) for slot in gone]
        while writes:
            batch, writes = writes[:BATCH], writes[BATCH:]
            failed = self._transact("record a launch", batch)
            if failed:
                writes = [write for index, write in enumerate(batch) if index not in failed] + writes

    def _write_under_lease(self, doing: str, writes: "list[TransactWriteItemTypeDef]") -> set[int]:
        """Write all or nothing, if the lease is ours; returns the indices, from 1, of the failed conditions."""
        failed = self._transact(doing, [self._lease.condition(), *writes])
        if 0 in failed:
            raise TakenOver
        return failed

    def _transact(self, doing: str, writes: "list[TransactWriteItemTypeDef]") -> set[int]:
        """Write all or nothing; returns the indices of the failed conditions."""
        with translated(doing):
            try:
                # boto3 sends a token of its own, so that its retries after a lost reply do not write twice.
                self._clients.dynamodb.transact_write_items(TransactItems=writes)
            except ClientError as exc:
                reasons: list[Any] = exc.response.get("CancellationReasons", [])
                failed = {index for index, reason in enumerate(reasons) if reason["Code"] == _CONDITION_FAILED}
                if failed:
                    return failed
                if exc.response["Error"]["Code"] in {"TransactionCanceledException", "TransactionInProgressException"}:
                    codes = ", ".join(sorted({str(reason["Code"]) for reason in reasons} - {"None"}))
                    raise Transient(f"could not {doing}: DynamoDB cancelled it ({codes}); retry later") from exc
                raise
        return set()

    def _put(self, slot: LaunchSlot, condition: str) -> "TransactWriteItemTypeDef":
        values = _token_of(slot) if condition is _UNCHANGED else {}
        put: Any = {
            "TableName": self._table.name,
            "Item": self._key(slot) | _fields(slot),
            "ConditionExpression": condition,
        }
        return {"Put": put | values}

    def _delete(self, slot: LaunchSlot) -> "TransactWriteItemTypeDef":
        delete: Any = {"TableName": self._table.name, "Key": self._key(slot), "ConditionExpression": _UNCHANGED}
        return {"Delete": delete | _token_of(slot)}

    def _key(self, slot: LaunchSlot) -> Any:
        return self._table.key(_KIND, f"{slot.number:06d}")


def _token_of(slot: LaunchSlot) -> Any:
    return {
        "ExpressionAttributeNames": {"#token": "token"},
        "ExpressionAttributeValues": {":token": {"S": slot.token}},
    }


def _with_count(slot: LaunchSlot, count: int) -> LaunchSlot:
    return slot if slot.request is None else replace(slot, request=replace(slot.request, count=count))


def _fields(slot: LaunchSlot) -> Any:
    item: Any = {"token": {"S": slot.token}, "made_at": {"N": repr(slot.made_at)}}
    if slot.instance_id is not None:
        item["instance_id"] = {"S": slot.instance_id}
    if slot.action is not None:  # stored under the names that former releases read
        item |= {"order": {"S": slot.action.value}, "ordered_at": {"N": repr(slot.acted_at)}}
    if slot.former_ready_at is not None:
        item["former_ready_at"] = {"N": repr(slot.former_ready_at)}
    request = slot.request
    if request is not None:
        item |= {
            "instance_type": {"S": request.pool.instance_type},
            "spot": {"BOOL": request.spot},
            "template_version": {"S": request.template_version},
            "count": {"N": str(request.count)},
        }
        if request.pool.subnet_id is not None:
            item["subnet_id"] = {"S": request.pool.subnet_id}
    return item


def _from_item(item: Any) -> LaunchSlot:
    """Read a slot; raises `Transient`, because a number that is left out would be launched again, above the cap."""
    with readable(item):
        return _slot(item)


def _slot(item: Any) -> LaunchSlot:
    request = None
    if "instance_type" in item:
        request = LaunchRequest(
            pool=CapacityPool(item["instance_type"]["S"], item.get("subnet_id", {}).get("S")),
            spot=item["spot"]["BOOL"],
            template_version=item["template_version"]["S"],
            count=int(item["count"]["N"]),
        )
    return LaunchSlot(
        number=int(item["item"]["S"]),
        token=item["token"]["S"],
        made_at=float(item["made_at"]["N"]),
        request=request,
        instance_id=item.get("instance_id", {}).get("S"),
        action=ActionKind(item["order"]["S"]) if "order" in item else None,
        acted_at=float(item["ordered_at"]["N"]) if "order" in item else 0.0,
        former_ready_at=float(item["former_ready_at"]["N"]) if "former_ready_at" in item else None,
    )
