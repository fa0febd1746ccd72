"""An object store in memory that tells what was asked of it."""

from pathlib import Path

from tests.fakes.object_store import InMemoryObjectStore


class Shelf(InMemoryObjectStore):
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
