"""The texts of the pages: `en.toml` has them all, so a translation is one more such file."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

LANGUAGE = "en"


@cache
def catalogue() -> Mapping[str, str]:
    """Return every text by its key, such as `people.merge`."""
    return dict(_flat(tomllib.loads(files("facerec.web.pages").joinpath(f"{LANGUAGE}.toml").read_text("utf-8")), ""))


def text(key: str, **values: object) -> str:
    """Return a text with its values; a text of two forms, `one | other`, is chosen by the value `n`.

    Raises `KeyError` for a text or a value that is missing.
    """
    one, bar, other = catalogue()[key].partition(" | ")
    return (other if bar and values["n"] != 1 else one).format_map(values)


def _flat(section: Mapping[str, Any], prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in section.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return found
