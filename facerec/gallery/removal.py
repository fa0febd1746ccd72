"""The removal of templates with their photos and the published snapshots. Without numpy, as the web tier needs it."""

from collections.abc import Sequence

from facerec.object_keys import SNAPSHOTS_PREFIX, safe_name
from facerec.ports import EnrolledPeople, ObjectStore

_THUMBNAIL = "thumbnail/face.jpg"


def photo_prefix(collection: str, identifier: str) -> str:
    """Return the prefix of the keys of a template's photo in the gallery bucket."""
    return f"{collection}/{identifier}/"


def photo_key(collection: str, identifier: str, filename: str) -> str:
    """Return the key of a template's photo in the gallery bucket."""
    return photo_prefix(collection, identifier) + safe_name(filename)


def thumbnail_key(collection: str, identifier: str) -> str:
    """Return the key of the small picture of a template's face; never that of a photo of any name."""
    return photo_prefix(collection, identifier) + _THUMBNAIL


def is_thumbnail(key: str) -> bool:
    """Whether a key in the gallery bucket is that of a thumbnail."""
    return key.endswith(f"/{_THUMBNAIL}")


def remove_templates(
    templates: EnrolledPeople, photos: ObjectStore, bucket: str, collection: str, template_ids: Sequence[str]
) -> int:
    """Remove templates, their photos, and the collection's published snapshots; returns how many templates there were.

    The templates are removed last: after an interruption they are still listed, and a repeated call completes the
    removal.
    """
    if not template_ids:
        return 0
    for identifier in template_ids:
        for key in photos.keys(bucket, photo_prefix(collection, identifier)):
            photos.delete(bucket, key)
    withdraw(photos, bucket, collection)
    removed = templates.remove(collection, template_ids)
    withdraw(photos, bucket, collection)  # what another command has published meanwhile
    return removed


def withdraw(objects: ObjectStore, bucket: str, collection: str) -> int:
    """Delete all published snapshots of a collection, before and after a removal of templates; returns how many."""
    keys = objects.keys(bucket, f"{SNAPSHOTS_PREFIX}{collection}/")
    for key in keys:
        objects.delete(bucket, key)
    return len(keys)
