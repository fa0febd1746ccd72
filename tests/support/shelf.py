"""An object store in memory that tells what was asked of it."""

from pathlib import Path

from facerec.errors import ObjectMissing


class Shelf:
    """`ObjectStore` in one dictionary for every bucket; `stored` are keys, `fetched` the last parts of keys."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.stored: list[str] = []

    def put(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        self.objects[key] = body
        self.stored.append(key)

    def get(self, bucket: str, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(bucket, key)
        self.fetched.append(Path(key).name)
        return self.objects[key]

    def exists(self, bucket: str, key: str) -> bool:
        return key in self.objects

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def delete(self, bucket: str, key: str) -> None:
        self.objects.pop(key, None)
