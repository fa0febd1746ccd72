"""Concurrent HTTP clients: every upload on a connection of its own."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Upload:
    """One photo to send under a file name."""

    filename: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one upload; status 0 stands for a connection that broke, with the reason in `text`."""

    filename: str
    status: int
    text: str
    seconds: float


def upload_all(url: str, uploads: Sequence[Upload], concurrency: int, timeout_seconds: float = 240) -> list[Reply]:
    """Send every upload to `POST /`, at most `concurrency` at once; the replies are in the order of the uploads."""
    return asyncio.run(_upload_all(url, uploads, concurrency, timeout_seconds))


async def _upload_all(url: str, uploads: Sequence[Upload], concurrency: int, timeout_seconds: float) -> list[Reply]:
    gate = asyncio.Semaphore(concurrency)
    # No keep-alive: each client of the contract comes on a new connection.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(limits=limits, timeout=timeout_seconds, trust_env=False) as client:

        async def one(upload: Upload) -> Reply:
            async with gate:
                started = time.perf_counter()
                try:
                    response = await client.post(url, files={"inputFile": (upload.filename, upload.body, "image/jpeg")})
                except httpx.HTTPError as exc:
                    return Reply(upload.filename, 0, repr(exc), time.perf_counter() - started)
                return Reply(upload.filename, response.status_code, response.text, time.perf_counter() - started)

        return list(await asyncio.gather(*(one(upload) for upload in uploads)))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of a non-empty sequence."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))]
