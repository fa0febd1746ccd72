"""How often something may happen, as operators write it: `6000/minute`. Pure."""

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
