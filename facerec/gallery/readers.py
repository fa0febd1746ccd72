"""What a process tells the ledger of erasures about the collections that it holds in memory and on its disk."""

import hashlib
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from facerec.background import OutageLog
from facerec.erasure_records import ReaderKind, ReaderReport
from facerec.errors import FacerecError
from facerec.ports import GalleryReaders

log = structlog.get_logger(__name__)

HEARTBEAT = timedelta(seconds=60)
"""A report is repeated so often also without a change."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_START_TIME = 21
"""The place of the start time in `/proc/<pid>/stat`, counted from 0; proc(5) counts from 1."""


class ReaderReporter:
    """Reports one process, and the folder with the snapshots of its machine; for one thread at a time.

    It raises nothing: a report that fails is logged, and made again with the next one. A process of the same folder
    that no longer runs is removed from the reports, for its memory is gone.
    """

    def __init__(
        self,
        readers: GalleryReaders,
        machine: str,
        directory: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        process: str | None = None,
        model_id: str | None = None,
    ) -> None:
        self._readers = readers
        self._where = f"{machine} {directory}"
        folder = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:8]
        self._disk = f"{machine}:{folder}"
        # While a worker changes its model it has two galleries in memory.
        self._process = f"{self._disk}/{process or _identity(os.getpid())}{f'-{model_id}' if model_id else ''}"
        self._model_id = model_id
        self._now = now
        self._reported: tuple[Mapping[str, int], Mapping[str, int] | None] | None = None
        self._reported_at = datetime.min.replace(tzinfo=UTC)
        self._disk_once_more = False
        self._outage = OutageLog("gallery_readers")

    def report(self, held: Mapping[str, int], files: Mapping[str, int] | None) -> None:
        """Report the versions up to which nothing removed is left, by collection; of `files` None: that is unknown."""
        now, state = self._now(), (dict(held), None if files is None else dict(files))
        beat = now >= self._reported_at + HEARTBEAT
        due = beat or state != self._reported
        # A disk counts as clean by a report that is later than those of its processes.
        if not due and not self._disk_once_more:
            return
        try:
            if beat:
                self._forget_ended()
            if due:
                self._write(ReaderKind.PROCESS, self._process, held, now)
            self._write(ReaderKind.DISK, self._disk, files or {}, now, clean=files is not None)
        except FacerecError as exc:
            self._outage.failed(exc)
            return
        self._outage.succeeded()
        self._disk_once_more = due
        if due:
            self._reported, self._reported_at = state, now

    def leave(self, files: Mapping[str, int] | None) -> None:
        """Report that the process ends; its folder stays, unless no snapshot and no other process is left of it."""
        try:
            self._readers.forget(self._process)
            own = f"{self._disk}/"
            if files == {} and not any(report.reader_id.startswith(own) for report in self._readers.reports()):
                self._readers.forget(self._disk)
        except FacerecError as exc:
            log.warning("gallery_reader_not_forgotten", reader_id=self._process, reason=str(exc))

    def _write(
        self, kind: ReaderKind, reader_id: str, collections: Mapping[str, int], now: datetime, *, clean: bool = True
    ) -> None:
        self._readers.report(
            ReaderReport(
                reader_id=reader_id,
                kind=kind,
                where=self._where,
                collections=dict(collections),
                clean=clean,
                reported_at=now,
                model_id=self._model_id if kind is ReaderKind.PROCESS else None,
            )
        )

    def _forget_ended(self) -> None:
        for report in self._readers.reports():
            folder, _, process = report.reader_id.partition("/")
            if folder == self._disk and process and report.reader_id != self._process and not _runs(process):
                self._readers.forget(report.reader_id)


def _identity(pid: int) -> str:
    """Return what no other process of this machine has had: its boot, its number and its start."""
    return f"{_boot()}-{pid}-{_started(pid) or 0}"


def _runs(identity: str) -> bool:
    boot, pid, started = identity.split("-")[:3]
    return boot == _boot() and _started(int(pid)) == int(started)


def _boot() -> str:
    try:
        return _BOOT_ID.read_text()[:8]
    except OSError:  # not Linux
        return "unknown"


def _started(pid: int) -> int | None:
    """Return when a process started, in ticks since the boot; `None` if it does not run."""
    try:
        # The second field is the name in parentheses, which may have blanks.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_START_TIME - 2])
    except (OSError, IndexError, ValueError):
        return None
