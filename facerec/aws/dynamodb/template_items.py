"""The items of templates and thresholds: written, and read with a check of every attribute.

A damaged item is no exception that ends a reader: it becomes a `DamagedTemplate`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.aws.dynamodb.entry_items import (
    entry_fields,
    entry_values,
    id_of,
    rejection_fields,
    rejection_values,
    share,
    time,
    value,
)
from facerec.ports import CollectionThreshold, DamagedTemplate, Rejection, Template


def template_fields(template: Template) -> Any:
    """Return a template's item without its key."""
    return entry_fields(template) | {"embedding": {"B": template.embedding.astype("<f4").tobytes()}}


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
        return DamagedTemplate(id_of(item), str(exc), item.get("identity", {}).get("S", ""))


def _template(item: Any) -> Template:
    """Return the item's template; raises ValueError with what is wrong, without a value."""
    return Template(**entry_values(item), embedding=_embedding(item))


def rejection_item_fields(rejection: Rejection) -> Any:
    """Return a rejection's item without its key."""
    return rejection_fields(rejection) | {"embedding": {"B": rejection.embedding.astype("<f4").tobytes()}}


def read_rejection(item: Any) -> Rejection:
    """Return the item's rejection; raises ValueError with what is wrong, without a value."""
    return Rejection(**rejection_values(item), embedding=_embedding(item))


def read_threshold(item: Any) -> CollectionThreshold:
    """Return the item's threshold; raises ValueError with what is wrong."""
    try:
        pairs = int(value(item, "impostor_pairs", "N"))
    except ValueError as exc:
        raise ValueError("its impostor_pairs is missing or no whole number") from exc
    return CollectionThreshold(
        value=share(item, "value"),
        target_fmr=share(item, "target_fmr"),
        fmr=share(item, "fmr"),
        impostor_pairs=pairs,
        source=value(item, "source", "S"),
        calibrated_at=time(item, "calibrated_at"),
    )


def _embedding(item: Any) -> NDArray[np.float32]:
    numbers: bytes = value(item, "embedding", "B")
    if not numbers or len(numbers) % 4:
        raise ValueError(f"its embedding has {len(numbers)} bytes, not 4 for each number")
    return np.frombuffer(numbers, dtype="<f4").astype(np.float32)
