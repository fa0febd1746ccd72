"""How commands print. It needs nothing but the core: commands of every install use it."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from facerec.keys import is_text

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


def plain(text: str) -> str:
    """What a terminal may show: file names, log lines and messages come from strangers. Controls become blanks."""
    return "".join(character if is_text(character) else " " for character in text)
