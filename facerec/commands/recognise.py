"""`facerec recognise`: recognises files of this machine by a running web tier, as any of its clients."""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

import click

from facerec.client import ApiError, Client, Forbidden, InvalidPhoto, Unreachable
from facerec.client.models import Recognition
from facerec.commands.terminal import FILE, FOLDER, progress_bar
from facerec.echo import echo
from facerec.errors import FacerecError
from facerec.job_records import FileStatus, JobFile
from facerec.jobs.report import ReportFormat, report
from facerec.messages import Outcome
from facerec.settings import Settings
from facerec.text import counted
from facerec.web.replies import Style, recognised

_RETRY_SECONDS = 300.0
_SHOWN_REASONS = 10
_MOST_REASONS = 1000
"""Some name their request: the memory for them is bounded."""
_INTERRUPTED_STATUS = 130

Item = TypeVar("Item")
Done = TypeVar("Done")


@click.command("recognise")
@click.argument("photos", nargs=-1, type=FILE)
@click.option("--folder", type=FOLDER, help="Recognise all files in a folder and in the folders below it.")
@click.option("--json", "form", flag_value="jsonl", help="Print a line of JSON for each photo.")
@click.option("--csv", "form", flag_value="csv", help="Print CSV.")
@click.option("--url", help="The web tier's address.  [default: FACEREC_CLIENT__URL]")
@click.option("--collection", help="Which gallery.  [default: that of the API key]")
@click.option("--threshold", type=click.FloatRange(0, 1), help="From which similarity on a face is a person's.")
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=8, show_default=True, help="Photos in work at the same time."
)
def command(
    photos: tuple[Path, ...],
    folder: Path | None,
    form: ReportFormat | None,
    url: str | None,
    collection: str | None,
    threshold: float | None,
    concurrency: int,
) -> None:
    """Recognise PHOTOS, or the files of a folder, by a running web tier.

    It needs no AWS credentials. The API key is in FACEREC_CLIENT__KEY. A line is printed as each photo is answered, so
    the order may differ. With --json and --csv the rows are those of a job's report, and the whole result of a row is
    at /api/v1/results/<request_id>. Failures and the summary go to standard error.

    While the server is busy, photos are sent again for five minutes. A key that is refused, or a server that is out of
    reach, ends the command.

    \b
    Exit status:
      0    every photo was answered
      1    at least one failed
      2    the command line is wrong
      130  Ctrl-C: what was answered until then is printed

    \b
    Examples:
      facerec recognise image_01.jpg image_02.jpg
      facerec recognise --folder holiday/ --csv > people.csv
      FACEREC_CLIENT__KEY=… facerec recognise --url https://faces.example.org --folder holiday/ --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    total = len(photos) + sum(1 for _ in _files(folder))
    if not total:
        raise click.UsageError("Give at least one photo, or a --folder with files.")
    settings = Settings.load()
    key = settings.client.key
    client = Client(
        url or str(settings.client.url), None if key is None else key.get_secret_value(), retry_seconds=_RETRY_SECONDS
    )

    def ask(path: Path) -> "_Answer":
        try:
            return path, client.recognise(path, filename=path.name, collection=collection, threshold=threshold)
        except (FacerecError, OSError) as exc:
            return path, exc

    run = _Run(settings.reply_style)
    try:
        with client, progress_bar(as_json=form is not None) as progress:
            answers = progress.track(
                in_parallel(ask, chain(photos, _files(folder)), concurrency), total=total, description="recognising"
            )
            if form is None:
                run.print_lines(answers)
            else:
                for row in report(run.rows(answers), form):
                    echo(row.rstrip("\r\n"))
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED_STATUS) from None
    finally:
        run.print_summary(total)
    if run.failures:
        raise SystemExit(1)


_Answer = tuple[Path, Recognition | FacerecError | OSError]


class _Run:
    """Prints the answers as they come, and counts them."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._outcomes: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()

    @property
    def failures(self) -> int:
        return self._reasons.total()

    def print_lines(self, answers: Iterable[_Answer]) -> None:
        for path, answer in answers:
            if isinstance(answer, Recognition):
                self._outcomes[answer.outcome] += 1
                # The stream is named: click would find the real one behind rich's, and write into the progress bar.
                echo(recognised(answer, self._style).text, file=sys.stdout)
            else:
                self._failed(path, answer)

    def rows(self, answers: Iterable[_Answer]) -> Iterator[JobFile]:
        for number, (path, answer) in enumerate(answers):
            if isinstance(answer, Recognition):
                self._outcomes[answer.outcome] += 1
                yield _row(number, path, answer)
            else:
                self._failed(path, answer)
                request_id = answer.request_id if isinstance(answer, ApiError) else None
                yield JobFile(
                    index=number,
                    file=str(path),
                    status=FileStatus.FAILED,
                    request_id=request_id,
                    outcome=Outcome.INVALID_IMAGE if isinstance(answer, InvalidPhoto) else None,
                    detail=_reason(answer),
                )

    def print_summary(self, total: int) -> None:
        done = self._outcomes.total() + self.failures
        words = [f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(self._outcomes.items())]
        if self.failures:
            words.append(f"{self.failures} failed")
        left = f"; {total - done} not done" if done < total else ""
        echo(f"{counted(done, 'photo')}: {', '.join(words) or 'none'}{left}", err=True)
        for reason, count in self._reasons.most_common(_SHOWN_REASONS):
            echo(f"  {count} failed: {reason}", err=True)

    def _failed(self, path: Path, error: FacerecError | OSError) -> None:
        if isinstance(error, Forbidden) or (isinstance(error, Unreachable) and not error.connected):
            raise error  # so would be every other photo's
        reason = _reason(error)
        known = reason in self._reasons or len(self._reasons) < _MOST_REASONS
        self._reasons[reason if known else "other reasons, see above"] += 1
        echo(f"{path}: {reason}", err=True)


