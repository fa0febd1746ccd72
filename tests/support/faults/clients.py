"""Clients as they should be: each comes at its time, and sends again or fetches later as the replies tell it to."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from tests.support.faults.rig import Rig

_AGAIN = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
_BROKEN_PAUSE_SECONDS = 1.0
_FETCH_PAUSE_SECONDS = 1.0
_REPLY_SECONDS = 240.0
"""Above the web tier's own wait, so that its reply is seen."""


Harmful = Callable[[Rig, threading.Event], None]
"""Does harm to a system; the event is set once the last client has its answer."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One upload: a file name of its own, and the names that are right (none for a picture that kills the engine)."""

    filename: str
    body: bytes
    answer: str | None


@dataclass(slots=True)
class Story:
    """What happened to one client.

    `text` is the answer on the connection; `fetched` is the stored result where it had to be asked for. `told` is a
    final refusal. With none of them the client went unserved. Each time it sent again is counted as `refused` (told to)
    or `broken` (the connection broke, and it knows no request id).
    """

    photo: Photo
    text: str | None = None
    fetched: dict[str, object] | None = None
    told: tuple[int, str] | None = None
    request_id: str | None = None
    refused: int = 0
    broken: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who uploads how: `per_second` clients come whatever happens to those before; each gives up after `patience`."""

    url: str
    per_second: float
    patience_seconds: float = 300.0
    longest_pause_seconds: float = 30.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret

    def upload(self, photos: Iterator[Photo], least: int, enough: Callable[[], bool] = lambda: True) -> list[Story]:
        """Upload at least so many photos, and more until it is enough; returns when every client has ended."""
        return asyncio.run(self._upload(photos, least, enough))

    async def _upload(self, photos: Iterator[Photo], least: int, enough: Callable[[], bool]) -> list[Story]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=_REPLY_SECONDS, trust_env=False) as client:
            began = time.monotonic()
            clients: list[asyncio.Task[Story]] = []
            while len(clients) < least or not enough():
                await asyncio.sleep(max(0.0, began + len(clients) / self.per_second - time.monotonic()))
                clients.append(asyncio.create_task(self._live(client, next(photos))))
            return await asyncio.gather(*clients)

    async def _live(self, client: httpx.AsyncClient, photo: Photo) -> Story:
        story = Story(photo)
        began = time.monotonic()
        while not await self._ask(client, story) and time.monotonic() - began < self.patience_seconds:
            continue
        story.seconds = time.monotonic() - began
        return story

    async def _ask(self, client: httpx.AsyncClient, story: Story) -> bool:
        """One try; whether it was the last, because the client has its answer."""
        try:
            if story.request_id is not None:
                return await self._fetch(client, story, story.request_id)
            file = (story.photo.filename, story.photo.body, "image/jpeg")
            reply = await client.post(self.url, files={"inputFile": file})
        except httpx.HTTPError:
            story.broken += 1
            await self._pause(_BROKEN_PAUSE_SECONDS)
            return False
        if reply.status_code == HTTPStatus.OK:
            story.text, story.request_id = reply.text.strip(), reply.headers["x-request-id"]
            return True
        if reply.status_code in _AGAIN:
            story.refused += 1
            await self._pause(float(reply.headers.get("retry-after", 1)))
            return False
        if reply.status_code == HTTPStatus.GATEWAY_TIMEOUT:
            story.request_id = reply.headers["x-request-id"]  # its result will appear under it
            return False
        story.told = (reply.status_code, reply.text.strip())
        return True

    async def _fetch(self, client: httpx.AsyncClient, story: Story, request_id: str) -> bool:
        reply = await client.get(f"{self.url}api/v1/results/{request_id}")
        if reply.status_code == HTTPStatus.OK:
            story.fetched = reply.json()
            return True
        await self._pause(_FETCH_PAUSE_SECONDS)
        return False

    async def _pause(self, seconds: float) -> None:
        """As long as asked, and up to a quarter longer, so that those who failed together do not come together."""
        await asyncio.sleep(min(seconds, self.longest_pause_seconds) * (1 + self.chance.random() / 4))


def upload_under(
    harm: Harmful,
    rig: Rig,
    crowd: Crowd,
    photos: Iterator[Photo],
    least: int,
    *,
    lasts: bool = False,
) -> list[Story]:
    """Upload at least so many photos while harm is done, and more until it has been done unless it lasts.

    The harm is done in a thread of its own; what that raises is raised here.
    """
    over = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="harm") as thread:
        doing = thread.submit(harm, rig, over)
        try:
            stories = crowd.upload(photos, least, lambda: lasts or doing.done())
        finally:
            over.set()
        doing.result()
    return stories
