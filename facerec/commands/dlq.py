"""`facerec dlq`: the messages of the dead-letter queue."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from facerec import bootstrap
from facerec.commands.terminal import Duration, json_option, print_columns, tracked, yes_option
from facerec.dead_letters import DeadLetter, DeadLetterReader, redrive
from facerec.echo import confirm, echo, echo_json
from facerec.edge_messages import DeviceRequest
from facerec.errors import FacerecError, Refused
from facerec.messages import RecognitionRequest, Request
from facerec.object_keys import output_key, request_prefix
from facerec.ports import MessageSender, ObjectStore
from facerec.settings import Settings
from facerec.stored_results import stored_result
from facerec.text import counted, one_line

_REASON_WIDTH = 60
_FACES = f"{__name__}.faces"
"""In click's context: the command is about the faces queue."""
_reason = click.option("--reason-matches", "reason", metavar="TEXT", help="Only those with this text in the reason.")
_identifiers = click.argument("identifiers", nargs=-1, metavar="[REQUEST_ID]...")
_all = click.option("--all", "everything", is_flag=True, help="All that are in the queue.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be done.")


@dataclass(frozen=True, slots=True)
class Services:
    """The dead-letter queue and what its messages refer to; tests give it as click's object."""

    settings: Settings
    dead: DeadLetterReader
    requests: MessageSender
    store: ObjectStore
    responses: MessageSender
    faces: bool = False
    """Whether these are the dead letters of the faces queue."""

    @property
    def dead_letter_queue(self) -> str:
        """The name of the dead-letter queue."""
        return _queues(self.settings, faces=self.faces)[0]

    @property
    def work_queue(self) -> str:
        """The name of the queue that its messages came from."""
        return _queues(self.settings, faces=self.faces)[1]

    def takes(self, letter: DeadLetter) -> bool:
        """Whether the message is one for the work queue."""
        if self.faces:
            return letter.faces_request is not None or letter.no_face is not None
        return letter.task is not None

    def sender(self, letter: DeadLetter) -> MessageSender:
        """The queue that the message was for: a device's result without a face was for the response queue."""
        return self.requests if letter.no_face is None else self.responses


def _queues(settings: Settings, *, faces: bool) -> tuple[str, str]:
    if faces:
        return settings.faces_dead_letter_queue, settings.faces_queue
    return settings.dead_letter_queue, settings.request_queue


def _services(given: Services | None) -> Services:
    faces = _FACES in click.get_current_context().meta
    if given is not None:
        return replace(given, faces=faces)
    from facerec.aws.sqs.dead_letter_queue import SqsDeadLetterReader
    from facerec.aws.sqs.queue import SqsQueue

    settings = Settings.load()
    clients = bootstrap.clients(settings)
    dead, work = _queues(settings, faces=faces)
    return Services(
        settings,
        SqsDeadLetterReader(clients, dead),
        SqsQueue(clients.sqs, work),
        bootstrap.object_store(settings),
        SqsQueue(clients.sqs, settings.response_queue),
        faces,
    )


