"""Lengths of time on the command line."""

import re
from datetime import timedelta

import click

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = timedelta(days=3650)


class Duration(click.ParamType[timedelta]):
    """A length of time such as 90s, 15m, 1.5h or 7d, of ten years at most, so that dates can be reckoned with it."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Read it."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", str(value))
        # Compared as a number: a `timedelta` of more digits would not come into being.
        seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else None
        if seconds is None or seconds > _LONGEST.total_seconds():
            self.fail(f"{value!r} is no duration up to ten years: write it like 90s, 15m, 24h or 90d", param, ctx)
        return timedelta(seconds=seconds)
