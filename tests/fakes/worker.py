"""A worker with another engine: `python -m tests.fakes.worker` is `facerec worker` with the fake one."""

import functools
from typing import Any

from facerec.cli import cli
from tasks import worker
from tests.fakes.engine import FACTORY


def run_worker(factory: str) -> None:
    """Run `facerec worker` with this factory of engines, which no setting can choose."""
    opened: Any = functools.partial(worker.Worker.open, factory=factory)
    worker.Worker.open = opened  # type: ignore[method-assign]
    cli(["worker"])


if __name__ == "__main__":
    run_worker(FACTORY)
