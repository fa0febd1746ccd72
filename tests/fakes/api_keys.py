"""API keys in memory; tests/contracts compares it with DynamoDB."""

import threading

from facerec.api_keys import ApiKey
from facerec.errors import ApiKeyUnreadable, FacerecError
from facerec.ports import ListedKeys


class InMemoryApiKeys:
    """`ApiKeys` in a dictionary, safe for many threads. While `outage` is set every call raises it."""

    def __init__(self, *keys: ApiKey) -> None:
        self._lock = threading.Lock()
        self._keys = {key.key_id: key for key in keys}
        self.damaged: set[str] = set()
        """The ids whose record cannot be read."""
        self.outage: Exception | None = None
        self.reads: list[str] = []
        """The ids that `get` was asked for."""

    def get(self, key_id: str) -> ApiKey | None:
        with self._lock:
            self.reads.append(key_id)
            self._reach()
            if key_id in self.damaged:
                raise _unreadable(key_id)
            return self._keys.get(key_id)

    def keys(self) -> ListedKeys:
        with self._lock:
            self._reach()
            readable = [key for key in self._keys.values() if key.key_id not in self.damaged]
            return ListedKeys(
                sorted(readable, key=lambda key: (key.created_at, key.key_id)),
                [_unreadable(key_id) for key_id in sorted(self.damaged)],
            )

    def put(self, key: ApiKey) -> None:
        with self._lock:
            self._reach()
            known = self._keys.get(key.key_id)
            if (0 if known is None else known.revision) != key.revision - 1:
                raise FacerecError(f"key {key.key_id} was changed by someone else just now: try again")
            self._keys[key.key_id] = key

    def _reach(self) -> None:
        if self.outage is not None:
            raise self.outage


class HangingApiKeys(InMemoryApiKeys):
    """Does not answer `get` before it is released."""

    def __init__(self, *keys: ApiKey) -> None:
        super().__init__(*keys)
        self.release = threading.Event()

    def get(self, key_id: str) -> ApiKey | None:
        assert self.release.wait(30)
        return super().get(key_id)


def _unreadable(key_id: str) -> ApiKeyUnreadable:
    return ApiKeyUnreadable(f"API key {key_id} cannot be read: it is damaged, or of a later version")
