"""One suite for every object store: memory, and S3 in the emulator."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from facerec.aws.clients import Clients
from facerec.aws.object_store import S3ObjectStore
from facerec.errors import ConfigurationError, ObjectMissing, Transient
from facerec.ports import ObjectStore
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from tests.fakes.object_store import InMemoryObjectStore


@dataclass(frozen=True)
class Shelf:
    """A store with two empty buckets."""

    store: ObjectStore
    bucket: str
    other: str


@pytest.fixture(params=["memory", "emulator"])
def shelf(request: pytest.FixtureRequest) -> Shelf:
    """Each store in turn."""
    if request.param == "memory":
        return Shelf(InMemoryObjectStore(["in-bucket", "out-bucket"]), "in-bucket", "out-bucket")
    clients: Clients = request.getfixturevalue("ministack_clients")
    buckets = [f"{uuid.uuid4()}-{name}" for name in ("in", "out")]
    for bucket in buckets:
        clients.s3.create_bucket(Bucket=bucket)
    return Shelf(S3ObjectStore(clients), *buckets)


@pytest.mark.parametrize("body", [b"", b"abc", bytes(range(256)) * 4096], ids=["empty", "small", "1MB"])
def test_put_object_can_be_read(shelf: Shelf, body: bytes) -> None:
    """At once."""
    shelf.store.put(shelf.bucket, "some/key.bin", body, "application/octet-stream")
    assert shelf.store.get(shelf.bucket, "some/key.bin") == body
    assert shelf.store.exists(shelf.bucket, "some/key.bin")


def test_object_is_described_without_its_bytes(shelf: Shelf) -> None:
    """By size, type and time of storage."""
    before = datetime.now(UTC).replace(microsecond=0)
    shelf.store.put(shelf.bucket, "some/key.jpg", b"abc", "image/jpeg")
    seen = shelf.store.describe(shelf.bucket, "some/key.jpg")
    assert (seen.bucket, seen.key, seen.size, seen.content_type) == (shelf.bucket, "some/key.jpg", 3, "image/jpeg")
    assert before <= seen.stored_at <= datetime.now(UTC)
    with pytest.raises(ObjectMissing):
        shelf.store.describe(shelf.bucket, "some/other.jpg")


def test_put_overwrites(shelf: Shelf) -> None:
    """A redelivered task stores its result again."""
    shelf.store.put(shelf.bucket, "key", b"old", "text/plain")
    shelf.store.put(shelf.bucket, "key", b"new", "text/plain")
    assert shelf.store.get(shelf.bucket, "key") == b"new"
    assert shelf.store.keys(shelf.bucket) == ["key"]


def test_missing_object_raises_object_missing(shelf: Shelf) -> None:
    """It differs from an outage."""
    with pytest.raises(ObjectMissing) as caught:
        shelf.store.get(shelf.bucket, "nowhere")
    assert (caught.value.bucket, caught.value.key) == (shelf.bucket, "nowhere")
    assert not shelf.store.exists(shelf.bucket, "nowhere")


def test_delete_is_idempotent(shelf: Shelf) -> None:
    """Delete is idempotent."""
    shelf.store.put(shelf.bucket, "key", b"x", "text/plain")
    for _ in range(2):
        shelf.store.delete(shelf.bucket, "key")
        assert not shelf.store.exists(shelf.bucket, "key")


def test_keys_are_listed_by_prefix_and_sorted(shelf: Shelf) -> None:
    """Also beyond S3's pages of a thousand."""
    names = ["b/2", "b/1", "a/1", "b", "bb/1", *(f"many/{number:04d}" for number in range(1_005))]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: shelf.store.put(shelf.bucket, name, b"", "text/plain"), names))
    assert shelf.store.keys(shelf.bucket, "b/") == ["b/1", "b/2"]
    assert shelf.store.keys(shelf.bucket, "c") == []
    assert shelf.store.keys(shelf.bucket) == sorted(names)
    shelf.store.put(shelf.bucket, "b/1", b"four", "text/plain")
    assert list(shelf.store.sizes(shelf.bucket, "b/")) == [("b/1", 4), ("b/2", 0)]
    assert [key for key, _ in shelf.store.sizes(shelf.bucket)] == sorted(names)


