"""`facerec dlq`: what waits in the dead-letter queue, and what becomes of it."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import click

from facerec.commands.dead_letter_shelf import Shelf, facts, in_a_line, many, name_of, short, surroundings
from facerec.commands.terminal import Duration, json_option, print_columns, tracked
from facerec.dead_letters import DeadLetter, redrive
from facerec.errors import FacerecError

_reason = click.option("--reason-matches", metavar="TEXT", help="Only those whose reason has this text in it.")
_identifiers = click.argument("identifiers", nargs=-1, metavar="[REQUEST_ID]...")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be done.")


@click.group("dlq")
def command() -> None:
    """List, show, redrive and purge what waits in the dead-letter queue.

    A task is there because no retry would help: it crashed the engine, its picture is gone, it cannot be read (then
    with the worker's reason), or SQS delivered it FACEREC_QUEUE__MAX_RECEIVES times in vain.

    \b
    Examples:
      facerec dlq list
      facerec dlq show 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55
      facerec dlq redrive --reason-matches "no object" --dry-run
      facerec dlq redrive --all --yes
      facerec dlq purge --older-than 7d
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


@command.command("list")
@click.option("--limit", type=click.IntRange(1), help="Look at no more than this; default all.")
@_reason
@json_option
@click.pass_obj
def list_(given: Shelf | None, limit: int | None, reason_matches: str | None, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """List the dead letters, the oldest failure first.

    Looking at a message counts as one more receive; nothing is taken away, and all are visible again at the end.

    \b
    Examples:
      facerec dlq list --limit 20
      facerec dlq list --reason-matches SIGSEGV --json | jq -r '.[].request_id'
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    shelf = Shelf.of(given)
    with shelf.looked_at(_chooser((), reason_matches), limit) as letters:
        pass
    if as_json:
        click.echo(json.dumps([facts(letter) for letter in letters], indent=2))
        return
    if not letters:
        click.echo(f"There is nothing in {shelf.settings.dead_letter_queue}.", err=True)
        return
    rows = [
        (
            name_of(letter),
            in_a_line(letter.request.filename if letter.request else None),
            f"{letter.failed_at:%Y-%m-%d %H:%M:%S}",
            letter.receives,
            len(letter.body),
            short(letter.reason),
        )
        for letter in letters
    ]
    print_columns([("request", "file", "failed at (UTC)", "receives", "bytes", "reason"), *rows])


@command.command("show")
@click.argument("identifier", metavar="REQUEST_ID")
@json_option
@click.pass_obj
def show(given: Shelf | None, identifier: str, as_json: bool) -> None:  # noqa: FBT001 - click passes by name
    """Show all that is known of a dead letter, by its request's id or the message's.

    \b
    Examples:
      facerec dlq show 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55
      facerec dlq show 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55 --json | jq -r '.[].body'
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    shelf = Shelf.of(given)
    with shelf.looked_at(lambda letter: letter.named(identifier)) as letters:
        pass
    if not letters:
        raise FacerecError(f"there is no dead letter {identifier!r}: `facerec dlq list` tells what there is")
    stories = [facts(letter) | surroundings(shelf, letter.request) | {"body": letter.body} for letter in letters]
    if as_json:
        click.echo(json.dumps(stories, indent=2))
        return
    for story in stories:
        print_columns([(name.replace("_", " "), in_a_line(value)) for name, value in story.items()])


@command.command("redrive")
@_identifiers
@click.option("--all", "everything", is_flag=True, help="Everything that is there.")
@_reason
@click.option("--force", is_flag=True, help="Also what is not a task of facerec.")
@_dry_run
@_yes
@click.pass_obj
def redrive_(
    given: Shelf | None,
    identifiers: tuple[str, ...],
    reason_matches: str | None,
    everything: bool,  # noqa: FBT001 - click passes by name
    force: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    yes: bool,  # noqa: FBT001
) -> None:
    """Send tasks to the request queue again, as they were, and take them from the dead letters.

    Each gets all its attempts anew, and its picture is recognised anew: a failure that was stored as its result is
    removed. The result appears at /api/v1/results/REQUEST_ID. An input that has expired (FACEREC_RETENTION__INPUT_DAYS)
    brings the task back here. Exits with 1 when something that was named is not there, or is refused.

    \b
    Examples:
      facerec dlq redrive 0b7c1c5e-7c39-4b0e-a3a8-2f1d8f6f3f55
      facerec dlq redrive --reason-matches SIGSEGV --dry-run
      facerec dlq redrive --all --yes
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    _need_a_choice(everything, identifiers, reason_matches)
    shelf = Shelf.of(given)
    with shelf.looked_at(_chooser(identifiers, reason_matches)) as letters:
        _check_found(identifiers, letters)
        sent = [letter for letter in letters if force or letter.task is not None]
        refused = [letter for letter in letters if letter not in sent]
        for letter in refused:
            click.echo(f"{letter.message_id}: {in_a_line(letter.reason)}; --force sends it all the same", err=True)
        if _agreed("Send again", sent, dry_run=dry_run, yes=yes):
            for letter in tracked(sent, "sending"):
                redrive(
                    letter,
                    dead=shelf.dead,
                    requests=shelf.requests,
                    store=shelf.store,
                    bucket=shelf.settings.output_bucket,
                )
            click.echo(f"{many(len(sent))} sent to {shelf.settings.request_queue}")
    if refused:
        raise FacerecError(f"not a task of facerec, so left where it is: {many(len(refused))}")


@command.command("purge")
@_identifiers
@click.option("--all", "everything", is_flag=True, help="Everything, also what comes in meanwhile.")
@click.option("--older-than", type=Duration(), metavar="7d", help="Only those that failed longer ago.")
@_reason
@_dry_run
@_yes
@click.pass_obj
def purge(
    given: Shelf | None,
    identifiers: tuple[str, ...],
    reason_matches: str | None,
    older_than: timedelta | None,
    everything: bool,  # noqa: FBT001 - click passes by name
    dry_run: bool,  # noqa: FBT001
    yes: bool,  # noqa: FBT001
) -> None:
    """Throw dead letters away for good; only what has been looked at, unless with --all.

    \b
    Examples:
      facerec dlq purge --older-than 7d
      facerec dlq purge --reason-matches "no object" --yes
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    _need_a_choice(everything, identifiers, reason_matches, older_than, ages=" or --older-than")
    shelf = Shelf.of(given)
    if everything and not dry_run:
        count = shelf.dead.count()
        if not yes:
            click.confirm(f"Throw away everything in {shelf.settings.dead_letter_queue} (about {count})?", abort=True)
        shelf.dead.purge()
        click.echo(f"{shelf.settings.dead_letter_queue} is being emptied, which may take a minute")
        return
    before = None if older_than is None else datetime.now(UTC) - older_than
    with shelf.looked_at(_chooser(identifiers, reason_matches, before)) as letters:
        _check_found(identifiers, letters)
        if _agreed("Throw away", letters, dry_run=dry_run, yes=yes):
            for letter in tracked(letters, "deleting"):
                shelf.dead.remove(letter)
            click.echo(f"{many(len(letters))} thrown away")


def _need_a_choice(
    everything: bool,  # noqa: FBT001 - as click passes it
    identifiers: Sequence[str],
    *choices: object,
    ages: str = "",
) -> None:
    narrowed = bool(identifiers) or any(choice is not None for choice in choices)
    if not narrowed and not everything:
        raise click.UsageError(f"name requests, or choose with --reason-matches{ages}, or say --all")
    if narrowed and everything:
        raise click.UsageError("--all takes everything: leave it out to choose")


def _chooser(
    identifiers: Sequence[str], reason: str | None, before: datetime | None = None
) -> Callable[[DeadLetter], bool]:
    def chosen(letter: DeadLetter) -> bool:
        return (
            (not identifiers or any(letter.named(identifier) for identifier in identifiers))
            and (reason is None or reason.casefold() in letter.reason.casefold())
            and (before is None or letter.failed_at < before)
        )

    return chosen


def _check_found(identifiers: Sequence[str], letters: Sequence[DeadLetter]) -> None:
    """Nothing is done when a name is wrong."""
    absent = [name for name in identifiers if not any(letter.named(name) for letter in letters)]
    if absent:
        raise FacerecError(f"there is no such dead letter: {', '.join(absent)}; `facerec dlq list` tells what there is")


def _agreed(doing: str, letters: Sequence[DeadLetter], *, dry_run: bool, yes: bool) -> bool:
    if dry_run or not yes:
        for letter in letters:
            click.echo(f"{name_of(letter)}  {short(letter.reason)}")
    if not letters or dry_run:
        click.echo(f"{doing}: {many(len(letters))}", err=True)
        return False
    return yes or click.confirm(f"{doing} {many(len(letters))}?", abort=True)
