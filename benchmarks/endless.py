"""Clients that upload until a condition holds, and send again when a reply asks them to."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from benchmarks.roundtrip import Photo
from tests.support.load import Reply

_REPLY_SECONDS = 240.0
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(slots=True)
class ContinuousUploads:
    """`concurrency` clients, each with one open upload at any time, so that a fault affects all of them.

    `replies` and `photos` go together; `refused` counts the replies that asked a client to send again.
    """

    url: str
    samples: Sequence[Photo]
    concurrency: int
    replies: list[Reply] = field(default_factory=list)
    photos: list[Photo] = field(default_factory=list)
    refused: int = 0
    open: int = 0
    """Uploads that wait for their answer at this moment."""
    _begun: int = 0

    def upload(self, least: int, enough: Callable[[], bool]) -> None:
        """Upload a least number of photos, and more until the condition holds; returns when all are answered."""
        asyncio.run(self._upload(least, enough))

    async def _upload(self, least: int, enough: Callable[[], bool]) -> None:
        # No keep-alive: each client of the contract comes on a new connection.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        bodies = [photo.path.read_bytes() for photo in self.samples]
        async with httpx.AsyncClient(limits=limits, timeout=_REPLY_SECONDS, trust_env=False) as client:

            async def uploading() -> None:
                while self._begun < least or not enough():
                    number, self._begun = self._begun, self._begun + 1
                    photo = self.samples[number % len(bodies)]
                    filename = f"{number:05d}_{photo.path.name}"
                    self.open += 1
                    reply = await self._answered(client, filename, bodies[number % len(bodies)])
                    self.open -= 1
                    self.replies.append(reply)
                    self.photos.append(photo)

            await asyncio.gather(*(uploading() for _ in range(self.concurrency)))

    async def _answered(self, client: httpx.AsyncClient, filename: str, body: bytes) -> Reply:
        began = time.perf_counter()
        while True:
            try:
                response = await client.post(self.url, files={"inputFile": (filename, body, "image/jpeg")})
            except httpx.HTTPError as exc:
                return Reply(filename, 0, repr(exc), time.perf_counter() - began)
            seconds = time.perf_counter() - began
            if response.status_code != HTTPStatus.SERVICE_UNAVAILABLE or seconds > _REPLY_SECONDS:
                return Reply(filename, response.status_code, response.text, seconds)
            self.refused += 1
            await asyncio.sleep(min(float(response.headers.get("Retry-After", 1)), _LONGEST_PAUSE_SECONDS))
