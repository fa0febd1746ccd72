"""One client: its requests and replies, and whether it is slow with either.

Waitress does not look at a client that has a request queued or a reply to take: whoever takes no reply would keep its
connection, and the thread that writes to it, for as long as it likes.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from waitress.adjustments import Adjustments
from waitress.channel import ClientDisconnected, HTTPChannel

from facerec.web.framing import Parser, Refusal, Surplus, last_words
from facerec.web.pace import Pace
from facerec.web.replies import Reply
from facerec.web.screening import ScreenedTask

if TYPE_CHECKING:
    import socket

    from facerec.web.connections import Listener

IDLE_SECONDS = 75
"""A connection without a byte for this long, and without a request being worked on, is closed. Longer than the 60 s of
AWS's load balancers, which must be the first to close: they answer 502 where the target was."""

BODY_GRACE_SECONDS = 10
"""How far a body, or a reply that is being taken, may fall behind the least speed."""

GOOD_SPEED = 16
"""Whoever sends at this many times the least speed is never among the slowest."""

REQUESTS_AT_ONCE = 8
"""So many that come before the first is answered are refused. Waitress takes thousands out of one packet."""


class Connection(HTTPChannel):  # type: ignore[misc] # waitress has no annotations
    """One client.

    `began` is when it connected, or began the request that is being read, or was last sent something.
    """

    task_class = ScreenedTask
    error_task_class = Refusal
    server: "Listener"
    addr: tuple[str, int]
    connected: bool
    request: Parser | None
    requests: list[Parser]
    total_outbufs_len: int
    close_when_flushed: bool
    will_close: bool
    began: float
    silent = True

    def __init__(
        self, server: "Listener", sock: "socket.socket", addr: tuple[str, int], *rest: Any, **options: Any
    ) -> None:
        self.began = now = server.clock()
        least = server.settings.min_bytes_per_second
        self._least, self._good = Pace(least, now), Pace(GOOD_SPEED * least, now)
        super().__init__(server, sock, addr, *rest, **options)

    def parser_class(self, adjustments: Adjustments) -> Parser:
        """What reads the next request."""
        kind = Parser if len(self.requests) < REQUESTS_AT_ONCE - 1 else Surplus
        return kind(adjustments, preview=self.server.preview, address=self.addr[0])

    def received(self, data: bytes) -> bool:
        """Take bytes from the socket."""
        now = self.server.clock()
        self.silent = False
        before, had = self.request, self._body_bytes
        going_on: bool = super().received(data)
        if self.request is None or self.request is not before:
            self._begin(now)
            had = 0
        self._pay(self._body_bytes - had, now)
        self._drop_surplus()
        self.server.weigh(self.request, len(data))
        return going_on

    def write_soon(self, data: Any) -> int:
        """Queue a piece of a reply, in a thread; from the first piece on the client has to take it."""
        if not self.total_outbufs_len:
            self._begin(self.server.clock())
        count: int = super().write_soon(data)
        return count

    def send(self, data: bytes, *, do_close: bool = True) -> int:
        """Give bytes to the socket; returns how many it took."""
        sent: int = super().send(data, do_close=do_close)
        if sent:
            self.began = self.server.clock()
            self._pay(sent, self.began)
        return sent

    def readable(self) -> bool:
        """Whether bytes may come; not after the end, when another connection may have the descriptor."""
        return self.connected and bool(super().readable())

    def writable(self) -> bool:
        """Whether bytes are to leave, likewise."""
        return self.connected and bool(super().writable())

    def handle_close(self) -> None:
        """Close; a thread leaves it to the loop, which goes through the connections all the time."""
        if self.server.on_loop():
            super().handle_close()
        else:
            self.will_close = True
            self.server.pull_trigger()

    @property
    def refused(self) -> bool:
        """Whether what it sends is thrown away."""
        return self.request is not None and self.request.refused

    def idle(self, now: float) -> bool:
        """Whether nothing has been asked or answered for long."""
        at_rest = self.request is None and not self.requests and not self.total_outbufs_len
        return at_rest and now - self.began > IDLE_SECONDS

    def overdue(self, now: float) -> bool:
        """Whether the client is slower than the settings allow."""
        if self.total_outbufs_len:
            return self._least.behind(now) > BODY_GRACE_SECONDS
        if self.requests:
            return False
        if self.request is None:
            # Between two requests the time for idle connections counts.
            return self.silent and now - self.began > self.server.settings.header_seconds
        if not self.request.headers_finished:
            return now - self.began > self.server.settings.header_seconds
        return self._least.behind(now) > BODY_GRACE_SECONDS

    def slowness(self, now: float) -> float:
        """Seconds spent without anything to show for them; 0 while the application works for the client.

        Less than 0, at least -`CREDIT_SECONDS`, while bytes flow well. A refused body has nothing to show.
        """
        if self.refused:
            return now - self.began
        if self.requests and not self.total_outbufs_len:
            return 0
        return self._good.behind(now)

    def excuse(self, seconds: float) -> None:
        """Leave out seconds that were not the client's."""
        self.began += seconds
        self._least.excuse(seconds)
        self._good.excuse(seconds)

    def turn_out(self, reply: Reply) -> None:
        """Close, with the reply if a request had begun and nothing else is being said; to be called on the loop."""
        with self.requests_lock:
            if self.requests and not self.total_outbufs_len:
                return  # the last reply has left meanwhile, and the next is being worked on
            speaking = self.total_outbufs_len or self.close_when_flushed or self.will_close
            self.close_when_flushed = True
            unfinished, self.request = self.request, None
        if unfinished is not None:
            unfinished.close()
            if not speaking:
                self.server.refused(reply.status)
                with suppress(ClientDisconnected):
                    self.write_soon(last_words(reply))
        # Not by waitress' `will_close`, which waits until the socket takes bytes: whoever does not read is not waited
        # for. A thread that waits for the reply to leave wakes up.
        self.handle_close()

    def _drop_surplus(self) -> None:
        """Of too many requests only the one that may have begun is answered, before the client is told."""
        with self.requests_lock:
            if self.requests and isinstance(self.requests[-1], Surplus):
                for request in self.requests[1:-1]:
                    request.close()
                del self.requests[1:-1]

    @property
    def _body_bytes(self) -> int:
        return 0 if self.request is None else int(self.request.body_bytes_received)

    def _begin(self, now: float) -> None:
        self.began = now
        self._least.restart(now)
        self._good.restart(now)

    def _pay(self, count: int, now: float) -> None:
        self._least.pay(count, now)
        self._good.pay(count, now)
