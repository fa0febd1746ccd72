"""The client: one server, one API key, one pool of connections."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from uuid import UUID

import urllib3

from facerec.api_answers import Erasure, Receipt
from facerec.client.jobs import Jobs
from facerec.client.models import Recognition
from facerec.client.people import People, Photos
from facerec.client.photo_requests import Photo, earlier_result, file_of, recognised, segment
from facerec.client.transport import Transport
from facerec.client.unknown import Unknown

_CONNECTIONS = 16
"""Kept open; more threads than these make connections for single requests."""


class Client:
    """A client of one server. Use it with `with`, from as many threads as you like.

    A method raises the errors of `facerec.client.errors`. Requests are repeated while the server is busy
    (`retry_seconds`). `timeout` is how long the server may take for an answer; a server answers within
    FACEREC_WEB__WAIT_SECONDS. When it says then that a result is still to come, the client asks for it for as long
    again. `pool` is one of your own, such as a `ProxyManager`, or one with another certificate authority.
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout: float = 200.0,
        retry_seconds: float = 60.0,
        pool: urllib3.PoolManager | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = Transport(
            url=url,
            key=key,
            timeout=timeout,
            retry_seconds=retry_seconds,
            pool=urllib3.PoolManager(maxsize=_CONNECTIONS) if pool is None else pool,
            sleep=sleep,
            clock=clock,
        )
        self.people = People(self._transport)
        self.photos = Photos(self._transport)
        self.jobs = Jobs(self._transport)
        self.unknown = Unknown(self._transport)

    def __repr__(self) -> str:
        """Name the server, and no key."""
        return f"Client({self._transport.url!r})"

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def upload(self, photo: Photo, *, filename: str | None = None) -> str:
        """Send a photo to `POST /`; returns the line, such as `ada.jpg: face detected - Ada Lovelace`."""
        fields = {"inputFile": file_of(photo, filename)}
        return self._transport.send("POST", "/", fields=fields, prefix="").body.decode().rstrip("\n")

    def recognise(
        self,
        photo: Photo,
        *,
        filename: str | None = None,
        collection: str | None = None,
        threshold: float | None = None,
        nearest: int = 0,
    ) -> Recognition:
        """Find out who is on a photo; `nearest` also lists so many people for each face, whatever their similarity."""
        query = {"collection": collection, "threshold": threshold, "nearest": nearest or None}
        return recognised(self._transport, "/recognise", {"file": file_of(photo, filename)}, query)

    def detect(self, photo: Photo, *, filename: str | None = None) -> Recognition:
        """Find the faces of a photo."""
        return recognised(self._transport, "/detect", {"file": file_of(photo, filename)})

    def compare(self, source: Photo, target: Photo) -> Recognition:
        """Compare the largest face of `source` with every face of `target`: `faces`, each with its similarity."""
        return recognised(
            self._transport, "/compare", {"source": file_of(source, None), "target": file_of(target, None)}
        )

    def verify(
        self,
        photo: Photo,
        person: str,
        *,
        filename: str | None = None,
        collection: str | None = None,
        threshold: float | None = None,
    ) -> Recognition:
        """Compare every face of a photo with a person: `faces`, each with its similarity, and the `threshold`."""
        query = {"person": person, "collection": collection, "threshold": threshold}
        return recognised(self._transport, "/verify", {"file": file_of(photo, filename)}, query)

    def result(self, request_id: UUID | str) -> Recognition:
        """Return the result of an earlier request of this key; raises `StillPending`."""
        return earlier_result(self._transport, request_id)

    def erasure(self, erasure_id: UUID | str) -> Erasure:
        """Return the ledger of an erasure, which a removal began."""
        return Erasure.parse(self._transport.send("GET", f"/erasures/{segment(erasure_id)}").body)

    def receipt(self, erasure_id: UUID | str) -> Receipt:
        """Return the signed receipt of an erasure; raises `NotFound` also for a server that signs none."""
        return Receipt.parse(self._transport.send("GET", f"/erasures/{segment(erasure_id)}/receipt").body)
