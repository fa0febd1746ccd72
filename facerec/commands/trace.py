"""`facerec trace`: what became of one request."""

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import click

from facerec import bootstrap
from facerec.commands.terminal import json_option
from facerec.errors import FacerecError
from facerec.observability.log_records import LogRecord, lines_of, log_files, mentions
from facerec.observability.request_trace import Objects, Story, find, story
from facerec.settings import Settings

STANDARD_INPUT = "-"


class NothingKnown(FacerecError):
    """Neither a log nor the object store knows the request."""


@click.command("trace")
@click.argument("request_id", type=click.UUID)
@click.option(
    "--logs",
    multiple=True,
    metavar="PATH",
    help="A log file, a folder of them, or - for standard input; may be given again.  [default: those of the local "
    "system in .local, where there is one]",
)
@click.option("--s3/--no-s3", "ask_s3", default=True, show_default=True, help="Whether to ask the object store.")
@json_option
def command(request_id: UUID, logs: tuple[str, ...], *, ask_s3: bool, as_json: bool) -> None:
    """Tell the story of one request in the order of time, from logs and the object store.

    The id is in the reply's header X-Request-Id, and in every line of the logs. Logs are read as JSON records, as our
    processes write them off a terminal; what another program has put before a record is skipped, and so are other
    lines. Times are UTC, and as good as the machines' clocks agree. Exit status 1 when nothing is known.

    \b
    Examples:
      facerec trace 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55
      facerec trace 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55 --logs /var/log/facerec --json | jq .steps
      journalctl -o cat -u facerec-worker | facerec trace 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55 --logs -
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.commands.trace_view import as_object, show

    told = _read(_sources(logs), request_id)
    objects = _objects(request_id, told.notes) if ask_s3 else None
    seen = story(request_id, told.records, objects, told.notes)
    if as_json:
        click.echo(json.dumps(as_object(request_id, seen), default=str))
    elif seen.steps:
        show(request_id, seen)
    else:
        _print_notes(seen)
    if not seen.steps:
        places = " and ".join(["the logs"] * bool(logs or told.files) + ["the object store"] * (objects is not None))
        raise NothingKnown(
            f"nothing is known of request {request_id} in {places or 'any place that could be asked'}: "
            "check the id, name more logs with --logs, and mind that photos and results expire"
        )


@dataclass(slots=True)
class _Told:
    records: list[LogRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0


def _sources(logs: tuple[str, ...]) -> list[Path | None]:
    """The files to read; nothing stands for standard input."""
    if logs:
        return [file for name in logs for file in ([None] if name == STANDARD_INPUT else log_files(Path(name)))]
    from facerec.local.state import StateDirectory

    local = StateDirectory(Path(".local")).logs
    return [*log_files(local)] if local.is_dir() else []


def _read(sources: list[Path | None], request_id: UUID) -> _Told:
    told = _Told(files=len(sources))
    foreign = 0
    for source in sources:
        lines: Iterable[str] = _decoded(sys.stdin.buffer) if source is None else lines_of(source)
        for record in mentions(lines, request_id):
            if record is None:
                foreign += 1
            else:
                told.records.append(record)
    if not sources:
        told.notes.append("no logs were read: name files or folders with --logs")
    if foreign:
        told.notes.append(
            f"lines of the logs that mention it and are no JSON records of ours: {foreign}; "
            "FACEREC_LOG__FORMAT=json makes ours so"
        )
    return told


def _decoded(lines: Iterable[bytes]) -> Iterator[str]:
    return (line.decode(errors="replace") for line in lines)


def _objects(request_id: UUID, notes: list[str]) -> Objects | None:
    """What the store has; nothing, and a note, where it cannot be asked."""
    settings = Settings.load()
    store = bootstrap.object_store(settings)
    try:
        return find(store, settings, request_id)
    except FacerecError as exc:
        notes.append(f"the object store could not be asked: {exc}")
        return None


def _print_notes(seen: Story) -> None:
    for note in seen.notes:
        click.echo(f"note: {note}", err=True)
