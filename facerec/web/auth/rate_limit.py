"""Rate limits: a token bucket for each client, kept as one number in bounded memory.

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
"""Clients that are remembered; beyond, the least recent one is forgotten and begins with a full bucket."""


class RateLimiter:
    """Allows each client `rate.count` requests at once, and more as its bucket refills; safe for many threads.

    It is the generic cell rate algorithm (ITU-T I.371), which keeps only the time at which a bucket will be full again.
    Without a rate there is no limit.
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
        """Return the whole seconds the client would have to wait, 0 if none; counts nothing."""
        return self._wait(client, take=False)

    def take(self, client: str) -> int:
        """Return the same, and count the request if the client need not wait."""
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
    """Return what is limited as one client: an IPv4 address, an IPv6 /64 network, or `unknown`."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return "unknown"
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return str(ip.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(ip) >> 64 << 64, 64)))
    return str(ip)
