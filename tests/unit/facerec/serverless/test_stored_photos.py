"""A photo that was put into the bucket is processed once, unless one of our own tiers has put it there."""

from typing import Any
from uuid import UUID

import pytest

from facerec.errors import ConfigurationError, InvalidMessage
from facerec.object_keys import output_key
from facerec.serverless.events import EventKind, kind_of
from facerec.serverless.invocation import Invocation, Unfinished
from facerec.serverless.stored_photos import StoredPhotos
from facerec.settings import Settings
from facerec.settings.resources import NameSettings
from tests.fakes.functions import Context, DetectionTier
from tests.fakes.object_store import InMemoryObjectStore
from tests.support.logs import capture_logs

SETTINGS = Settings(names=NameSettings(input_bucket="in", output_bucket="out"))


def put(key: str, *, size: int = 1024, bucket: str = "in", **stored: str) -> dict[str, Any]:
    """The record of a put, as S3 sends it."""
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": "2026-11-30T12:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": key, "size": size, "eTag": "d41d8cd98f00b204e9800998ecf8427e"} | stored,
        },
    }


class World:
    """A detection function between fakes."""

    def __init__(self) -> None:
        self.store, self.tier = InMemoryObjectStore(), DetectionTier()
        self.photos = StoredPhotos(SETTINGS, self.store, self.tier.half.fail, self.tier.driver)

    def invoke(self, *records: Any, seconds: float = 15) -> None:
        event = {"Records": list(records)}
        assert kind_of(event) is EventKind.S3
        self.photos.answer(event, Invocation(Context(seconds)))

    def ids(self) -> list[UUID]:
        """Of the requests that were processed."""
        return [request.request_id for request, _ in self.tier.half.seen]


@pytest.fixture
def world() -> World:
    """One of its own for each test."""
    return World()


def test_photo_is_processed_under_its_key(world: World) -> None:
    """The key of an event is encoded as in a URL."""
    world.invoke(put("inbox/J%C3%A4ne+Doe%2B1.jpg", sequencer="1"))
    ((request, attempt),) = world.tier.half.seen
    assert (request.input.key, request.filename) == ("inbox/Jäne Doe+1.jpg", "Jäne Doe+1.jpg")
    assert (request.reply_to, request.input.size, attempt) == ("facerec-resp-queue", 1024, 1)
    assert request.submitted_at.isoformat() == "2026-11-30T12:00:00+00:00"


def test_repeated_event_has_the_same_request_id(world: World) -> None:
    """It publishes the stored result; another put of the key is another request."""
    world.invoke(put("inbox/a.jpg", sequencer="1"))
    (first,) = world.ids()
    world.store.put("out", output_key(first, "a.jpg"), b"{}", "application/json")
    world.invoke(put("inbox/a.jpg", sequencer="1"))
    world.invoke(put("inbox/a.jpg", sequencer="2"))
    world.invoke(put("inbox/a.jpg", sequencer="2", versionId="v"))
    assert world.ids().count(first) == 2
    assert len(set(world.ids())) == 3
    assert [attempt for _, attempt in world.tier.half.seen] == [1, 2, 1, 1]


@pytest.mark.parametrize(
    "key",
    [
        "00000000-0000-4000-8000-000000000001/a.jpg",
        "00000000-0000-4000-8000-000000000001/a.faces",
        "inbox/",
    ],
)
def test_object_of_another_tier_is_ignored(world: World, key: str) -> None:
    """No photo is processed twice."""
    with capture_logs() as logs:
        world.invoke(put(key))
    assert world.ids() == []
    assert [entry["event"] for entry in logs] == ["object_ignored"]


def test_too_large_photo_is_answered_and_not_read(world: World) -> None:
    """It would fill the memory."""
    world.invoke(put("inbox/a.jpg", size=16_000_000))
    assert (world.ids(), world.tier.half.failed) == ([], ["the picture is too large: at most 15 MB are taken"])


def test_photo_of_another_bucket_is_dead_lettered(world: World) -> None:
    """The function reads the input bucket alone."""
    world.invoke(put("inbox/a.jpg", bucket="somebody-elses"))
    (reason,) = world.tier.reasons()
    assert "'somebody-elses'" in reason


def test_failure_raises_after_every_photo_was_tried(world: World) -> None:
    """Lambda invokes the function for the event again."""
    world.tier.half.raised["a"] = ConfigurationError("no access")
    with pytest.raises(ConfigurationError):
        world.invoke(put("inbox/a.jpg"), put("inbox/b.jpg"))
    assert len(world.ids()) == 2


def test_failure_is_never_the_last_delivery(world: World) -> None:
    """Lambda counts the invocations, not the function."""
    world.tier.max_receives = float("inf")
    world.tier.half.raised["a"] = ConfigurationError("no access")
    for _ in range(5):
        with pytest.raises(ConfigurationError):
            world.invoke(put("inbox/a.jpg"))
    assert world.tier.reasons() == []


def test_unfinished_photo_raises_before_the_time_is_over(world: World) -> None:
    """Lambda would end the process without a word."""
    with pytest.raises(Unfinished):
        world.invoke(put("inbox/hold.jpg"), seconds=1.6)
    world.tier.half.held.set()


@pytest.mark.parametrize("change", [{"s3": None}, {"s3": {"bucket": {}}}, {"eventTime": "today"}, {"eventTime": None}])
def test_unreadable_record_raises(world: World, change: dict[str, Any]) -> None:
    """It goes to the failure destination."""
    with pytest.raises(InvalidMessage, match="record of S3"):
        world.invoke(put("inbox/a.jpg") | change)