@click.group("dlq")
@click.option("--faces", is_flag=True, help="Those of the faces queue, from the detection function and from devices.")
@click.pass_context
def command(context: click.Context, *, faces: bool) -> None:
    """List, show, redrive and purge the messages of the dead-letter queue.

    A task is there if no retry helps: it crashed the engine, its picture is missing, or it cannot be read; the worker
    has written the reason. A task is also there if SQS delivered it FACEREC_QUEUE__MAX_RECEIVES times without an end.
    With --faces also messages of devices that an IoT rule could not pass on.

    \b
    Examples:
      facerec dlq list --reason-matches SIGSEGV --json | jq -r '.[].request_id'
      facerec dlq show 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55
      facerec dlq redrive --reason-matches "no object" --dry-run
      facerec dlq redrive --all --yes
      facerec dlq purge --older-than 7d
      facerec dlq --faces list
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if faces:
        context.meta[_FACES] = True


@command.command("list")
@click.option("--limit", type=click.IntRange(1), help="Read no more than this; default all.")
@_reason
@json_option
@click.pass_obj
def list_(given: Services | None, limit: int | None, reason: str | None, *, as_json: bool) -> None:
    """List the dead letters, the oldest failure first.

    Reading counts as one more receive of each message. Nothing is removed, and all are visible again at the end.
    """
    services = _services(given)
    with _chosen(services, reason=reason, limit=limit) as letters:
        pass
    if as_json:
        echo_json([_json_object(letter) for letter in letters])
    elif letters:
        columns = ("request", "file", "failed at (UTC)", "receives", "bytes", "reason")
        print_columns([columns, *map(_row, letters)])
    else:
        echo(f"There is nothing in {services.dead_letter_queue}.", err=True)


@command.command("show")
@click.argument("identifier", metavar="REQUEST_ID")
@json_option
@click.pass_obj
def show(given: Services | None, identifier: str, *, as_json: bool) -> None:
    """Show all that is known of a dead letter, by the id of its request or of the message."""
    services = _services(given)
    with _chosen(services, [identifier]) as letters:
        pass
    shown = [
        _json_object(letter) | _find_objects(services, letter.request) | {"body": letter.body} for letter in letters
    ]
    if as_json:
        echo_json(shown)
        return
    for facts in shown:
        print_columns([(name.replace("_", " "), _cell(value)) for name, value in facts.items()])


@command.command("redrive")
@_identifiers
@_all
@_reason
@click.option("--force", is_flag=True, help="Also messages that are not tasks of facerec.")
@_dry_run
@yes_option
@click.pass_obj
def redrive_(
    given: Services | None,
    identifiers: tuple[str, ...],
    reason: str | None,
    *,
    everything: bool,
    force: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Send tasks (or faces) to their queue again, as they were, and remove them from the dead letters.

    Each gets all its attempts again. A failure that was stored as its result is deleted, so its picture is recognised
    again. The result appears at /api/v1/results/REQUEST_ID. A task whose input has expired
    (FACEREC_RETENTION__INPUT_DAYS) comes back here. Exit status 1 if a named one is missing or one is refused.
    """
    _check_choice(identifiers or reason, everything=everything)
    services = _services(given)
    with _chosen(services, identifiers, reason) as letters:
        sent = [letter for letter in letters if force or services.takes(letter)]
        refused = [letter for letter in letters if letter not in sent]
        for letter in refused:
            echo(f"{letter.message_id}: {_cell(letter.reason)}; --force sends it nevertheless", err=True)
        if _confirmed("Send again", sent, dry_run=dry_run, yes=yes):
            bucket = services.settings.output_bucket
            for letter in tracked(list(sent), "sending"):
                try:
                    queue = services.sender(letter)
                    redrive(letter, dead=services.dead, requests=queue, store=services.store, bucket=bucket)
                except Refused as exc:
                    echo(f"{letter.message_id}: {exc}", err=True)
                    sent.remove(letter)
                    refused.append(letter)
            answers = sum(letter.no_face is not None for letter in sent)
            echo(f"{counted(len(sent) - answers, 'dead letter')} sent to {services.work_queue}")
            if answers:
                echo(f"{counted(answers, 'result')} without a face sent to {services.settings.response_queue}")
    if refused:
        raise FacerecError(f"not sent: {counted(len(refused), 'dead letter')}")


