"""What commands print. Names, file names and error sentences come from outside and must not control the terminal.

All text for people goes through these functions; ruff refuses `click.echo`, `print` and rich's own `Console` elsewhere.
"""

import json
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from facerec.text import lines, one_line, visible_json

if TYPE_CHECKING:
    from rich.console import Console

_WIDTH = 240


class Styled(NamedTuple):
    """A text in a colour or in bold."""

    text: str
    fg: str | None = None
    bold: bool = False


Line = str | Styled | tuple[str | Styled, ...]
"""One line of text, or the parts of one."""


def plain(line: Line) -> str:
    """Return the line as a terminal shows it, without styles."""
    return "".join(one_line(part if isinstance(part, str) else part.text) for part in parts(line))


def styled(line: Line) -> str:
    """Return the line with the styles of its parts."""
    return "".join(
        one_line(part)
        if isinstance(part, str)
        else click.style(one_line(part.text), fg=part.fg, bold=part.bold or None)
        for part in parts(line)
    )


def echo(*parts: str | Styled, err: bool = False, file: IO[str] | None = None) -> None:
    """Print one line on standard output, on stderr, or into a file; breaks and controls in it become blanks."""
    click.echo(styled(parts), err=err, file=file)


def echo_document(text: str, *, err: bool = False) -> None:
    """Print a text of several lines that is ours, such as a script or a table; its breaks and tabs stay."""
    click.echo(lines(text), err=err, nl=not text.endswith("\n"))


def echo_error(
    sentence: str, *, several_lines: bool = False, program: str = "facerec", file: IO[str] | None = None
) -> None:
    """Print why a program ends, on stderr, in one line.

    With `several_lines` further ones are indented, so that none looks like a message of its own.
    """
    first, *rest = sentence.split("\n") if several_lines else [sentence]
    for line in [f"{program}: {first}", *(line if line.startswith("  ") else f"  {line}" for line in rest)]:
        echo(line, err=file is None, file=file)


def echo_json(value: Any, *, indent: int | None = 2, default: Callable[[Any], Any] | None = None) -> None:
    """Print a value as JSON for programs; letters of all scripts stay readable, controls are escaped."""
    click.echo(visible_json(json.dumps(value, indent=indent, ensure_ascii=False, default=default)))


def confirm(question: str) -> bool:
    """Ask; any answer but yes ends the command."""
    return click.confirm(one_line(question), abort=True)


def console() -> "Console":
    """Return rich's console on standard output; off a terminal its lines are long rather than folded."""
    return make_console(width=None if sys.stdout.isatty() else _WIDTH)


def make_console(**options: Any) -> "Console":
    """Return rich's console with these options of its own; what it shows is cleaned."""
    from rich.console import Console, ConsoleOptions, RenderableType  # noqa: PLC0415 - most commands print no table
    from rich.segment import Segment  # noqa: PLC0415 - same

    class CleanConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> "list[Segment]":
            segments = super().render(renderable, options)
            return [each if each.control else each._replace(text=lines(each.text)) for each in segments]

    return CleanConsole(**options)


def parts(line: Line) -> tuple[str | Styled, ...]:
    """Return the parts of a line."""
    return line if isinstance(line, tuple) and not isinstance(line, Styled) else (line,)
