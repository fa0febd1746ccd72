"""The log files of supervised processes: one for each name, bounded in size and in number."""

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

LARGEST_BYTES = 10_000_000
_UNFIT, _LONGEST = re.compile(r"[^\w.-]", re.ASCII), 100
_ENDED = 20
"""How many logs of ended processes are kept; an instance's process may have a name that does not come back."""


class LogFiles:
    """`NAME.log` in a folder, and beside it `NAME.log.1` with what was in it before.

    A log of `largest_bytes` is copied there and emptied. Its process keeps it open to append, so it cannot be replaced;
    lines that are written during the copy may be lost.
    """

    def __init__(self, folder: Path, largest_bytes: int = LARGEST_BYTES) -> None:
        self._folder = folder
        self._largest_bytes = largest_bytes

    def of(self, name: str) -> Path:
        """The log of the process with this name, which may come from an instance's tag."""
        return self._folder / f"{_UNFIT.sub('_', name)[:_LONGEST]}.log"

    def bound(self, names: Iterable[str]) -> None:
        """Empty those logs of these processes that are large enough."""
        for log in map(self.of, names):
            # A log may be missing, and the disk may be full, which emptying the log mends.
            with suppress(OSError):
                if log.stat().st_size >= self._largest_bytes:
                    try:
                        shutil.copyfile(log, log.with_suffix(".log.1"))
                    finally:
                        os.truncate(log, 0)

    def remove_old(self, running: Iterable[str]) -> None:
        """Remove the oldest logs of processes that do not run."""
        kept = {self.of(name) for name in running}
        with suppress(OSError):
            ended = sorted({*self._folder.glob("*.log")} - kept, key=lambda log: log.stat().st_mtime)
            for log in ended[:-_ENDED]:
                log.unlink()
                log.with_suffix(".log.1").unlink(missing_ok=True)
