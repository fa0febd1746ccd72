"""What reaches the terminal when names, file names and error sentences come from outside."""

import json
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from facerec.cli import cli, main
from facerec.commands.terminal import print_columns, print_facts, progress_bar
from facerec.echo import Styled, echo, echo_document, echo_error, echo_json, make_console
from facerec.text import is_text, one_line

HOSTILE = (
    "a\x1b[31mb\x9b2Jc\x7f\r\x00\u202ed\u2066\u2028e\x85f\udcff\x1b]8;;http://x\x07g\u061c\ufeff\U000e0041h"
    "\nfacerec: ok"
)
"""Terminal codes (C0, C1, DEL), marks of direction, every kind of line break, a lone surrogate and a fake line."""


def _table(text: str) -> None:
    table = Table(Column(Text(text)), title=Text(text))
    table.add_row(Text(text))
    make_console(width=400).print(table)


def _progress(text: str) -> None:
    with progress_bar(as_json=True) as progress:
        progress.add_task(f"[/red]{text}")
        progress.console.print(progress.get_renderable())


def _live(text: str) -> None:
    with Live(Text(text), console=make_console(width=400, force_terminal=False)):
        pass


@pytest.mark.parametrize(
    ("show", "count"),
    [
        (echo, 1),
        (lambda text: echo(text, err=True), 1),
        (lambda text: echo(Styled(text, "red", bold=True), text), 1),
        (lambda text: print_columns([(text, 1), (2, (Styled(text), text))]), 2),
        (lambda text: print_facts([("name", text)]), 3),
        (lambda text: echo_document(text.replace("\n", " ")), 1),
        (lambda text: _table(one_line(text)), 6),
        (_live, 2),
        (_progress, 1),
    ],
)
def test_text_from_outside_neither_controls_the_terminal_nor_adds_a_line(
    capsys: pytest.CaptureFixture[str], show: Callable[[str], None], count: int
) -> None:
    """Whatever prints it, on stdout and on stderr."""
    show(HOSTILE)
    said = "".join(capsys.readouterr())
    assert all(is_text(character) or character == "\n" for character in said), said
    assert 1 <= said.count("\n") <= count
    assert "[31mb" in said


def test_json_keeps_the_value_and_shows_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    """Letters of other scripts stay as they are; all else is escaped."""
    value = {HOSTILE: ["José 李 \N{WOMAN}\u200d\N{ROCKET}", 1]}
    echo_json(value)
    said = capsys.readouterr().out
    assert all(is_text(character) or character == "\n" for character in said), said
    assert said.isascii() is False
    assert "José 李" in said
    assert json.loads(said) == value


def test_further_lines_of_an_error_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    """The end of a log that an error quotes cannot pretend to be a message of the program."""
    echo_error("web ended; the end of web.log:\nfacerec: all is well\n  as it was", several_lines=True)
    assert capsys.readouterr().err.splitlines() == [
        "facerec: web ended; the end of web.log:",
        "  facerec: all is well",
        "  as it was",
    ]
    echo_error("x\nfacerec: ok.facerec cannot be imported")
    assert capsys.readouterr().err == "facerec: x facerec: ok.facerec cannot be imported\n"


@pytest.mark.parametrize(
    "arguments", [["trace", HOSTILE], ["gallery", "import", "x", HOSTILE], ["keys", f"--{HOSTILE}"]]
)
def test_usage_errors_quote_arguments_without_their_controls(arguments: list[str]) -> None:
    """A pattern of the shell passes the names of files that others made."""
    arguments = [argument.replace("\x00", "") for argument in arguments]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert all(is_text(character) or character == "\n" for character in result.output), result.output
    assert not any(line.startswith("facerec: ok") for line in result.output.splitlines())


def test_unexpected_error_shows_a_traceback_without_controls(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python itself would print the text of the error as it is."""
    monkeypatch.setattr(sys, "argv", ["facerec", "--version"])
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    monkeypatch.setattr(cli, "logs", cli.logs)
    with pytest.raises(SystemExit):
        main()
    capsys.readouterr()
    error = ValueError(HOSTILE)
    sys.excepthook(ValueError, error, None)
    said = capsys.readouterr().err
    assert said.startswith("facerec: unexpected error\n  ValueError: a [31mb")
    assert not any(line.startswith("facerec: ok") for line in said.splitlines())
    assert all(is_text(character) or character == "\n" for character in said), said
