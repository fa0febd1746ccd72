"""Requests with photos, whose results may come late."""

import os
import random
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

from facerec.api_answers import REFUSAL_STATUS, Pending
from facerec.background import backoff_seconds
from facerec.client.errors import StillPending, with_status
from facerec.client.models import Recognition
from facerec.client.transport import Fields, Reply, Transport
from facerec.messages import Outcome

Photo = bytes | str | os.PathLike[str]
"""The bytes of a photo, or the path of its file."""

PENDING = 202
_STATUS = {Outcome.INVALID_IMAGE: 415, Outcome.REFUSED: 422, Outcome.FAILED: 500}
_LONGEST_POLL_SECONDS = 5.0


def file_of(photo: Photo, filename: str | None = None) -> tuple[str, bytes]:
    """Return the name and the bytes of a photo; raises `OSError` for a file that cannot be read."""
    if isinstance(photo, bytes):
        return filename or "photo", photo
    path = Path(photo)
    return filename or path.name, path.read_bytes()


def segment(text: object) -> str:
    """Return a name or an id as a part of a path."""
    return quote(str(text), safe="")


def recognised(
    transport: Transport, path: str, fields: Fields, query: Mapping[str, object] | None = None
) -> Recognition:
    """Send photos; return the result, also one that comes late."""
    reply = transport.send("POST", path, fields=fields, query=query)
    return done(late_result(transport, reply)) if reply.status == PENDING else Recognition.parse(reply.body)


def earlier_result(transport: Transport, request_id: UUID | str) -> Recognition:
    """Return the result of an earlier request; raises `StillPending`."""
    reply = transport.send("GET", f"/results/{segment(request_id)}")
    if reply.status == PENDING:
        raise StillPending(Pending.parse(reply.body).request_id)
    return Recognition.parse(reply.body)


def late_result(transport: Transport, reply: Reply) -> Recognition:
    """Wait for a result that is still to come; raises `StillPending` when it is not there after `timeout`."""
    request_id = Pending.parse(reply.body).request_id
    deadline, attempts = transport.clock() + transport.timeout, 0
    while True:
        try:
            return earlier_result(transport, request_id)
        except StillPending:
            attempts += 1
            jitter = random.random()  # noqa: S311 - no secret
            wait = backoff_seconds(attempts, jitter, longest=_LONGEST_POLL_SECONDS)
            if transport.clock() + wait > deadline:
                raise
            transport.sleep(wait)


def done(result: Recognition) -> Recognition:
    """Return a result that came late; raises the error that the reply would have been."""
    request_id, why = str(result.request_id), result.detail or "the request could not be done"
    status = _STATUS.get(result.outcome)
    if result.outcome is Outcome.REFUSED and result.refusal is not None:
        status = REFUSAL_STATUS[result.refusal]
    if status is not None:
        raise with_status(status, why, 0, request_id)
    return result
