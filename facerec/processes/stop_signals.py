"""SIGINT, SIGTERM and SIGHUP as one wish to stop."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


def on_stop_signals(stop: Callable[[], None]) -> None:
    """Call `stop` at the first SIGTERM or SIGINT; a second one ends the process at once. Only in the main thread."""
    asked = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            sys.exit("stopped at once, as asked twice")
        asked = True
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """Turns the first stop signal into `KeyboardInterrupt` in the main thread; the later ones are harmless."""

    def __init__(self) -> None:
        self._heard = False

    def shield(self) -> None:
        """From now on a stop signal interrupts nothing: what runs is the end."""
        self._heard = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        del number, frame
        if not self._heard:
            self._heard = True
            raise KeyboardInterrupt


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Handle stop signals within the block; only in the main thread. A SIGHUP that is ignored (`nohup`) stays so."""
    handler = StopSignals()
    wanted = [n for n in _SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler.handle) for number in wanted}
    try:
        yield handler
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