def test_buckets_are_separate(shelf: Shelf) -> None:
    """Buckets are separate."""
    shelf.store.put(shelf.bucket, "key", b"in", "text/plain")
    assert not shelf.store.exists(shelf.other, "key")
    assert shelf.store.keys(shelf.other) == []


@pytest.mark.parametrize("size", [0, 3, 70_000_000], ids=["empty", "small", "parts"])
def test_uploaded_file_can_be_downloaded(shelf: Shelf, tmp_path: Path, size: int) -> None:
    """Also one that is sent and fetched in parts; the place in the file does not matter."""
    content = np.random.default_rng(0).bytes(size)
    written, read = tmp_path / "written", tmp_path / "read"
    written.write_bytes(content)
    with written.open("rb") as file:
        file.seek(2)
        shelf.store.upload(shelf.bucket, "!snapshots/one", file, "application/octet-stream")
    with read.open("wb+") as file:
        shelf.store.download(shelf.bucket, "!snapshots/one", file)
    assert read.read_bytes() == content
    found = shelf.store.describe(shelf.bucket, "!snapshots/one")
    assert (found.size, found.content_type) == (size, "application/octet-stream")
    assert shelf.store.keys(shelf.bucket, "!snapshots/") == ["!snapshots/one"]


def test_download_of_a_missing_object_raises_object_missing(shelf: Shelf, tmp_path: Path) -> None:
    """As `get` does."""
    with (tmp_path / "file").open("wb+") as file, pytest.raises(ObjectMissing):
        shelf.store.download(shelf.bucket, "nowhere", file)


@pytest.mark.parametrize("key", ["grinning 😀.jpg", "ünï/写真.jpg", "a (1) 'b'!.jpg", "x" * 200, "a+b&c=d?e%20f"])
def test_unusual_keys_are_unchanged(shelf: Shelf, key: str) -> None:
    """Keys contain people's file names."""
    shelf.store.put(shelf.bucket, key, b"x", "text/plain")
    assert shelf.store.keys(shelf.bucket) == [key]
    assert shelf.store.get(shelf.bucket, key) == b"x"


def test_missing_bucket_is_a_configuration_error(shelf: Shelf) -> None:
    """No retry creates it."""
    for call in (
        lambda: shelf.store.put("nobodys-bucket", "key", b"", "text/plain"),
        lambda: shelf.store.get("nobodys-bucket", "key"),
        lambda: shelf.store.keys("nobodys-bucket"),
    ):
        with pytest.raises(ConfigurationError, match="provision"):
            call()


def test_unreachable_endpoint_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unreachable endpoint is transient."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    settings = Settings(aws=AwsSettings.model_validate({"endpoint_url": "http://127.0.0.1:9"}))
    with pytest.raises(Transient):
        S3ObjectStore(Clients(settings)).keys("bucket")
    for call in (S3ObjectStore.upload, S3ObjectStore.download):
        more = ["text/plain"] if call is S3ObjectStore.upload else []
        with pytest.raises(Transient):
            call(S3ObjectStore(Clients(settings)), "bucket", "key", BytesIO(b"abc"), *more)


def test_listing_goes_on_behind_a_key(shelf: Shelf) -> None:
    """In the order of the keys, with the time of storage."""
    before = datetime.now(UTC).replace(microsecond=0)
    for key in ("b/2", "a/1", "b/10", "c"):
        shelf.store.put(shelf.bucket, key, b"x", "text/plain")
    found = list(shelf.store.listed(shelf.bucket))
    assert [each.key for each in found] == ["a/1", "b/10", "b/2", "c"]
    assert all(before <= each.stored_at <= datetime.now(UTC) for each in found)
    assert [each.key for each in shelf.store.listed(shelf.bucket, "b/10")] == ["b/2", "c"]
    assert [each.key for each in shelf.store.listed(shelf.bucket, "b/10", "b/")] == ["b/2"]
    assert list(shelf.store.listed(shelf.other)) == []
