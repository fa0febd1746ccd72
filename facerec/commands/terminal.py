"""What commands share: options, and how they print. It needs only the core, for commands of every install use it."""

import getpass
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from facerec.echo import Line, echo, echo_document, make_console, parts, plain
from facerec.errors import FacerecError
from facerec.message_base import DEFAULT_COLLECTION
from facerec.text import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
OTHER_PERSON_STATUS = 3
"""The exit status of a command that was given a photo which is enrolled for another person."""
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST = timedelta(days=3650)

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
collection_option = click.option("--collection", default=DEFAULT_COLLECTION, show_default=True, help="Which gallery.")
exact_names_option = click.option(
    "--exact-names",
    is_flag=True,
    help="A name that differs only in case, blanks, the form of letters or a dot at the end is another person.",
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", "openvino", "onnxruntime", "torch"]),
    help="What runs the networks.  [default: FACEREC_ENGINE]",
)


class Duration(click.ParamType[timedelta]):
    """A length of time such as 90s, 15m, 1.5h or 7d; ten years at most, so that dates can be computed with it."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse it."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd])", str(value))
        # Compared as a number: a `timedelta` with more digits cannot be made.
        seconds = float(found[1]) * _UNIT_SECONDS[found[2]] if found else None
        if seconds is None or seconds > _LONGEST.total_seconds():
            self.fail(f"{value!r} is not a duration up to ten years: write it like 90s, 15m, 24h or 90d", param, ctx)
        return timedelta(seconds=seconds)


class PictureFile(click.Path):
    """A file to write, in a folder that exists and is writable."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; fails with what is wrong with its folder."""
        path = super().convert(value, param, ctx)
        folder = Path(os.fsdecode(path)).resolve().parent
        if not folder.is_dir():
            self.fail(f"there is no folder {str(folder)!r}", param, ctx)
        if not os.access(folder, os.W_OK):
            self.fail(f"the folder {str(folder)!r} is not writable", param, ctx)
        return path


def operator() -> str:
    """Return who calls a command, as records of what was done name it."""
    try:
        return f"operator {getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in a container
        return "operator"


def print_columns(rows: Sequence[Sequence[object]]) -> None:
    """Print rows in columns as wide as a terminal shows them: in many scripts a character takes two cells, or none.

    A cell is a `Line` or an object with a text.
    """
    from rich.cells import cell_len

    texts: list[list[Line]] = [[cell if isinstance(cell, tuple) else str(cell) for cell in row] for row in rows]
    widths = [max(cell_len(plain(cell)) for cell in column) for column in zip(*texts, strict=True)]
    for row in texts:
        *cells, last = zip(row, widths, strict=True)
        padded = ((*parts(cell), " " * (width - cell_len(plain(cell))), "  ") for cell, width in cells)
        echo(*chain.from_iterable(padded), *parts(last[0]))


def print_facts(rows: Sequence[tuple[str, str]], *, name_width: int = 30) -> None:
    """Print names and texts in two columns; long texts are wrapped."""
    formatter = click.HelpFormatter(width=110)
    formatter.write_dl([(one_line(name), one_line(text)) for name, text in rows], col_max=name_width)
    echo_document(formatter.getvalue())


def tracked(items: Iterable[Item], description: str, *, total: int | None = None) -> Iterator[Item]:
    """Yield the items, with a progress bar on a terminal's stderr; `total` is for items without a length."""
    with progress_bar(as_json=True) as progress:
        yield from progress.track(items, total=total, description=description)


@contextmanager
def progress_bar(*, as_json: bool) -> "Iterator[Progress]":
    """Yield a progress bar, drawn on a terminal only: on stderr with `as_json`, or below the lines that are printed."""
    from rich.progress import Progress, ProgressColumn, Task
    from rich.table import Column
    from rich.text import Text

    class Description(ProgressColumn):
        """It may have the name of a file or a collection in it, which is no markup."""

        def render(self, task: Task) -> Text:
            return Text(one_line(task.description), "progress.description")

    console = make_console(stderr=as_json)
    with Progress(
        Description(Column(no_wrap=True)),
        *Progress.get_default_columns()[1:],
        console=console,
        transient=True,
        redirect_stdout=not as_json,
        disable=not console.is_terminal,
    ) as progress:
        yield progress


def write_documents(folder: Path, documents: Mapping[str, object]) -> None:
    """Write each document as NAME.json into a folder that --write names; raises `FacerecError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    except OSError as exc:
        raise FacerecError(f"cannot write to {folder}: {exc.strerror}; see --write") from exc
