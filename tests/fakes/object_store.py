"""An object store in memory; tests/contracts compares it with S3."""

import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from facerec.errors import ConfigurationError, FacerecError, ObjectMissing
from facerec.ports import ListedObject, StoredObject


class InMemoryObjectStore:
    """`ObjectStore` in memory; without `buckets` every bucket exists. While `outage` is set every call raises it."""

    def __init__(
        self, buckets: Iterable[str] | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._now = now
        self._buckets = None if buckets is None else frozenset(buckets)
        self._objects: dict[tuple[str, str], tuple[bytes, str, datetime]] = {}
        self._lock = threading.Lock()
        self.outage: FacerecError | None = None

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        """Store an object."""
        with self._lock:
            self._check(bucket)
            self._objects[bucket, key] = (body, content_type, self._now().replace(microsecond=0))

    def get(self, bucket: str, key: str) -> bytes:
        """Return an object's bytes; raises `ObjectMissing`."""
        with self._lock:
            self._check(bucket)
            if (bucket, key) not in self._objects:
                raise ObjectMissing(bucket, key)
            return self._objects[bucket, key][0]

    def describe(self, bucket: str, key: str) -> StoredObject:
        """Return an object's size, type and time; raises `ObjectMissing`, also for a missing bucket."""
        with self._lock:
            if self.outage is not None:
                raise self.outage
            if (bucket, key) not in self._objects:
                raise ObjectMissing(bucket, key)
            body, content_type, stored_at = self._objects[bucket, key]
            return StoredObject(bucket, key, len(body), content_type, stored_at)

    def exists(self, bucket: str, key: str) -> bool:
        """Return whether the object exists; False for a missing bucket, which S3's HEAD reply does not distinguish."""
        with self._lock:
            if self.outage is not None:
                raise self.outage
            return (bucket, key) in self._objects

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key that begins with the prefix, sorted."""
        with self._lock:
            self._check(bucket)
            return sorted(key for b, key in self._objects if b == bucket and key.startswith(prefix))

    def sizes(self, bucket: str, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield the key and size of each object with the prefix."""
        for key in self.keys(bucket, prefix):
            yield key, len(self.get(bucket, key))

    def listed(self, bucket: str, after: str = "", prefix: str = "") -> Iterator[ListedObject]:
        """Yield every object with the prefix behind the key, sorted by key."""
        with self._lock:
            self._check(bucket)
            found = [ListedObject(key, stored) for (b, key), (_, _, stored) in self._objects.items() if b == bucket]
        yield from sorted(each for each in found if each.key > after and each.key.startswith(prefix))

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""
        with self._lock:
            self._check(bucket)
            self._objects.pop((bucket, key), None)

    def upload(self, bucket: str, key: str, file: BinaryIO, content_type: str) -> None:
        """Store a file."""
        file.seek(0)
        self.put(bucket, key, file.read(), content_type)

    def download(self, bucket: str, key: str, file: BinaryIO) -> None:
        """Write an object to a file; raises `ObjectMissing`."""
        file.write(self.get(bucket, key))

    def content_type(self, bucket: str, key: str) -> str:
        """What an object was stored as, for assertions."""
        return self._objects[bucket, key][1]

    def _check(self, bucket: str) -> None:
        if self.outage is not None:
            raise self.outage
        if self._buckets is not None and bucket not in self._buckets:
            raise ConfigurationError(f"there is no bucket {bucket!r}; has `facerec provision` been run?")


class RecordingObjectStore(InMemoryObjectStore):
    """`stored` are the keys that were put, `fetched` the last parts of the keys that were got."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.stored: list[str] = []

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        super().put(bucket, key, body, content_type)
        self.stored.append(key)

    def get(self, bucket: str, key: str) -> bytes:
        body = super().get(bucket, key)
        self.fetched.append(Path(key).name)
        return body
