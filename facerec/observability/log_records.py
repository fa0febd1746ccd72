"""Reading back what our processes logged: the JSON records that mention one request, out of whatever holds them."""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

from facerec.errors import ConfigurationError

_PATTERNS = ("*.log", "*.log.*", "*.jsonl", "*.jsonl.*")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of ours; `facts` is what it has beside its time, its event and where it comes from."""

    at: datetime
    event: str
    process: str
    facts: dict[str, Any]


def log_files(path: Path) -> list[Path]:
    """A file itself; of a folder those that look like logs, also in folders below; raises `ConfigurationError`."""
    if path.is_dir():
        return sorted({file for pattern in _PATTERNS for file in path.rglob(pattern) if file.is_file()})
    if path.is_file():
        return [path]
    raise ConfigurationError(f"there are no logs at {path}: name a file or a folder with --logs")


def lines_of(file: Path) -> Iterator[str]:
    """The lines of a file, which may be compressed by gzip; raises `ConfigurationError`."""
    try:
        with _opened(file) as lines:
            yield from lines
    except (OSError, EOFError) as exc:
        raise ConfigurationError(f"cannot read {file}: {exc}") from exc


def _opened(file: Path) -> IO[str]:
    if file.suffix == ".gz":
        return gzip.open(file, "rt", encoding="utf-8", errors="replace")
    return file.open(encoding="utf-8", errors="replace")


def mentions(lines: Iterable[str], request_id: UUID) -> Iterator[LogRecord | None]:
    """Each line that mentions the request: as a record, or as nothing where it is none of ours.

    Something may stand before the record, such as what journalctl, Docker or CloudWatch writes there.
    """
    wanted = str(request_id)
    for line in lines:
        if wanted in line:
            yield _record(line)


def _record(line: str) -> LogRecord | None:
    try:
        entry = json.loads(line[line.index("{") :])
        at = datetime.fromisoformat(entry.pop("timestamp"))
        event = str(entry.pop("event"))
        if at.tzinfo is None:
            return None
    except (ValueError, KeyError, TypeError, AttributeError):
        # No JSON, another program's, or a record that was cut off.
        return None
    process = entry.pop("process", "")
    instance = entry.pop("instance_id", None)
    if isinstance(exception := entry.pop("exception", None), list) and exception:
        # The innermost error is enough here; the traceback stays in the log.
        entry["error"] = f"{exception[0].get('exc_type')}: {exception[0].get('exc_value')}"
    return LogRecord(at, event, f"{process} {instance}" if instance else str(process), entry)
