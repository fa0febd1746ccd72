"""The items of the gallery's table, whose keys are `collection` and `item`: pure.

A template is the item `template#<template_id>` of its collection; the item `#version` there is the number of its last
change, counted from the time of the first, the items `change#<version>` tell which templates each of the last changes
touched, and `threshold#<model_id>` is its own threshold for a model. The partition `#collections`, a name that no
collection can have, holds for each collection the number of its templates.
"""

from datetime import datetime
from typing import Any

import numpy as np

from facerec.messages import ObjectRef
from facerec.ports import CollectionThreshold, Template

TEMPLATE_ITEM = "template#"
CHANGE_ITEM = "change#"
THRESHOLD_ITEM = "threshold#"
COLLECTIONS = "#collections"


def version_key(collection: str) -> Any:
    """The key of a collection's version."""
    return {"collection": {"S": collection}, "item": {"S": "#version"}}


def count_key(collection: str) -> Any:
    """The key of the number of a collection's templates."""
    return {"collection": {"S": COLLECTIONS}, "item": {"S": collection}}


def template_key(collection: str, template_id: str) -> Any:
    """The key of a template."""
    return {"collection": {"S": collection}, "item": {"S": f"{TEMPLATE_ITEM}{template_id}"}}


def change_key(collection: str, version: int) -> Any:
    """The key of the record of the change that made this version."""
    return {"collection": {"S": collection}, "item": {"S": f"{CHANGE_ITEM}{version:020d}"}}


def to_item(template: Template) -> Any:
    """A template as the table keeps it."""
    item = template_key(template.collection, template.template_id) | {
        "identity": {"S": template.identity},
        "model_id": {"S": template.model_id},
        "embedding": {"B": template.embedding.astype("<f4").tobytes()},
        "source": {"S": template.source},
        "probability": {"N": repr(float(template.probability))},
        "enrolled_at": {"S": template.enrolled_at.isoformat()},
    }
    if template.photo is not None:
        item["photo"] = {"S": template.photo.to_json()}
    return item


def from_item(item: Any) -> Template:
    """The inverse of `to_item`."""
    return Template(
        template_id=item["item"]["S"].removeprefix(TEMPLATE_ITEM),
        collection=item["collection"]["S"],
        identity=item["identity"]["S"],
        model_id=item["model_id"]["S"],
        embedding=np.frombuffer(item["embedding"]["B"], dtype="<f4").astype(np.float32),
        source=item["source"]["S"],
        photo=ObjectRef.parse(item["photo"]["S"]) if "photo" in item else None,
        probability=float(item["probability"]["N"]),
        enrolled_at=datetime.fromisoformat(item["enrolled_at"]["S"]),
    )


def threshold_key(collection: str, model_id: str) -> Any:
    """The key of a collection's threshold for a model."""
    return {"collection": {"S": collection}, "item": {"S": f"{THRESHOLD_ITEM}{model_id}"}}


def threshold_fields(threshold: CollectionThreshold) -> Any:
    """A threshold as the table keeps it, without its key."""
    return {
        "value": {"N": repr(float(threshold.value))},
        "target_fmr": {"N": repr(float(threshold.target_fmr))},
        "fmr": {"N": repr(float(threshold.fmr))},
        "impostor_pairs": {"N": str(threshold.impostor_pairs)},
        "source": {"S": threshold.source},
        "calibrated_at": {"S": threshold.calibrated_at.isoformat()},
    }


def threshold_from(item: Any) -> CollectionThreshold:
    """The inverse of `threshold_fields`."""
    return CollectionThreshold(
        value=float(item["value"]["N"]),
        target_fmr=float(item["target_fmr"]["N"]),
        fmr=float(item["fmr"]["N"]),
        impostor_pairs=int(item["impostor_pairs"]["N"]),
        source=item["source"]["S"],
        calibrated_at=datetime.fromisoformat(item["calibrated_at"]["S"]),
    )
