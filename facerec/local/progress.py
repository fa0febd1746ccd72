"""What a person sees of a local system."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console  # noqa: TID251 - as a type

from facerec.text import one_line


class Progress:
    """What a person sees while a system starts and ends: one line for each step, with its time."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def line(self, text: str = "") -> None:
        """Print one line."""
        self._console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Show a spinner on a terminal while the step runs, then print the step with its time."""
        began = time.monotonic()
        with self._console.status(f"{title} …"):
            yield
        self.line(f"  {title:<60} {time.monotonic() - began:5.1f} s")
