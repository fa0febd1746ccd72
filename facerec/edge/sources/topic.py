"""Frames that other programs send over MQTT, on the topic `clients/<thing>`."""

import base64
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import structlog

from facerec.edge.counters import Counters
from facerec.edge.frame import Frame, FrameLimits, FrameSink
from facerec.edge.link import Link, ReceivedMessage
from facerec.edge_messages import FrameMessage, frames_topic
from facerec.errors import InvalidMessage
from model.header import InvalidImage

log = structlog.get_logger(__name__)


class TopicSource:
    """A `FrameSource` of the `FrameMessage`s of a thing's topic.

    A message is acknowledged when its frame is settled. So a client with QoS 1 is held back, because the broker sends
    no more than the link's receive maximum before that, and the frames come again after a crash. Frames with QoS 0
    come as fast as they are sent: of a burst the oldest are dropped. A message that comes again while its frame waits
    brings no second frame.

    A message that is no frame is acknowledged, too, or it would come again for ever: it is counted (`malformed`), and
    the first of each kind is logged.
    """

    def __init__(
        self,
        link: Link,
        thing: str,
        counters: Counters,
        limits: FrameLimits,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._link = link
        self._topic = frames_topic(thing)
        self._counters = counters
        self._limits = limits
        self._now = now
        self._logged: set[str] = set()
        """The kinds of malformed messages that were logged."""
        self._waiting: dict[UUID, list[ReceivedMessage]] = {}
        """The messages of the frames that are not settled."""
        self._lock = threading.Lock()
        self.subscribed = threading.Event()
        """Set as soon as `run` takes messages: a link must not connect before, or it has no use for what waits."""

    @property
    def problem(self) -> str | None:
        """None: that of the link is in the link's own state."""
        return None

    def run(self, sink: FrameSink, stopping: threading.Event) -> None:
        """Have the link's messages become frames until the event is set."""

        def take(message: ReceivedMessage) -> None:
            if not stopping.is_set():
                self._take(message, sink)

        self._link.subscribe(self._topic, take)
        self.subscribed.set()
        stopping.wait()

    def _take(self, message: ReceivedMessage, sink: FrameSink) -> None:
        try:
            frame = self._frame(message)
        except _Malformed as exc:
            message.acknowledge()
            self._counters.add("malformed")
            if exc.kind not in self._logged:
                self._logged.add(exc.kind)
                log.warning("frame_malformed", topic=message.topic, kind=exc.kind, reason=str(exc))
            return
        with self._lock:
            waits = frame.request_id in self._waiting
            self._waiting.setdefault(frame.request_id, []).append(message)
        if not waits:
            sink.put(frame)

    def _frame(self, message: ReceivedMessage) -> Frame:
        try:
            fields = FrameMessage.parse(message.payload)
        except InvalidMessage as exc:
            raise _Malformed("message", str(exc)) from exc
        try:
            image = base64.b64decode(fields.encoded, validate=True)
        except ValueError as exc:
            raise _Malformed("base64", f"the field encoded is not base64: {exc}") from exc
        try:
            self._limits.check(image)
        except InvalidImage as exc:
            raise _Malformed("picture", str(exc)) from exc
        return Frame(
            request_id=fields.request_id,
            filename=fields.filename,
            image=image,
            captured_at=self._now(),
            droppable=message.qos == 0,
            settled=partial(self._settle, fields.request_id),
        )

    def _settle(self, request_id: UUID) -> None:
        with self._lock:
            messages = self._waiting.pop(request_id)
        for message in messages:
            message.acknowledge()


class _Malformed(Exception):
    """The message is no frame."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
