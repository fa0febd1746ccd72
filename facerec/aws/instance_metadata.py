"""EC2's notices to an instance about its own end, from version 2 of the instance metadata service.

Sources: "Spot Instance interruption notices" and "EC2 instance rebalance recommendations" in the EC2 User Guide. A
notice comes two minutes before the instance is stopped or terminated; AWS advises to ask every 5 s.
"""

import json
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException

import structlog

from facerec.background import OutageLog

log = structlog.get_logger(__name__)

_INTERRUPTION = "/latest/meta-data/spot/instance-action"
_REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
_TOKEN_SECONDS = "60"  # noqa: S105 - a token is valid for one look; none is kept, so none expires
_MOST_BYTES = 4096


class SpotNotices:
    """Asks at most every `every_seconds`; for one thread. No answer is no notice."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        every_seconds: float = 5.0,
        timeout_seconds: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = (host, port)
        self._every_seconds = every_seconds
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._asked_at: float | None = None
        self._interrupted = False
        self._rebalance = False
        self._outage = OutageLog("instance_metadata")

    def interrupted(self) -> bool:
        """Whether EC2 has announced that it takes the instance back; it never withdraws that."""
        now = self._monotonic()
        if not self._interrupted and (self._asked_at is None or now - self._asked_at >= self._every_seconds):
            self._asked_at = now
            self._ask()
        return self._interrupted

    def _ask(self) -> None:
        try:
            token = self._call("PUT", "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS})
            headers = {"X-aws-ec2-metadata-token": token or ""}
            notice = self._notice(_INTERRUPTION, headers)
            if notice is not None:
                log.warning("spot_interruption", notice=notice)
                self._interrupted = True
            elif not self._rebalance and (advice := self._notice(_REBALANCE, headers)) is not None:
                log.info("rebalance_recommended", notice=advice)
                self._rebalance = True
        except Exception as exc:  # noqa: BLE001 - whatever it is, the caller's heartbeat must go on
            self._outage.failed(exc)
        else:
            self._outage.succeeded()

    def _notice(self, path: str, headers: dict[str, str]) -> str | None:
        """The notice, or `None` for 404; a page of something else than EC2 is an error."""
        text = self._call("GET", path, headers)
        if text is not None and not isinstance(json.loads(text), dict):
            raise ValueError(f"{path} is no notice")
        return text

    def _call(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        """The answer, or `None` for 404."""
        connection = HTTPConnection(*self._address, timeout=self._timeout_seconds)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            body = response.read(_MOST_BYTES)
        finally:
            connection.close()
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        if response.status != HTTPStatus.OK:
            raise HTTPException(f"{method} {path}: HTTP {response.status}")
        return body.decode("utf-8", "replace")
