"""Which collection a request may use: that of its key, and those that it created."""

from facerec.api_keys import ApiKey, Scope
from facerec.message_base import DEFAULT_COLLECTION
from facerec.ports import CollectionRecord, Collections


def own_collection(key: ApiKey | None) -> str:
    """Return the collection of a request that names none; in open mode the default one."""
    return DEFAULT_COLLECTION if key is None else key.collection


def may_use(key: ApiKey | None, collection: str, record: CollectionRecord | None = None) -> bool:
    """Whether a request may use this collection: its key's own, in open mode and with scope `admin` any.

    With the collection's `record` also one that the key created.
    """
    if key is None or key.allows(Scope.ADMIN) or key.collection == collection:
        return True
    return record is not None and record.collection == collection and record.owner == key.key_id


def may_use_or_owns(key: ApiKey | None, collection: str, collections: Collections) -> bool:
    """Whether a request may use this collection, also as the key that created it; may raise `Transient`."""
    return may_use(key, collection) or may_use(key, collection, collections.get(collection))
