"""The base class of the groups of settings, and the types of their values: bounded numbers and rates. Pure."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

PositiveSeconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

_UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(rf"([1-9][0-9]{{0,8}})/({'|'.join(_UNIT_SECONDS)})", re.ASCII)


class Group(BaseModel):
    """A group of settings; its fields are the variables `FACEREC_<GROUP>__<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit of `count` events in `seconds`."""

    count: int
    seconds: int


def parse_rate(text: str) -> Rate | None:
    """Read a rate such as `6000/minute`; the empty text is no limit. Raises `ValueError` with the right form."""
    if not text:
        return None
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError("write it like 6000/minute (second, minute, hour or day), or leave it empty for no limit")
    return Rate(int(found[1]), _UNIT_SECONDS[found[2]])


def _checked_rate(text: str) -> str:
    parse_rate(text)
    return text


RateText = Annotated[str, AfterValidator(_checked_rate)]


def _checked_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    for network in networks:
        ipaddress.ip_network(network)  # its error says what is wrong
    return networks


NetworkList = Annotated[tuple[str, ...], AfterValidator(_checked_networks)]

_LOG_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731)
"""Up to two years, what CloudWatch takes as the retention of logs."""


def _checked_log_days(days: int) -> int:
    if days not in _LOG_DAYS:
        raise ValueError(f"CloudWatch keeps logs for {', '.join(map(str, _LOG_DAYS))} days")
    return days


LogDays = Annotated[int, AfterValidator(_checked_log_days)]


def on_loopback(host: str) -> bool:
    """Whether only this machine reaches the address or name; a name is not resolved."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
