"""Which numbers are taken, and by which instance: the claims of launches, in the fleet's table.

A claim is the item `kind="number"`, `item=<number>`. It is written before EC2 is asked for an instance, in one
transaction with a check of the controllers' lease, so that neither a crash, nor EC2's answers that lag behind, nor a
controller that lost its lease can launch what nobody counts. It stays for the life of its instance and also remembers
what that was last ordered to do.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from autoscale.aws.instances import Claim, Offer, Order, Request
from autoscale.aws.lease import DynamoLease
from facerec.aws.clients import Clients, translated
from facerec.errors import LeaseLost, Transient

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

BATCH = 90
"""A transaction takes 100 items, one of which is the lease."""
_KIND = "number"
_CONDITION_FAILED = "ConditionalCheckFailed"
_TOKEN_NAME = {"#token": "token"}


class Launches:
    """The claims in the fleet's table; what is written is written under the lease, or only tells what has happened."""

    def __init__(self, clients: Clients, table: str, lease: DynamoLease) -> None:
        self._clients = clients
        self._table = table
        self._lease = lease

    def all(self) -> list[Claim]:
        """Every claim, sorted by number: one consistent query."""
        with translated("read the claims of launches"):
            pages = self._clients.dynamodb.get_paginator("query").paginate(
                TableName=self._table,
                ConsistentRead=True,
                KeyConditionExpression="kind = :kind",
                ExpressionAttributeValues={":kind": {"S": _KIND}},
            )
            return [_from_item(item) for page in pages for item in page["Items"]]

    def take(self, claims: Sequence[Claim]) -> list[Claim]:
        """Claim free numbers and return those that were free; raises `LeaseLost`.

        Where the claims have a request, 90 at most, its count becomes the number of those that were free.
        """
        return [one for first in range(0, len(claims), BATCH) for one in self._take(claims[first : first + BATCH])]

    def _take(self, claims: Sequence[Claim]) -> Sequence[Claim]:
        while claims:
            claims = [_counted(claim, len(claims)) for claim in claims]
            puts = [self._put(claim, "attribute_not_exists(kind)") for claim in claims]
            failed = self._transact("claim a launch", [self._lease.fence(), *puts])
            if not failed:
                break
            self._check_fence(failed)
            claims = [claim for index, claim in enumerate(claims, 1) if index not in failed]
        return claims

    def check(self) -> None:
        """Return if the lease is ours at this moment; raises `LeaseLost`."""
        self._check_fence(self._transact("check the lease", [self._lease.fence()]))

    def order(self, claims: Sequence[Claim]) -> None:
        """Write claims with orders that EC2 gets next; raises `LeaseLost`."""
        for first in range(0, len(claims), BATCH):
            puts = [self._put(claim, "#token = :token") for claim in claims[first : first + BATCH]]
            failed = self._transact("record an order", [self._lease.fence(), *puts])
            self._check_fence(failed)
            if failed:
                raise Transient("the fleet has changed since it was read; retry later")

    def tell(self, claims: Sequence[Claim] = (), *, over: Sequence[Claim] = ()) -> None:
        """Write what has become of claims, and delete those that are `over`; what another has written since stays."""
        writes = [self._put(claim, "#token = :token") for claim in claims]
        writes += [self._delete(claim) for claim in over]
        while writes:
            batch, writes = writes[:BATCH], writes[BATCH:]
            failed = self._transact("record a launch", batch)
            if failed:
                writes = [write for index, write in enumerate(batch) if index not in failed] + writes

    def _check_fence(self, failed: set[int]) -> None:
        if 0 in failed:
            raise LeaseLost("another controller is active; this one waits")

    def _transact(self, doing: str, writes: "list[TransactWriteItemTypeDef]") -> set[int]:
        """Write all or nothing; returns the indices of the writes whose condition failed."""
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

    def _put(self, claim: Claim, condition: str) -> "TransactWriteItemTypeDef":
        put: Any = {"TableName": self._table, "Item": _to_item(claim), "ConditionExpression": condition}
        if "#token" in condition:
            put |= self._same(claim)
        return {"Put": put}

    def _delete(self, claim: Claim) -> "TransactWriteItemTypeDef":
        delete: Any = {"TableName": self._table, "Key": _key(claim), "ConditionExpression": "#token = :token"}
        return {"Delete": delete | self._same(claim)}

    @staticmethod
    def _same(claim: Claim) -> Any:
        return {
            "ExpressionAttributeNames": _TOKEN_NAME,
            "ExpressionAttributeValues": {":token": {"S": claim.token}},
        }


def _counted(claim: Claim, count: int) -> Claim:
    return claim if claim.request is None else replace(claim, request=replace(claim.request, count=count))


def _key(claim: Claim) -> Any:
    return {"kind": {"S": _KIND}, "item": {"S": f"{claim.number:06d}"}}


def _to_item(claim: Claim) -> Any:
    item = _key(claim) | {"token": {"S": claim.token}, "made_at": {"N": repr(claim.made_at)}}
    if claim.instance_id is not None:
        item["instance_id"] = {"S": claim.instance_id}
    if claim.order is not None:
        item |= {"order": {"S": claim.order.value}, "ordered_at": {"N": repr(claim.ordered_at)}}
    if claim.former_ready_at is not None:
        item["former_ready_at"] = {"N": repr(claim.former_ready_at)}
    request = claim.request
    if request is not None:
        item |= {
            "instance_type": {"S": request.offer.instance_type},
            "spot": {"BOOL": request.spot},
            "template_version": {"S": request.template_version},
            "count": {"N": str(request.count)},
        }
        if request.offer.subnet_id is not None:
            item["subnet_id"] = {"S": request.offer.subnet_id}
    return item


def _from_item(item: Any) -> Claim:
    request = None
    if "instance_type" in item:
        request = Request(
            offer=Offer(item["instance_type"]["S"], item.get("subnet_id", {}).get("S")),
            spot=item["spot"]["BOOL"],
            template_version=item["template_version"]["S"],
            count=int(item["count"]["N"]),
        )
    return Claim(
        number=int(item["item"]["S"]),
        token=item["token"]["S"],
        made_at=float(item["made_at"]["N"]),
        request=request,
        instance_id=item.get("instance_id", {}).get("S"),
        order=Order(item["order"]["S"]) if "order" in item else None,
        ordered_at=float(item["ordered_at"]["N"]) if "order" in item else 0.0,
        former_ready_at=float(item["former_ready_at"]["N"]) if "former_ready_at" in item else None,
    )
