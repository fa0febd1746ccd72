"""Response queues of single web processes: created at a start, removed at an end, reaped after a crash."""

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import SqsQueue, missing
from facerec.errors import QueueMissing

log = structlog.get_logger(__name__)

MIN_RETENTION_SECONDS = 60
"""SQS's lower limit."""

STALE_AFTER = timedelta(minutes=10)
"""A queue that was not renewed for this long has lost its owner."""

RENEWED_TAG = "facerec:heartbeat"
"""The tag with the time when the owner last renewed its queue; queues of running processes have this name."""
OWNER_TAG = "facerec:owner"


class ResponseQueues:
    """The queues `<response_queue>-<id>`, with their owner's name and the time of the last renewal as tags."""

    def __init__(
        self,
        clients: Clients,
        response_queue: str,
        *,
        retention_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clients = clients
        self._response_queue = response_queue
        self._retention_seconds = max(MIN_RETENTION_SECONDS, round(retention_seconds))
        self._now = now

    def create(self, owner: str, queue: str | None = None) -> str:
        """Create a queue, by default with a new name, and return its name. Results expire in it as fast as waits do."""
        queue = queue or f"{self._response_queue}-{secrets.token_hex(6)}"
        SqsQueue(self._clients.sqs, queue).create(
            {"MessageRetentionPeriod": str(self._retention_seconds)},
            {OWNER_TAG: owner, RENEWED_TAG: self._now().isoformat()},
        )
        return queue

    def renew(self, queue: str) -> None:
        """Tag the queue with the present time; due well within ten minutes. Raises `QueueMissing`."""
        tags = {RENEWED_TAG: self._now().isoformat()}
        SqsQueue(self._clients.sqs, queue).call("tag", lambda url: self._clients.sqs.tag_queue(QueueUrl=url, Tags=tags))

    def remove(self, queue: str) -> None:
        """Remove a queue; removing one that does not exist is no error."""
        try:
            SqsQueue(self._clients.sqs, queue).call("remove", lambda url: self._clients.sqs.delete_queue(QueueUrl=url))
        except QueueMissing:
            return

    def names(self) -> list[str]:
        """The queues of all owners."""
        return sorted(name for name, _ in self._owned())

    def reap(self) -> list[str]:
        """Remove the queues that were not renewed for ten minutes; returns their names.

        Removes only names that `create` gives, with a time that can be read: never the shared response queue, nor
        the queues of another deployment whose prefix begins like ours.
        """
        reaped = []
        for queue, url in self._owned():
            try:
                with missing(queue, "reap"):
                    tags = self._clients.sqs.list_queue_tags(QueueUrl=url).get("Tags", {})
                    if not self._stale(tags.get(RENEWED_TAG)):
                        continue
                    self._clients.sqs.delete_queue(QueueUrl=url)
            except QueueMissing:
                continue  # another process has removed it
            log.warning("response_queue_reaped", queue=queue, owner=tags.get(OWNER_TAG))
            reaped.append(queue)
        return reaped

    def _owned(self) -> list[tuple[str, str]]:
        ours = re.compile(re.escape(self._response_queue) + r"-[0-9a-f]{12}")
        with translated(f"list the queues of {self._response_queue!r}"):
            pages = self._clients.sqs.get_paginator("list_queues").paginate(
                QueueNamePrefix=f"{self._response_queue}-", PaginationConfig={"PageSize": 1000}
            )
            urls = [url for page in pages for url in page.get("QueueUrls", [])]
        named = [(url.rsplit("/", 1)[-1], url) for url in urls]
        return [(name, url) for name, url in named if ours.fullmatch(name)]

    def _stale(self, tag: str | None) -> bool:
        try:
            renewed_at = datetime.fromisoformat(tag or "")
        except ValueError:
            return False
        return renewed_at.tzinfo is not None and self._now() - renewed_at > STALE_AFTER
