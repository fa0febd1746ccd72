"""Well-behaved clients: each uploads at its time, then repeats the upload or fetches its result, as the replies ask."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus

import httpx

from tests.support.faults.proxied_system import ProxiedSystem

_AGAIN = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS})
_BROKEN_PAUSE_SECONDS = 1.0
_FETCH_PAUSE_SECONDS = 1.0
_REPLY_SECONDS = 240.0
"""Longer than the web tier waits, so that its reply arrives."""


FaultAction = Callable[[ProxiedSystem, threading.Event], None]
"""Injects a fault into a system; the event is set when the last client has its answer."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One upload: a file name of its own, and the names that are right (none for a picture that kills the engine)."""

    filename: str
    body: bytes
    answer: str | None


@dataclass(slots=True)
class ClientOutcome:
    """What one client received.

    `text` is the answer on the connection, `fetched` the stored result if the client had to fetch it, `told` a final
    refusal. Without any of them the client was not served. `refused` counts the replies that asked it to send again,
    `broken` the connections that broke before it had a request id.
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
class UploadClients:
    """Starts `per_second` clients, also while earlier ones wait; each gives up after `give_up_seconds`."""

    url: str
    per_second: float
    give_up_seconds: float = 300.0
    longest_pause_seconds: float = 30.0
    chance: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - no secret

    def upload(
        self, photos: Iterator[Photo], least: int, enough: Callable[[], bool] = lambda: True
    ) -> list[ClientOutcome]:
        """Upload at least `least` photos, and more until `enough()`; return when every client has ended."""
        return asyncio.run(self._upload(photos, least, enough))

    async def _upload(self, photos: Iterator[Photo], least: int, enough: Callable[[], bool]) -> list[ClientOutcome]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=_REPLY_SECONDS, trust_env=False) as client:
            began = time.monotonic()
            clients: list[asyncio.Task[ClientOutcome]] = []
            while len(clients) < least or not enough():
                await asyncio.sleep(max(0.0, began + len(clients) / self.per_second - time.monotonic()))
                clients.append(asyncio.create_task(self._live(client, next(photos))))
            return await asyncio.gather(*clients)

    async def _live(self, client: httpx.AsyncClient, photo: Photo) -> ClientOutcome:
        outcome = ClientOutcome(photo)
        began = time.monotonic()
        while not await self._ask(client, outcome) and time.monotonic() - began < self.give_up_seconds:
            continue
        outcome.seconds = time.monotonic() - began
        return outcome

    async def _ask(self, client: httpx.AsyncClient, outcome: ClientOutcome) -> bool:
        """Try once; return whether the client has its answer."""
        try:
            if outcome.request_id is not None:
                return await self._fetch(client, outcome, outcome.request_id)
            file = (outcome.photo.filename, outcome.photo.body, "image/jpeg")
            reply = await client.post(self.url, files={"inputFile": file})
        except httpx.HTTPError:
            outcome.broken += 1
            await self._pause(_BROKEN_PAUSE_SECONDS)
            return False
        if reply.status_code == HTTPStatus.OK:
            outcome.text, outcome.request_id = reply.text.strip(), reply.headers["x-request-id"]
            return True
        if reply.status_code in _AGAIN:
            outcome.refused += 1
            await self._pause(float(reply.headers.get("retry-after", 1)))
            return False
        if reply.status_code == HTTPStatus.GATEWAY_TIMEOUT:
            outcome.request_id = reply.headers["x-request-id"]  # its result will appear under it
            return False
        outcome.told = (reply.status_code, reply.text.strip())
        return True

    async def _fetch(self, client: httpx.AsyncClient, outcome: ClientOutcome, request_id: str) -> bool:
        reply = await client.get(f"{self.url}api/v1/results/{request_id}")
        if reply.status_code == HTTPStatus.OK:
            outcome.fetched = reply.json()
            return True
        await self._pause(_FETCH_PAUSE_SECONDS)
        return False

    async def _pause(self, seconds: float) -> None:
        """Wait as long as asked and up to a quarter longer, so that clients do not return all at once."""
        await asyncio.sleep(min(seconds, self.longest_pause_seconds) * (1 + self.chance.random() / 4))


def upload_under(
    harm: FaultAction,
    system: ProxiedSystem,
    clients: UploadClients,
    photos: Iterator[Photo],
    least: int,
    *,
    lasts: bool = False,
) -> list[ClientOutcome]:
    """Upload at least `least` photos while a thread injects the fault, and more until it is done, unless it lasts.

    An exception of that thread is raised here.
    """
    over = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="harm") as thread:
        doing = thread.submit(harm, system, over)
        try:
            outcomes = clients.upload(photos, least, lambda: lasts or doing.done())
        finally:
            over.set()
        doing.result()
    return outcomes
