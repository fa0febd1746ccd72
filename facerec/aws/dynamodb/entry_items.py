"""The attributes of stored items, read with a check of each, and the template without its embedding. No numpy."""

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from facerec.errors import InvalidMessage
from facerec.message_base import ObjectRef
from facerec.ports import RejectionEntry, TemplateEntry

TEMPLATE = "template#"
"""What the sort key of a template begins with."""
ENTRY = (
    "collection",
    "item",
    "version",
    "identity",
    "model_id",
    "source",
    "photo",
    "probability",
    "enrolled_at",
    "external_id",
    "quality",
)
"""The attributes of a `TemplateEntry`."""
REJECTION = "rejection#"
"""What the sort key of a rejection begins with."""
REJECTION_ENTRY = ("collection", "item", "version", "identity", "model_id", "source", "rejected_at")
"""The attributes of a `RejectionEntry`."""
_VERSION = {"N": "1"}
"""What an item without the attribute `version` has; an item of another version is damaged for this release."""


def entry_fields(entry: TemplateEntry) -> Any:
    """Return the item of a template without its key and its embedding."""
    item: dict[str, Any] = {
        "identity": {"S": entry.identity},
        "model_id": {"S": entry.model_id},
        "source": {"S": entry.source},
        "probability": {"N": repr(float(entry.probability))},
        "enrolled_at": {"S": entry.enrolled_at.isoformat()},
    }
    if entry.photo is not None:
        item["photo"] = {"S": entry.photo.to_json()}
    if entry.external_id is not None:
        item["external_id"] = {"S": entry.external_id}
    if entry.quality is not None:
        item["quality"] = {"N": repr(float(entry.quality))}
    return item


def read_entries(items: Iterable[Any]) -> Iterator[TemplateEntry]:
    """Yield the templates that can be read."""
    for item in items:
        try:
            entry = TemplateEntry(**entry_values(item))
        except ValueError:
            continue  # `facerec gallery check` lists what is damaged
        yield entry


def entry_values(item: Any) -> dict[str, Any]:
    """Return the fields of a `TemplateEntry`; raises ValueError with what is wrong, without a value."""
    _check_version(item)
    return {
        "template_id": id_of(item),
        "collection": item["collection"]["S"],
        "identity": text(item, "identity"),
        "model_id": text(item, "model_id"),
        "source": value(item, "source", "S"),
        "photo": _photo(item) if "photo" in item else None,
        "probability": share(item, "probability"),
        "enrolled_at": time(item, "enrolled_at"),
        "external_id": value(item, "external_id", "S") if "external_id" in item else None,
        "quality": share(item, "quality") if "quality" in item else None,
    }


def rejection_fields(entry: RejectionEntry) -> Any:
    """Return the item of a rejection without its key and its embedding."""
    return {
        "identity": {"S": entry.identity},
        "model_id": {"S": entry.model_id},
        "source": {"S": entry.source},
        "rejected_at": {"S": entry.rejected_at.isoformat()},
    }


def rejection_values(item: Any) -> dict[str, Any]:
    """Return the fields of a `RejectionEntry`; raises as `entry_values`."""
    _check_version(item)
    return {
        "rejection_id": rejection_id_of(item),
        "collection": item["collection"]["S"],
        "identity": text(item, "identity"),
        "model_id": text(item, "model_id"),
        "source": value(item, "source", "S"),
        "rejected_at": time(item, "rejected_at"),
    }


def id_of(item: Any) -> str:
    """Return the template id in the item's key."""
    identifier: str = item["item"]["S"]
    return identifier.removeprefix(TEMPLATE)


def rejection_id_of(item: Any) -> str:
    """Return the rejection id in the item's key."""
    identifier: str = item["item"]["S"]
    return identifier.removeprefix(REJECTION)


def value(item: Any, name: str, kind: str) -> Any:
    """Return an attribute; raises ValueError, without the value, if it is missing or of another type."""
    try:
        return item[name][kind]
    except KeyError as exc:
        raise ValueError(f"its {name} is missing or of a wrong type") from exc


def text(item: Any, name: str) -> str:
    """Return a text; raises ValueError if it is missing or blank."""
    found: str = value(item, name, "S")
    if not found.strip():
        raise ValueError(f"its {name} is empty")
    return found


def share(item: Any, name: str) -> float:
    """Return a number from 0 to 1; raises ValueError for any other."""
    written = value(item, name, "N")
    try:
        number = float(written)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"its {name} is no number from 0 to 1")
    return number


def time(item: Any, name: str) -> datetime:
    """Return a time with its zone; raises ValueError if it is none."""
    written = value(item, name, "S")
    try:
        found = datetime.fromisoformat(written)
    except ValueError as exc:
        raise ValueError(f"its {name} is no time") from exc
    if found.tzinfo is None:
        raise ValueError(f"its {name} has no time zone")
    return found


def _check_version(item: Any) -> None:
    if item.get("version", _VERSION) != _VERSION:
        raise ValueError("it is of an unknown version")


def _photo(item: Any) -> ObjectRef:
    try:
        return ObjectRef.parse(value(item, "photo", "S"))
    except InvalidMessage as exc:
        raise ValueError("its photo is no reference to an object") from exc
