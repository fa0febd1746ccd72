"""How often something may happen, as operators write it: `6000/minute`. Pure."""

import ipaddress
import re
from dataclasses import dataclass

_UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_WRITTEN = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_UNIT_SECONDS)})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many times within so many seconds."""

    count: int
    seconds: int


def parse_rate(text: str) -> Rate | None:
    """Read a rate; the empty text is none. Raises `ValueError` with the right way to write it."""
    if not text:
        return None
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise ValueError("write it like 6000/minute (second, minute, hour or day), or leave it empty for none")
    return Rate(int(found[1]), _UNIT_SECONDS[found[2]])


def on_loopback(host: str) -> bool:
    """Whether what listens on the host, an address or a name, is reached from this machine alone; resolves nothing."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
