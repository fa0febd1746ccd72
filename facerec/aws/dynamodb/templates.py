"""The gallery's system of record on DynamoDB: one table, every change of a collection one transaction.

A collection's own threshold for a model is the item `threshold#<model_id>`. The other items are those of `people` and
`collection_changes`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import structlog

from facerec.aws.clients import translated
from facerec.aws.dynamodb.entry_items import REJECTION, TEMPLATE
from facerec.aws.dynamodb.people import DynamoEnrolledPeople
from facerec.aws.dynamodb.template_items import (
    read_rejection,
    read_template,
    read_threshold,
    readable,
    rejection_item_fields,
    template_fields,
)
from facerec.errors import AlreadyEnrolled
from facerec.gallery.damaged import may_replace
from facerec.ports import Changes, CollectionThreshold, DamagedTemplate, Rejection, Template

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import TransactWriteItemTypeDef

log = structlog.get_logger(__name__)


class DynamoTemplateStore(DynamoEnrolledPeople):
    """`TemplateStore` on DynamoDB, safe for concurrent writers in any number of processes."""

    def add(self, template: Template) -> None:
        """Add one template with its collection's new version, both or neither; raises `AlreadyEnrolled`.

        A damaged template with this id is removed first.
        """
        key = self._template_key(template.collection, template.template_id)
        put: TransactWriteItemTypeDef = {
            "Put": {
                "TableName": self._table.name,
                "Item": key | template_fields(template),
                "ConditionExpression": "attribute_not_exists(#item)",
                "ExpressionAttributeNames": {"#item": "item"},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }
        doing = f"enrol {template.identity!r}"
        refusals = self._changes.write(doing, template.collection, [put], 1, [template.template_id])
        if refusals:
            existing = refusals[0].get("Item")
            if not existing:
                with translated(f"read template {template.template_id!r}"):
                    existing = self._table.item(key)
            found = read_template(existing) if existing else template
            if isinstance(found, DamagedTemplate) or may_replace(found, template):
                self.remove(template.collection, [template.template_id])
                self.add(template)
                return
            raise AlreadyEnrolled(found.identity, template.template_id)

    def changes(self, collection: str, since: int) -> Changes | None:
        """Read the changes after that version, and the remaining templates that they touched, consistently.

        Returns None if some of these changes are not recorded.
        """
        with translated(f"read the changes of collection {collection!r}"):
            found = self._changes.touched(collection, since)
            if found is None:
                return None
            version, touched = found
            keys = [self._template_key(collection, template_id) for template_id in sorted(touched)]
            damaged: list[DamagedTemplate] = []
            added = list(readable(self._table.present(keys), damaged))
        return Changes(version, added, sorted(touched - {template.template_id for template in added}), damaged)

    def templates(self, collection: str, damaged: list[DamagedTemplate] | None = None) -> Iterator[Template]:
        """Yield every readable template of the collection, read consistently, page by page."""
        with translated(f"read the templates of collection {collection!r}"):
            yield from readable(self._table.items(collection, TEMPLATE), [] if damaged is None else damaged)

    def template(self, collection: str, template_id: str) -> Template | None:
        """Read one template consistently; a damaged one counts as none."""
        with translated(f"read template {template_id!r}"):
            item = self._table.item(self._template_key(collection, template_id))
        return next(readable([item] if item else [], []), None)

    def reject(self, rejection: Rejection) -> None:
        """Write a rejection with its collection's new version, both or neither."""
        item = self._table.key(rejection.collection, f"{REJECTION}{rejection.rejection_id}")
        put: TransactWriteItemTypeDef = {
            "Put": {"TableName": self._table.name, "Item": item | rejection_item_fields(rejection)}
        }
        doing = f"remember who is not {rejection.identity!r}"
        self._changes.write(doing, rejection.collection, [put], 0, [])

    def rejections(self, collection: str) -> list[Rejection]:
        """Read all rejections consistently; damaged ones are left out with a warning."""
        return self._read_rejections(collection, read_rejection)

    def threshold(self, collection: str, model_id: str) -> CollectionThreshold | None:
        """Return the collection's threshold for the model: one consistent read of a small item.

        A damaged one counts as none, with a warning: the model's table applies until the next calibration.
        """
        with translated(f"read the threshold of collection {collection!r}"):
            item = self._table.item(self._threshold_key(collection, model_id))
        if not item:
            return None
        try:
            return read_threshold(item)
        except ValueError as exc:
            command = f"facerec calibrate --collection {collection}"
            log.warning("threshold_damaged", collection=collection, reason=str(exc), command=command)
            return None

    def set_threshold(self, collection: str, model_id: str, threshold: CollectionThreshold | None) -> None:
        """Write or remove the threshold with the collection's new version, both or neither."""
        key, table = self._threshold_key(collection, model_id), self._table.name
        change: TransactWriteItemTypeDef = {"Delete": {"TableName": table, "Key": key}}
        if threshold is not None:
            item = key | {
                "value": {"N": repr(float(threshold.value))},
                "target_fmr": {"N": repr(float(threshold.target_fmr))},
                "fmr": {"N": repr(float(threshold.fmr))},
                "impostor_pairs": {"N": str(threshold.impostor_pairs)},
                "source": {"S": threshold.source},
                "calibrated_at": {"S": threshold.calibrated_at.isoformat()},
            }
            change = {"Put": {"TableName": table, "Item": item}}
        self._changes.write(f"set the threshold of {collection!r}", collection, [change], 0, [])

    def _threshold_key(self, collection: str, model_id: str) -> Any:
        return self._table.key(collection, f"threshold#{model_id}")
