"""What the receipt of an erasure says: what was removed where, who has confirmed it, and what is still owed."""

from datetime import datetime
from typing import Any

from facerec import __version__
from facerec.erasure_records import ErasureRecord, Place, PlaceState

STAYS = {
    "backups of the tables": "DynamoDB's point-in-time recovery: 35 days",
    "change records of the collection": "template ids, which are hashes of photos, without names: 10 000 changes",
    "rejections of other people": "faces that are not somebody else, without names: until that person is removed",
    "logs": "template ids and file names of uploads: your log retention",
    "versions and replicas of buckets": "only if you switched them on: their own rules",
    "copies outside the system": "exported archives, photos that were enrolled from, devices, reports: you delete them",
    "web processes": "names and file names in memory, never shown, until the collection is used again",
    "idle Lambda functions": "name and embedding in memory, until their next call, or until AWS ends them",
}
"""What no erasure reaches, with how long it stays; docs/security.md explains each."""


def content_of(record: ErasureRecord, now: datetime) -> dict[str, Any]:
    """Return what the receipt of an erasure says."""
    return {
        "erasure_id": record.erasure_id,
        "collection": record.collection,
        "everyone": record.everyone,
        "subject_hashes": list(record.subject_hashes),
        "asked_by": record.by,
        "begun_at": record.begun_at.isoformat(),
        "completed_at": None if record.completed_at is None else record.completed_at.isoformat(),
        "collection_version": record.version,
        "places": [_place(place) for place in record.places if place.state is not PlaceState.OWED],
        "still_owed": [_place(place) for place in record.still_owed],
        "not_reached": STAYS,
        "issued_at": now.isoformat(),
        "issued_by": f"facerec {__version__}",
    }


def _place(place: Place) -> dict[str, Any]:
    return {
        "place": place.name,
        "state": str(place.state),
        "removed": place.removed,
        "confirmed_at": None if place.confirmed_at is None else place.confirmed_at.isoformat(),
        "confirmed_by": place.confirmed_by,
        "detail": place.detail,
    }
