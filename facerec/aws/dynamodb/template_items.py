"""The items of templates and thresholds: written, and read with a check of every attribute.

A damaged item is no exception that ends a reader: it becomes a `DamagedTemplate`.
"""

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.errors import InvalidMessage
from facerec.messages import ObjectRef
from facerec.ports import CollectionThreshold, DamagedTemplate, Template

TEMPLATE = "template#"
"""What the sort key of a template begins with."""
_VERSION = {"N": "1"}
"""What an item without the attribute `version` has; an item of another version is damaged for this release."""


def template_fields(template: Template) -> Any:
    """Return a template's item without its key."""
    item: dict[str, Any] = {
        "identity": {"S": template.identity},
        "model_id": {"S": template.model_id},
        "embedding": {"B": template.embedding.astype("<f4").tobytes()},
        "source": {"S": template.source},
        "probability": {"N": repr(float(template.probability))},
        "enrolled_at": {"S": template.enrolled_at.isoformat()},
    }
    return item | ({"photo": {"S": template.photo.to_json()}} if template.photo else {})


def readable(items: Iterable[Any], damaged: list[DamagedTemplate]) -> Iterator[Template]:
    """Yield the templates that can be read, and append the others to `damaged`."""
    for item in items:
        found = read_template(item)
        if isinstance(found, Template):
            yield found
        else:
            damaged.append(found)


def read_template(item: Any) -> Template | DamagedTemplate:
    """Return the item's template, or why it is none."""
    try:
        return _template(item)
    except ValueError as exc:
        return DamagedTemplate(_template_id(item), str(exc), item.get("identity", {}).get("S", ""))


def _template(item: Any) -> Template:
    """Return the item's template; raises ValueError with what is wrong, without a value."""
    if item.get("version", _VERSION) != _VERSION:
        raise ValueError("it is of an unknown version")
    return Template(
        template_id=_template_id(item),
        collection=item["collection"]["S"],
        identity=_text(item, "identity"),
        model_id=_text(item, "model_id"),
        embedding=_embedding(item),
        source=_value(item, "source", "S"),
        photo=_photo(item) if "photo" in item else None,
        probability=_share(item, "probability"),
        enrolled_at=_time(item, "enrolled_at"),
    )


def _template_id(item: Any) -> str:
    identifier: str = item["item"]["S"]
    return identifier.removeprefix(TEMPLATE)


def read_threshold(item: Any) -> CollectionThreshold:
    """Return the item's threshold; raises ValueError with what is wrong."""
    try:
        pairs = int(_value(item, "impostor_pairs", "N"))
    except ValueError as exc:
        raise ValueError("its impostor_pairs is missing or no whole number") from exc
    return CollectionThreshold(
        value=_share(item, "value"),
        target_fmr=_share(item, "target_fmr"),
        fmr=_share(item, "fmr"),
        impostor_pairs=pairs,
        source=_value(item, "source", "S"),
        calibrated_at=_time(item, "calibrated_at"),
    )


def _value(item: Any, name: str, kind: str) -> Any:
    """Return an attribute; raises ValueError, without the value, if it is missing or of another type."""
    try:
        return item[name][kind]
    except KeyError as exc:
        raise ValueError(f"its {name} is missing or of a wrong type") from exc


def _text(item: Any, name: str) -> str:
    text: str = _value(item, name, "S")
    if not text.strip():
        raise ValueError(f"its {name} is empty")
    return text


def _share(item: Any, name: str) -> float:
    text = _value(item, name, "N")
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError(f"its {name} is no number from 0 to 1")
    return share


def _time(item: Any, name: str) -> datetime:
    text = _value(item, name, "S")
    try:
        time_ = datetime.fromisoformat(text)
    except ValueError as exc:
        raise ValueError(f"its {name} is no time") from exc
    if time_.tzinfo is None:
        raise ValueError(f"its {name} has no time zone")
    return time_


def _embedding(item: Any) -> NDArray[np.float32]:
    numbers: bytes = _value(item, "embedding", "B")
    if not numbers or len(numbers) % 4:
        raise ValueError(f"its embedding has {len(numbers)} bytes, not 4 for each number")
    return np.frombuffer(numbers, dtype="<f4").astype(np.float32)


def _photo(item: Any) -> ObjectRef:
    try:
        return ObjectRef.parse(_value(item, "photo", "S"))
    except InvalidMessage as exc:
        raise ValueError("its photo is no reference to an object") from exc
