"""A worker with the fake engine: `python -m tests.fakes.worker` is `facerec worker` in all else."""

import functools
from typing import Any

from facerec.cli import cli
from tasks import worker
from tests.fakes.engine import FACTORY

if __name__ == "__main__":
    opened: Any = functools.partial(worker.Worker.open, factory=FACTORY)
    worker.Worker.open = opened  # type: ignore[method-assign]  # no setting chooses the factory
    cli(["worker"])
