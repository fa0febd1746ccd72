"""A worker whose engine a marked picture kills: `python -m tests.support.faults.poisoned_worker`.

No picture is known that kills the real engine. The marked ones are sound but for the mark behind their last byte; where
one is among the images of a batch the engine process ends as a native crash ends it (SIGABRT), with the whole batch.
"""

import os
from collections.abc import Iterator, Sequence

from facerec.engine.child import Analyser, EngineSpec
from facerec.engine.loading import open_analyser
from model.faces import ImageAnalysis
from model.header import InvalidImage
from tests.fakes.worker import run_worker

MARK = b"poison"
FACTORY = "tests.support.faults.poisoned_worker:open_poisoned"


class PoisonedAnalyser:
    """The real analyser, until a marked picture comes."""

    def __init__(self, real: Analyser) -> None:
        self._real = real
        self.name, self.precision, self.model_id = real.name, real.precision, real.model_id

    def prepare(self) -> Iterator[None]:
        """As the real one."""
        return self._real.prepare()

    def analyse_batch(self, images: Sequence[bytes]) -> list[ImageAnalysis | InvalidImage]:
        """As the real one, or never."""
        if any(image.endswith(MARK) for image in images):
            os.abort()
        return self._real.analyse_batch(images)


def open_poisoned(spec: EngineSpec) -> PoisonedAnalyser:
    """The factory that an engine process calls."""
    return PoisonedAnalyser(open_analyser(spec))


if __name__ == "__main__":
    run_worker(FACTORY)
