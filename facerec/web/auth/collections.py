"""Which collection a request may use: that of its key."""

from facerec.api_keys import ApiKey, Scope
from facerec.message_base import DEFAULT_COLLECTION


def own_collection(key: ApiKey | None) -> str:
    """Return the collection of a request that names none; in open mode the default one."""
    return DEFAULT_COLLECTION if key is None else key.collection


def may_use(key: ApiKey | None, collection: str) -> bool:
    """Whether a request may use this collection: its key's own, in open mode and with scope `admin` any."""
    return key is None or key.allows(Scope.ADMIN) or key.collection == collection
