"""`facerec people erasures`, `readers`, `access-log`, and how a removal is worked off."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from facerec import bootstrap
from facerec.commands.terminal import Duration, json_option, operator, print_columns, progress_bar
from facerec.echo import echo, echo_json
from facerec.erasure_records import ErasureRecord, PlaceState, ReaderKind
from facerec.errors import FacerecError
from facerec.gallery.erasure import Begun, Erasures
from facerec.gallery.receipts import content_of
from facerec.settings import Settings
from facerec.text import counted

Command = TypeVar("Command", bound=Callable[..., Any])
STILL_OWED_STATUS = 4
"""The exit status of a removal that has begun, while a place is still owed."""
_LONGEST_PAUSE_SECONDS = 2.0


def wait_option(default: str) -> Callable[[Command], Command]:
    """Make the option that says how long a command works itself."""
    return click.option(
        "--wait",
        type=Duration(),
        default=default,
        show_default=True,
        help="How long to wait for every place; 0s: do not wait. The web tier goes on without this command.",
    )


def work_off(erasures: Erasures, record: ErasureRecord, wait: timedelta, *, as_json: bool = False) -> ErasureRecord:
    """Work off an erasure until it is complete or the wait is over, with a progress bar; returns it as it is then."""
    deadline = time.monotonic() + wait.total_seconds()
    with progress_bar(as_json=as_json) as progress:
        shown = progress.add_task("erasing", total=len(record.places))

        def show(known: ErasureRecord) -> None:
            done = len(known.places) - len(known.still_owed)
            progress.update(shown, total=len(known.places), completed=done)

        while not record.complete and time.monotonic() < deadline:
            found = erasures.work(record.erasure_id, show) or erasures.get(record.erasure_id)
            if found is None:
                raise FacerecError(f"erasure {record.erasure_id} is no longer in the ledger")
            record = found
            show(record)
            if not record.complete:
                # A person waits at the terminal: not as long as the ledger's own pause may become.
                until_next = (record.next_pass_at - datetime.now(UTC)).total_seconds()
                time.sleep(min(max(0.1, until_next), _LONGEST_PAUSE_SECONDS, max(0.0, deadline - time.monotonic())))
    return record


def report_removal(begun: Begun, record: ErasureRecord, whose: str, *, waited: bool, as_json: bool) -> None:
    """Print what came of a removal; exits with 4 if something is still owed after the wait."""
    if as_json:
        echo_json(_json_object(record) | {"subject_key": begun.subject_key})
    else:
        echo(f"{counted(record.place('templates').removed, 'template')}{whose} removed")
        key = f", subject key {begun.subject_key}: the key is shown only now" if record.subject_hashes else ""
        echo(f"erasure {record.erasure_id}{key}")
    if record.complete:
        return
    if waited:
        for place in record.still_owed:
            echo(f"still owed: {place.name}{f': {place.detail}' if place.detail else ''}", err=True)
    echo("The web tier works off what is owed: `facerec people erasures` shows it.", err=True)
    if waited:
        raise click.exceptions.Exit(STILL_OWED_STATUS)


@click.command("erasures")
@click.argument("erasure_id", metavar="[ID]", required=False)
@click.option("--all", "complete", is_flag=True, help="Also the complete ones.")
@click.option("--finish", is_flag=True, help="Work off what is owed now.")
@wait_option("5m")
@json_option
def erasures(erasure_id: str | None, wait: timedelta, *, complete: bool, finish: bool, as_json: bool) -> None:
    """List the removals that still owe something, or show each place of the one with this ID.

    \b
    Examples:
      facerec people erasures
      facerec people erasures 3f6c0d5e9b1a4c7d8e2f0a1b2c3d4e5f
      facerec people erasures --finish --wait 1m
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    use_cases = bootstrap.erasures(Settings.load())
    if erasure_id is not None:
        records = [known_erasure(use_cases, erasure_id)]
    else:
        records = use_cases.open() + (use_cases.complete() if complete else [])
    if finish:
        records = [each if each.complete else work_off(use_cases, each, wait, as_json=as_json) for each in records]
    if as_json:
        echo_json([_json_object(record) for record in records])
    elif erasure_id is not None:
        _print_places(records[0])
    elif records:
        rows = [
            (
                record.erasure_id,
                record.collection,
                f"{record.begun_at:%Y-%m-%d %H:%M}",
                "complete" if record.complete else f"owed: {', '.join(place.name for place in record.still_owed)}",
            )
            for record in records
        ]
        print_columns([("erasure", "collection", "begun (UTC)", "state"), *rows])
    else:
        echo("No removal owes anything; --all lists the complete ones.", err=True)


