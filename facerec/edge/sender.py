"""Sends the spool's messages in order, and removes those that AWS IoT has acknowledged."""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import structlog

from facerec.background import BackgroundThread, OutageLog, backoff_seconds
from facerec.edge.counters import Counters
from facerec.edge.link import Link
from facerec.edge.spool import Spool, SpooledMessage, SpoolFailed
from facerec.errors import Refused, Transient

log = structlog.get_logger(__name__)

_CONNECTED_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A message that is not acknowledged yet."""

    message: SpooledMessage
    acknowledged: "Future[None]"


class Sender:
    """One thread between the spool and the link; `start` once, `stop` once.

    Up to `in_flight` messages are sent before the first of them is acknowledged. After a failure those that were not
    acknowledged are sent again, from the oldest on: each message at least once, and in order but for such repetitions.
    A message that is refused is removed: counted, and logged once per topic and reason until a message is accepted.
    """

    def __init__(
        self,
        spool: Spool,
        link: Link,
        counters: Counters,
        *,
        in_flight: int,
        backoff: Callable[[int, float], float] = backoff_seconds,
    ) -> None:
        self._spool = spool
        self._link = link
        self._counters = counters
        self._in_flight = in_flight
        self._backoff = backoff
        self._window: deque[_Sent] = deque()
        self._last = 0
        """The number of the message that was sent last."""
        self._finished: list[int] = []
        """Acknowledged or refused, and still in the spool."""
        self._failures = 0
        self._refusals: set[tuple[str, str]] = set()
        self._spool_outage = OutageLog("spool")
        self._stop_at: float | None = None
        self._events = 0
        """Counts what may give the thread something to do."""
        self._changed = threading.Condition()
        self._thread = BackgroundThread("edge-sender", lambda _: self._run())
        spool.on_added = self._wake

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Send what the spool still has, as long as that succeeds, for at most so long; then end the thread.

        What was not acknowledged stays in the spool.
        """
        with self._changed:
            self._stop_at = time.monotonic() + grace_seconds
        self._wake()
        self._thread.stop()

    def _wake(self, _: object = None) -> None:
        with self._changed:
            self._events += 1
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            seen = self._events
            try:
                awaiting = self._step()
            except Exception as exc:  # noqa: BLE001 - whatever it is, it must not end the thread
                if not self._recover(exc):
                    break
                continue
            if self._stop_at is not None and not awaiting:
                break
            self._await_event(seen)
            if self._seconds_left() == 0:
                break
        self._end()

    def _await_event(self, seen: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._events != seen, self._seconds_left())

    def _step(self) -> bool:
        """Take what was acknowledged, and send more; returns whether acknowledgements are awaited.

        Raises `Transient` if the link or the spool fails.
        """
        while self._window and self._window[0].acknowledged.done():
            failure = self._conclude(self._window.popleft())
            if failure is not None:
                raise failure
        if len(self._finished) >= self._in_flight:
            self._remove_finished()
        while (room := self._in_flight - len(self._window)) > 0:
            messages = self._spool.oldest(room, self._last)
            if not messages:
                break
            for message in messages:
                self._send(message)
                if self._window and self._window[-1].acknowledged.done():
                    return True  # it may have failed at once: no later message must overtake it
        if not self._window:
            self._remove_finished()
        return bool(self._window)

    def _send(self, message: SpooledMessage) -> None:
        self._last = message.number
        if message.number in self._finished:  # while others before it are sent again
            return
        sent = _Sent(message, self._link.publish(message.topic, message.payload))
        self._window.append(sent)
        sent.acknowledged.add_done_callback(self._wake)

    def _conclude(self, sent: _Sent) -> BaseException | None:
        """Note what became of a message; returns why it must be sent again, if it must."""
        message = sent.message
        failure = sent.acknowledged.exception()
        if failure is None:
            self._counters.add("messages")
            self._counters.add("bytes", len(message.payload))
            self._failures = 0
            self._refusals.clear()
            log.debug("message_sent", topic=message.topic, number=message.number, bytes=len(message.payload))
        elif isinstance(failure, Refused):
            self._counters.add("refused")
            refusal = (message.topic, str(failure))
            if refusal not in self._refusals:
                self._refusals.add(refusal)
                log.error("message_refused", topic=message.topic, reason=str(failure), bytes=len(message.payload))
        else:
            self._last = min(self._last, message.number - 1)
            return failure
        self._finished.append(message.number)
        return None

    def _recover(self, exc: Exception) -> bool:
        """Wait until sending may succeed again; returns whether it should be tried, which ends with `stop`."""
        if isinstance(exc, SpoolFailed):
            self._spool_outage.failed(exc)
        elif not isinstance(exc, Transient):
            log.error("sending_failed", exc_info=exc)
        self._failures += 1
        pause = self._backoff(self._failures, random.random())  # noqa: S311 - no secret
        with self._changed:
            if self._changed.wait_for(lambda: self._stop_at is not None, pause):
                return False
        while not self._link.wait_connected(_CONNECTED_POLL_SECONDS):
            if self._stop_at is not None:
                return False
        self._settle_window()
        return True

    def _settle_window(self) -> None:
        """Wait for what is in flight, so that it is not sent twice without need; the rest is sent again.

        A link may itself send it again when it is connected again.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._stop_at is not None or all(sent.acknowledged.done() for sent in self._window),
                _SETTLE_SECONDS,
            )
        while self._window:
            sent = self._window.popleft()
            if sent.acknowledged.done():
                self._conclude(sent)
            else:
                self._last = min(self._last, sent.message.number - 1)

    def _remove_finished(self) -> None:
        if self._finished:
            self._spool.remove(self._finished)
            self._finished.clear()
        self._spool_outage.succeeded()

    def _end(self) -> None:
        for sent in self._window:
            if sent.acknowledged.done():
                self._conclude(sent)
        try:
            self._remove_finished()
        except SpoolFailed as exc:
            log.warning("messages_not_removed", reason=str(exc), effect="they are sent again after the next start")

    def _seconds_left(self) -> float | None:
        """Until the grace ends; `None` without a stop."""
        return None if self._stop_at is None else max(0.0, self._stop_at - time.monotonic())
