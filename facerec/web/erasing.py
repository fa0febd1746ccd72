"""Works off the ledger of erasures in the background: what `begin` has left, also by a process that was killed."""

import threading

import structlog

from facerec.background import BackgroundThread, OutageLog
from facerec.errors import FacerecError
from facerec.gallery.erasure import Erasures

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""How often the ledger is read; an open erasure has a growing pause of its own."""


class ErasureThread:
    """Tries open erasures when they are due; the processes share the work by leases. Survives outages and faults."""

    def __init__(self, erasures: Erasures, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._erasures = erasures
        self._look_seconds = look_seconds
        self._outage = OutageLog("erasure_ledger")
        self._thread = BackgroundThread("erasures", self._run)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further erasure; a running pass ends in the background, or another process repeats it."""
        self._thread.stop(0)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._look_seconds):
            try:
                self._erasures.work_due(stopping.is_set)
            except FacerecError as exc:
                self._outage.failed(exc)
            except Exception:  # without this thread no erasure of a killed process would go on
                log.exception("erasures_fault")
            else:
                self._outage.succeeded()
