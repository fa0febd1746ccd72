"""How commands print. It needs nothing but the core: commands of every install use it."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from model.faces import Box

Item = TypeVar("Item")
_WIDTH = 240
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def console() -> "Console":
    """Standard output; off a terminal lines are long rather than folded."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDTH)


def print_columns(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns as wide as a terminal shows their texts, which for many scripts is not their length."""
    from rich.cells import cell_len

    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def tracked(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """The items, with a progress bar on a terminal's stderr; the total where the items do not tell it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, redirect_stdout=False, disable=not console.is_terminal) as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def progress_bar(*, as_json: bool) -> "Iterator[Progress]":
    """Yield a progress bar, drawn on a terminal only; lines printed meanwhile appear above it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=as_json)
    with Progress(
        console=console, transient=True, redirect_stdout=not as_json, disable=not console.is_terminal
    ) as progress:
        yield progress


def places(boxes: "Iterable[Box]") -> str:
    """Where faces are, as `width x height at left, top` in pixels of the upright picture."""
    return "; ".join(
        f"{box.x_max - box.x_min:.0f} x {box.y_max - box.y_min:.0f} at {box.x_min:.0f}, {box.y_min:.0f}"
        for box in boxes
    )


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


class PictureFile(click.Path):
    """A file to write, in a folder that is there and may be written to."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path; fails with what is wrong about its folder."""
        path = super().convert(value, param, ctx)
        folder = Path(os.fsdecode(path)).resolve().parent
        if not folder.is_dir():
            self.fail(f"there is no folder {str(folder)!r}", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"the folder {str(folder)!r} cannot be written to", param, ctx)
        return path
