"""Request ids that belong to an API key: only that key, or scope `admin`, reads the request's result.

The last 48 bits of such an id are a hash of its other bits and of the key's id. So no record of the owner is needed:
the owner is known while the request is pending, in every web process and after a restart. A rotated key keeps its id.
Neither messages nor workers know keys.
"""

import hashlib
from uuid import UUID, uuid4

from facerec.api_keys import ApiKey, Scope

_RANDOM_BYTES = 10
"""74 random bits and the marks of a UUID of version 4."""


def new_request_id(key: ApiKey | None) -> UUID:
    """Return a new id that belongs to the key, or to all without a key (open mode)."""
    return _owned(uuid4(), None if key is None else key.key_id)


def derived_request_id(key_id: str | None, seed: str) -> UUID:
    """Return the id of a request that has this seed, always the same one; it belongs to the key as a new one does."""
    drawn = UUID(bytes=hashlib.sha256(seed.encode()).digest()[:16], version=4)
    return _owned(drawn, key_id)


def may_read(key: ApiKey | None, request_id: UUID) -> bool:
    """Return whether the key may read the result of a request.

    Ids that belong to no key, as those of open mode, are for scope `admin`.
    """
    if key is None or key.allows(Scope.ADMIN):
        return True
    start = request_id.bytes[:_RANDOM_BYTES]
    return request_id.bytes[_RANDOM_BYTES:] == _mark(start, key.key_id)


def _owned(drawn: UUID, key_id: str | None) -> UUID:
    start = drawn.bytes[:_RANDOM_BYTES]
    return drawn if key_id is None else UUID(bytes=start + _mark(start, key_id))


def _mark(start: bytes, key_id: str) -> bytes:
    return hashlib.sha256(start + key_id.encode()).digest()[: 16 - _RANDOM_BYTES]