@command.command("purge")
@_identifiers
@_all
@click.option("--older-than", type=Duration(), metavar="7d", help="Only those that failed longer ago.")
@_reason
@_dry_run
@yes_option
@click.pass_obj
def purge(
    given: Services | None,
    identifiers: tuple[str, ...],
    reason: str | None,
    older_than: timedelta | None,
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Delete dead letters for good. With --all also those that arrive during the command."""
    _check_choice(identifiers or reason or older_than is not None, everything=everything, ages=" or --older-than")
    services = _services(given)
    queue = services.dead_letter_queue
    if everything and not dry_run:
        if not yes:
            confirm(f"Delete everything in {queue} (about {services.dead.count()})?")
        services.dead.purge()
        echo(f"{queue} is being emptied, which may take a minute")
        return
    before = None if older_than is None else datetime.now(UTC) - older_than
    with _chosen(services, identifiers, reason, before) as letters:
        if _confirmed("Delete", letters, dry_run=dry_run, yes=yes):
            for letter in tracked(letters, "deleting"):
                services.dead.remove(letter)
            echo(f"{counted(len(letters), 'dead letter')} deleted")


def _check_choice(narrowed: object, *, everything: bool, ages: str = "") -> None:
    if not narrowed and not everything:
        raise click.UsageError(f"name requests, or choose with --reason-matches{ages}, or give --all")
    if narrowed and everything:
        raise click.UsageError("--all takes everything: leave it out to choose")


@contextmanager
def _chosen(
    services: Services,
    identifiers: Sequence[str] = (),
    reason: str | None = None,
    before: datetime | None = None,
    limit: int | None = None,
) -> Iterator[list[DeadLetter]]:
    """Yield the dead letters that match all arguments, the oldest failure first; others cannot see them meanwhile.

    Raises `FacerecError` if one of the identifiers is missing.
    """

    def matches(letter: DeadLetter) -> bool:
        return (
            (not identifiers or any(map(letter.has_id, identifiers)))
            and (reason is None or reason.casefold() in letter.reason.casefold())
            and (before is None or letter.failed_at < before)
        )

    with services.dead.look(limit) as letters:
        found = [letter for letter in tracked(letters, "reading", total=services.dead.count()) if matches(letter)]
        absent = [name for name in identifiers if not any(letter.has_id(name) for letter in found)]
        if absent:
            raise FacerecError(f"there is no dead letter {', '.join(absent)}: `facerec dlq list` shows them all")
        yield sorted(found, key=lambda letter: letter.failed_at)


def _confirmed(action: str, letters: Sequence[DeadLetter], *, dry_run: bool, yes: bool) -> bool:
    if dry_run or not yes:
        for letter in letters:
            echo(f"{_row(letter)[0]}  {_row(letter)[-1]}")
    what = f"{action}: {counted(len(letters), 'dead letter')}"
    if not letters or dry_run:
        echo(what, err=True)
        return False
    return yes or confirm(f"{what}?")


def _json_object(letter: DeadLetter) -> dict[str, Any]:
    request = letter.request
    return {
        "request_id": letter.request_id,
        "message_id": letter.message_id,
        "reason": letter.reason,
        "failed_at": letter.failed_at.isoformat(),
        "sent_at": letter.sent_at.isoformat(),
        "receives": letter.receives,
        "bytes": len(letter.body),
        "task": letter.task is not None,
        "filename": request.filename if request else None,
        "collection": request.collection if request else None,
        "submitted_at": request.submitted_at.isoformat() if request else None,
        "reply_to": request.reply_to if request else None,
        "thing": request.thing if isinstance(request, DeviceRequest) else None,
    }


def _find_objects(services: Services, request: Request | None) -> dict[str, Any]:
    """The input, which a device keeps, and the result in the store."""
    found: dict[str, Any] = {"input": None, "input_stored": None, "result": None}
    if request is None:
        return found
    settings = services.settings
    if isinstance(request, RecognitionRequest):
        given = request.input
        # The message may name any object: only the request's own ones are looked up.
        keys = services.store.keys(settings.input_bucket, request_prefix(request.request_id))
        found["input"] = f"s3://{given.bucket}/{given.key}"
        found["input_stored"] = given.bucket == settings.input_bucket and given.key in keys
    key = output_key(request.request_id, request.filename)
    result = stored_result(services.store, settings.output_bucket, key)
    found["result"] = result and {"outcome": result.outcome, "detail": result.detail, "name": result.result}
    return found


def _row(letter: DeadLetter) -> tuple[object, ...]:
    reason, failed_at = _cell(letter.reason), f"{letter.failed_at:%Y-%m-%d %H:%M:%S}"
    if len(reason) > _REASON_WIDTH and sys.stdout.isatty():
        reason = f"{reason[: _REASON_WIDTH - 1]}…"
    name = _cell(letter.request_id or letter.message_id)
    filename = _cell(letter.request.filename if letter.request else None)
    return name, filename, failed_at, letter.receives, len(letter.body), reason


def _cell(value: Any) -> str:
    """A value in one line; messages come from anybody with access to the queue."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_cell(one)}" for name, one in value.items() if one)
    return " ".join(one_line(str(value)).split())