@click.command("readers")
@click.option("--write-off", "gone", metavar="ID", help="The disk or process is gone for ever: nothing is owed by it.")
@json_option
def readers(gone: str | None, *, as_json: bool) -> None:
    """List what holds people in memory or on a disk, with the last report of each.

    A removal waits for each of them. A stopped instance reports when it starts again; write off what never will.
    """
    known = bootstrap.gallery_readers(Settings.load())
    if gone is not None:
        if not known.write_off(gone, operator()):
            raise FacerecError(f"there is no reader {gone!r}; `facerec people readers` lists them")
        echo(f"{gone} is written off, until it reports again")
        return
    reports = known.reports()
    if as_json:
        echo_json([report.model_dump(mode="json") for report in reports])
        return
    rows = [
        (
            report.reader_id,
            "disk" if report.kind is ReaderKind.DISK else "memory",
            f"{report.reported_at:%Y-%m-%d %H:%M:%S}",
            f"written off by {report.written_off_by}" if report.written_off_by else report.where,
        )
        for report in reports
    ]
    if rows:
        print_columns([("reader", "holds", "reported (UTC)", "where"), *rows])
    else:
        echo("No worker has reported yet.", err=True)


@click.command("access-log")
@click.option("--since", type=Duration(), default="24h", show_default=True, help="How far back.")
@click.option("--key", "client", help="Only the accesses of this API key, by its id.")
@click.option("--collection", help="Only those of this collection.")
@json_option
def access_log(since: timedelta, client: str | None, collection: str | None, *, as_json: bool) -> None:
    """Show who searched and enrolled when; it names API keys and requests, and no people.

    FACEREC_RETENTION__ACCESS_DAYS says how long it is kept.
    """
    records = bootstrap.access_records(Settings.load()).since(datetime.now(UTC) - since)
    found = [
        record
        for record in records
        if (client is None or record.client == client) and (collection is None or record.collection == collection)
    ]
    found.sort(key=lambda record: record.at)
    if as_json:
        echo_json([record.model_dump(mode="json") for record in found])
        return
    rows = [
        (
            f"{record.at:%Y-%m-%d %H:%M:%S}",
            record.client,
            record.collection,
            record.operation,
            record.outcome,
            record.faces,
            record.matches,
            record.enrolled,
            record.request_id,
        )
        for record in found
    ]
    if rows:
        heads = (
            "time (UTC)",
            "client",
            "collection",
            "operation",
            "outcome",
            "faces",
            "matches",
            "enrolled",
            "request",
        )
        print_columns([heads, *rows])
    else:
        echo("No access in this time.", err=True)


def known_erasure(use_cases: Erasures, erasure_id: str) -> ErasureRecord:
    """Return the erasure with this id; raises `FacerecError` if there is none."""
    record = use_cases.get(erasure_id)
    if record is None:
        raise FacerecError(f"there is no erasure {erasure_id!r}; `facerec people erasures --all` lists them")
    return record


def erasure_state(record: ErasureRecord) -> str:
    """Return in words whether an erasure is complete."""
    return "complete" if record.complete else f"{counted(len(record.still_owed), 'place')} still owed"


def _json_object(record: ErasureRecord) -> dict[str, Any]:
    return content_of(record, datetime.now(UTC)) | {"complete": record.complete, "passes": record.passes}


def _print_places(record: ErasureRecord) -> None:
    echo(f"Erasure {record.erasure_id} in collection {record.collection}, by {record.by}: {erasure_state(record)}")
    rows = [
        (
            place.name,
            {PlaceState.CONFIRMED: "confirmed", PlaceState.WRITTEN_OFF: "written off"}.get(place.state, "owed"),
            place.removed,
            "-" if place.confirmed_at is None else f"{place.confirmed_at:%Y-%m-%d %H:%M:%S}",
            place.detail,
        )
        for place in record.places
    ]
    print_columns([("place", "state", "removed", "confirmed (UTC)", "detail"), *rows])
