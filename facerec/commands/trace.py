"""`facerec trace`: what became of one request."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from facerec import bootstrap
from facerec.commands.terminal import json_option, print_columns
from facerec.echo import Line, Styled, echo, echo_json
from facerec.errors import FacerecError
from facerec.observability.request_trace import (
    LogRecord,
    Objects,
    Step,
    advice,
    find_objects,
    lines_of,
    log_files,
    records_of,
    timeline,
)
from facerec.settings import Settings
from facerec.text import duration

_STANDARD_INPUT = "-"


@click.command("trace")
@click.argument("request_id", type=click.UUID)
@click.option(
    "--logs",
    multiple=True,
    metavar="PATH",
    help="A log file, a folder of them, or - for standard input; may be given again.  [default: those of the local "
    "system in .local, if there is one]",
)
@click.option("--s3/--no-s3", "read_s3", default=True, show_default=True, help="Whether to read the object store.")
@json_option
def command(request_id: UUID, logs: tuple[str, ...], *, read_s3: bool, as_json: bool) -> None:
    """Show what became of one request, step by step, from logs and the object store.

    The id is in the reply's header X-Request-Id, and in every log record of the request. Logs are read as JSON records,
    which facerec writes off a terminal; other lines are skipped, and so is text before a record. Times are UTC, and as
    good as the machines' clocks agree. Exit status 1 when nothing is known.

    \b
    Examples:
      facerec trace 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55
      facerec trace 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55 --logs /var/log/facerec --json | jq .steps
      journalctl -o cat -u facerec-worker | facerec trace 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55 --logs -
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    notes: list[str] = []
    sources = _sources(logs)
    records = _read(sources, request_id, notes)
    objects = _objects(request_id, notes) if read_s3 else None
    steps = timeline(records, objects)
    notes += advice(request_id, records, objects)
    if as_json:
        echo_json(_json_object(request_id, steps, notes), indent=None, default=str)
    elif steps:
        _print(request_id, steps, notes)
    else:
        for note in notes:
            echo(f"note: {note}", err=True)
    if not steps:
        places = " and ".join(["the logs"] * bool(sources) + ["the object store"] * (objects is not None))
        raise FacerecError(
            f"nothing is known of request {request_id} in {places or 'any place that could be read'}: "
            "check the id, name more logs with --logs, and mind that photos and results expire"
        )


def _sources(logs: tuple[str, ...]) -> list[Path | None]:
    """The files to read; `None` is standard input."""
    if logs:
        return [file for name in logs for file in ([None] if name == _STANDARD_INPUT else log_files(Path(name)))]
    from facerec.local.state import StateDirectory

    local = StateDirectory(Path(".local")).logs
    # Another user's are private, and `is_dir` raises an error for them.
    return [*log_files(local)] if os.access(local, os.R_OK | os.X_OK) else []


def _read(sources: list[Path | None], request_id: UUID, notes: list[str]) -> list[LogRecord]:
    found = [record for source in sources for record in records_of(_lines(source), request_id)]
    records = [record for record in found if record is not None]
    if not sources:
        notes.append("no logs were read: name files or folders with --logs")
    if None in found:
        notes.append(
            f"lines of the logs that name the request and are not JSON records of facerec: {found.count(None)}; "
            "FACEREC_LOG__FORMAT=json makes facerec write JSON"
        )
    return records


def _lines(source: Path | None) -> Iterator[str]:
    return (line.decode(errors="replace") for line in sys.stdin.buffer) if source is None else lines_of(source)


def _objects(request_id: UUID, notes: list[str]) -> Objects | None:
    settings = Settings.load()
    store = bootstrap.object_store(settings)
    try:
        return find_objects(store, settings, request_id)
    except FacerecError as exc:
        notes.append(f"the object store could not be read: {exc}")
        return None


def _json_object(request_id: UUID, steps: Sequence[Step], notes: Sequence[str]) -> dict[str, Any]:
    listed = [{"at": s.at.isoformat(), "where": s.where, "what": s.what, "facts": s.facts} for s in steps]
    return {"request_id": str(request_id), "steps": listed, "notes": notes}


def _print(request_id: UUID, steps: Sequence[Step], notes: Sequence[str]) -> None:
    """Print one row a step, with the time since the step before."""
    first, last = steps[0].at.astimezone(UTC), steps[-1].at
    total = duration((last - first).total_seconds())
    echo(f"request {request_id}  {first:%Y-%m-%d} UTC, {total} in all")
    echo()
    rows: list[tuple[Line, ...]] = [("time", "after", "where", "what")]
    for step, before in zip(steps, [steps[0], *steps], strict=False):
        at, after = step.at.astimezone(UTC), duration((step.at - before.at).total_seconds())
        what = Styled(step.what, "red" if step.failed else None, bold=True)
        facts = "".join(f"  {name}={_shown(value)}" for name, value in step.facts.items() if value is not None)
        time = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
        rows.append((time, after, step.where, (what, facts)))
    print_columns(rows)
    for note in notes:
        echo(f"note: {note}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}:{_shown(one)}" for name, one in value.items())
    return value if isinstance(value, str) else json.dumps(value, default=str)
