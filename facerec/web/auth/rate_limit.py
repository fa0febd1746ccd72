"""How often each client may come: a bucket of tokens for each, kept as one number in bounded memory.

The `limits` package was measured first: for 20 000 addresses its moving window keeps an entry each for ever, and its
expiry, which looks at all of them every 10 ms, takes 80 % of a core (the sliding window's 30 %).
"""

import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from facerec.settings.values import Rate

MAX_CLIENTS = 10_000
"""Clients that are remembered; of more, those that came least recently begin anew."""


class RateLimiter:
    """Lets each client come `rate.count` times at once, and again as its bucket refills evenly; safe for many threads.

    It is the generic cell rate algorithm (ITU-T I.371): of each client only the time is kept at which its bucket will
    be full again. Without a rate everyone may always come.
    """

    def __init__(
        self, rate: Rate | None, *, max_clients: int = MAX_CLIENTS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._max_clients = max_clients
        self._clock = clock
        self._lock = threading.Lock()
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many clients are remembered."""
        return len(self._full_at)

    def wait_seconds(self, client: str) -> int:
        """How long the client would have to wait, in whole seconds; 0 when it may come now. Nothing is counted."""
        return self._wait(client, take=False)

    def take(self, client: str) -> int:
        """The same, and the visit is counted when the client may come now."""
        return self._wait(client, take=True)

    def _wait(self, client: str, *, take: bool) -> int:
        if self._rate is None:
            return 0
        with self._lock:
            now = self._clock()
            full_at = max(now, self._full_at.get(client, now)) + self._rate.seconds / self._rate.count
            missing = full_at - self._rate.seconds - now
            # A billionth of a second is what rounding makes of nothing.
            if missing > 1e-9:  # noqa: PLR2004 - see above
                return math.ceil(missing)
            if take:
                self._full_at[client] = full_at
                self._full_at.move_to_end(client)
                if len(self._full_at) > self._max_clients:
                    self._full_at.popitem(last=False)
        return 0


def client_network(address: str | None) -> str:
    """What stands for a client: its IPv4 address, or the /64 network that an IPv6 client has to itself.

    What is no address stands for all that are none.
    """
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)
