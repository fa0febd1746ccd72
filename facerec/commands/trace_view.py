"""A request's story as a timeline for a terminal, and as JSON for programs."""

import json
import sys
from datetime import UTC, timedelta
from typing import Any
from uuid import UUID

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from facerec.observability.request_trace import Step, Story
from facerec.text import one_line as plain

_STYLES = {"web": "cyan", "worker": "green", "s3": "yellow"}
_BAD = ("failed", "dead_lettered", "redelivered", "error", "answered with 5")
_WIDEST = 100_000
_MILLISECOND, _SECOND, _MINUTE = (timedelta(milliseconds=1), timedelta(seconds=1), timedelta(minutes=1))


def show(request_id: UUID, seen: Story) -> None:
    """Print the timeline; off a terminal each row is one line, however long, without blanks at its end."""
    if sys.stdout.isatty():
        Console().print(_rendered(request_id, seen))
        return
    console = Console(width=_WIDEST)
    with console.capture() as captured:
        console.print(_rendered(request_id, seen))
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _rendered(request_id: UUID, seen: Story) -> RenderableType:
    """One row a step, with the time since the one before it; nothing of it is taken for markup."""
    first, last = seen.steps[0].at, seen.steps[-1].at
    head = Text.assemble(
        ("request ", "bold"), f"{request_id}  {first.astimezone(UTC):%Y-%m-%d} UTC, {_length(last - first)} in all"
    )
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("time", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True)
    table.add_column("what", overflow="fold")
    before = first
    for step in seen.steps:
        at = step.at.astimezone(UTC)
        where = Text(plain(step.where), _STYLES.get(step.where.partition(" ")[0].partition("-")[0], ""))
        table.add_row(f"{at:%H:%M:%S}.{at.microsecond // 1000:03}", _length(step.at - before), where, _what(step))
        before = step.at
    return Group(head, "", table, *(Text(f"note: {plain(note)}", "dim") for note in seen.notes))


def as_object(request_id: UUID, seen: Story) -> dict[str, Any]:
    """The story for programs; times are ISO 8601."""
    return {
        "request_id": str(request_id),
        "steps": [
            {"at": step.at.isoformat(), "where": step.where, "what": step.what, "facts": step.facts}
            for step in seen.steps
        ],
        "notes": list(seen.notes),
    }


def _what(step: Step) -> Text:
    style = "bold red" if any(word in step.what for word in _BAD) else "bold"
    facts = "  ".join(f"{name}={_shown(value)}" for name, value in step.facts.items() if value is not None)
    return Text.assemble((plain(step.what), style), "  " if facts else "", (plain(facts), ""))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}:{_shown(one)}" for name, one in value.items())
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _length(length: timedelta) -> str:
    if length < _SECOND:
        return f"{length / _MILLISECOND:.0f} ms"
    return f"{length / _SECOND:.1f} s" if length < _MINUTE else f"{length / _MINUTE:.1f} min"
