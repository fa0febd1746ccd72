"""The texts of the pages: `en.toml` has them all, so a translation is one more such file."""

import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from markupsafe import Markup, escape

LANGUAGE = "en"


@cache
def catalogue() -> Mapping[str, str]:
    """Return every text by its key, such as `people.merge`."""
    return dict(_flat(tomllib.loads(files("facerec.web.pages").joinpath(f"{LANGUAGE}.toml").read_text("utf-8")), ""))


def text(key: str, **values: object) -> str:
    """Return a text with its values; a text of two forms, `one | other`, is chosen by the value `n`.

    Raises `KeyError` for a text or a value that is missing.
    """
    return _form(key, values).format_map(values)


def markup(key: str, **values: object) -> Markup:
    """Return a text as part of a page, with its values escaped unless they are markup; as `text` otherwise."""
    return escape(_form(key, values)).format_map(values)


class Number(int):
    """A number that a page shows in its reader's format, also inside a text."""

    def __html__(self) -> Markup:
        """Return the element."""
        return Markup('<data value="{0}">{0}</data>').format(int(self))


class Ratio(float):
    """A similarity or a threshold, which a page shows with two decimals."""

    def __html__(self) -> Markup:
        """Return the element."""
        return Markup('<data value="{0}" data-digits="2">{0:.2f}</data>').format(float(self))


class Percent(float):
    """A share from 0 to 1 that a page shows in percent."""

    def __html__(self) -> Markup:
        """Return the element."""
        return Markup('<data value="{0}" data-percent>{1:.3g} %</data>').format(float(self), 100 * self)


def moment(time: datetime) -> Markup:
    """Return a time that a page shows in its reader's format and zone, also inside a text."""
    return Markup('<time datetime="{}">{}</time>').format(time.isoformat(), f"{time:%Y-%m-%d %H:%M} UTC")


def _form(key: str, values: Mapping[str, object]) -> str:
    one, bar, other = catalogue()[key].partition(" | ")
    return other if bar and values["n"] != 1 else one


def _flat(section: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in section.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found
