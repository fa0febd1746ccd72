"""What a person sees while a local system starts and ends: one line a step, with its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Progress:
    """Prints to the console; a running step shows a spinner on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str = "") -> None:
        """Print a line as it is."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show the step while it runs, and print it with its time once it is done."""
        began = time.monotonic()
        with self._console.status(f"{title} …"):
            yield
        self.line(f"  {title:<60} {time.monotonic() - began:5.1f} s")
