"""What both links know and log of their connection."""

import threading
from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic

import structlog

from facerec.edge.link import LinkState, ReceivedMessage
from facerec.errors import Transient
from facerec.settings.edge import EdgeSettings

log = structlog.get_logger(__name__)

_FLAPPING_SECONDS = 60.0
CLOSED = Transient("the link to AWS IoT Core is closed")
"""How a publish fails after `close`."""


class Connection:
    """The state of one connection; safe for many threads.

    Each reason of an outage is logged once while the outage lasts, and its end once; so is a refused subscription.
    """

    def __init__(self, **fields: object) -> None:
        self._log = log.bind(**fields)
        self._changed = threading.Condition()
        self._connected = False
        self._reconnections = -1
        self._outage: list[str] = []
        """The reasons since the connection was lost, each once."""
        self._refusals: dict[str, str] = {}
        """Why topics could not be subscribed."""
        self._flapping: str | None = None
        self._ends: deque[float] = deque(maxlen=2)

    @property
    def state(self) -> LinkState:
        """The connection as it is now."""
        with self._changed:
            problem = None
            for topic, refusal in self._refusals.items():
                problem = f"no messages of {topic} come: {refusal}"
            if not self._connected and self._outage:
                problem = self._outage[-1]
            if self._flapping is not None and monotonic() - self._ends[-1] < _FLAPPING_SECONDS:
                problem = self._flapping
            return LinkState(self._connected, problem, max(self._reconnections, 0))

    def wait_connected(self, timeout_seconds: float) -> bool:
        """Wait until it is connected; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._connected, timeout_seconds)

    def connected(self) -> None:
        """Note that it is connected."""
        with self._changed:
            self._connected = True
            self._reconnections += 1
            reasons, self._outage = self._outage, []
            self._changed.notify_all()
        if reasons:
            self._log.info("iot_core_reachable_again", reasons=len(reasons))
        else:
            self._log.info("iot_core_connected")

    def failed(self, reason: str) -> None:
        """Note that it is not connected, and why."""
        with self._changed:
            self._connected = False
            known = reason in self._outage
            if known:
                self._outage.remove(reason)
            self._outage.append(reason)
        if not known:
            self._log.warning("iot_core_unreachable", reason=reason)

    def ended_by_server(self, explanation: str) -> None:
        """Note that the server has ended the connection; `explanation` is what it means if that happens twice a minute.

        Then it is logged as an error, once, and it is the problem until there has been none for a minute.
        """
        with self._changed:
            self._ends.append(monotonic())
            twice = len(self._ends) == self._ends.maxlen and self._ends[-1] - self._ends[0] < _FLAPPING_SECONDS
            said = self._flapping == explanation
            if twice:
                self._flapping = explanation
        if twice and not said:
            self._log.error("iot_core_connection_flapping", problem=explanation)

    def subscribed(self, topic: str, refusal: str | None) -> None:
        """Note that a topic was subscribed, or why it was refused."""
        with self._changed:
            known = self._refusals.pop(topic, None)
            if refusal is not None:
                self._refusals[topic] = refusal
        if refusal not in {None, known}:
            self._log.error("subscription_refused", topic=topic, reason=refusal)

    def closed(self) -> None:
        """Note that it was closed on purpose."""
        with self._changed:
            self._connected = False
            self._outage = []


class Blame:
    """Finds a message at which the server ends the connection each time; for one thread at a time.

    IoT Core disconnects a device that publishes what its policy does not allow. Such a message must not block those
    after it; nor may a message be given up because the network is bad.
    """

    SAID = 10
    """The weight of a disconnect whose reason is what was sent: 3 of them are enough."""
    SILENT = 1
    """The weight of one without a reason, as a bad network causes it, too: 30 of them, which take minutes."""
    _LIMIT = 30

    def __init__(self) -> None:
        self._suspect: tuple[str, bytes] | None = None
        self._weight = 0

    def clear(self) -> None:
        """Note that a message was acknowledged: the connection works."""
        self._suspect, self._weight = None, 0

    def add(self, topic: str, payload: bytes, weight: int) -> bool:
        """Blame the first message that was in flight at a disconnect; returns whether to give it up."""
        if self._suspect != (topic, payload):
            self._suspect, self._weight = (topic, payload), 0
        self._weight += weight
        return self._weight >= self._LIMIT


def too_large(payload: bytes, settings: EdgeSettings) -> str | None:
    """Return why a message is not sent that is larger than the settings allow; None if it is not."""
    most = settings.max_message_bytes
    return f"it is larger than FACEREC_EDGE__MAX_MESSAGE_BYTES ({most})" if len(payload) > most else None


def deliver(handlers: Mapping[str, Callable[[ReceivedMessage], None]], message: ReceivedMessage) -> None:
    """Call the topic's handler; a message that makes it fail is logged and acknowledged: it would fail again."""
    handler = handlers.get(message.topic)
    try:
        if handler is not None:
            handler(message)
            return
    except Exception:
        log.exception("edge_message_failed", topic=message.topic)
    message.acknowledge()