def _row(number: int, path: Path, result: Recognition) -> JobFile:
    match = result.faces[0].matches[0] if result.faces and result.faces[0].matches else None
    return JobFile(
        index=number,
        file=str(path),
        status=FileStatus.DONE,
        request_id=result.request_id,
        outcome=result.outcome,
        result=result.result,
        similarity=None if match is None else match.similarity,
        faces=len(result.faces) + result.more_faces,
    )


def _reason(error: FacerecError | OSError) -> str:
    return f"the file cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


def _files(folder: Path | None) -> Iterator[Path]:
    """Yield the files in a folder and below it, in order; those whose names begin with a dot are left out."""
    if folder is None:
        return
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


class _Worker(threading.Thread, Generic[Item, Done]):
    """Works on items until it gets none. A daemon, so that Ctrl-C does not wait for answers."""

    def __init__(
        self,
        work: Callable[[Item], Done],
        items: "SimpleQueue[Item | None]",
        done: "SimpleQueue[Done | BaseException]",
    ) -> None:
        super().__init__(daemon=True)
        self._work, self._items, self._done = work, items, done

    def run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                self._done.put(self._work(item))
            except BaseException as exc:  # noqa: BLE001 - it is raised in the thread of the command
                self._done.put(exc)


def in_parallel(work: Callable[[Item], Done], items: Iterable[Item], threads: int) -> Iterator[Done]:
    """Yield what `work` returns for each item, as it is done; at most `threads` items are taken ahead."""
    waiting: SimpleQueue[Item | None] = SimpleQueue()
    done: SimpleQueue[Done | BaseException] = SimpleQueue()
    for _ in range(threads):
        _Worker(work, waiting, done).start()
    remaining = iter(items)
    in_work = 0
    try:
        for item in islice(remaining, threads):
            waiting.put(item)
            in_work += 1
        while in_work:
            found = done.get()
            in_work -= 1
            for item in islice(remaining, 1):
                waiting.put(item)
                in_work += 1
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        for _ in range(threads):
            waiting.put(None)
