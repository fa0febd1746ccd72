"""What the process `facerec` does around every command."""

import logging
import sys
from collections.abc import Iterator

import click
import pytest
import structlog

from facerec import cli
from facerec.text import is_text


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(cli.cli, "logs", cli.cli.logs)
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


@click.command()
def noisy() -> None:
    """Log a warning about a file, and print a result."""
    structlog.get_logger().warning("unreadable", file="a\x1b[2J\nfacerec: ok")
    click.echo("{}")


def test_log_records_of_a_command_go_to_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Standard output has the result alone, so that programs can read it; a record controls no terminal."""
    monkeypatch.setitem(cli._COMMANDS, "noisy", (f"{__name__}:noisy", ""))
    monkeypatch.setattr(sys, "argv", ["facerec", "noisy"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (0, "{}\n")
    assert "unreadable" in said.err
    assert all(is_text(character) or character == "\n" for character in said.err), said.err
