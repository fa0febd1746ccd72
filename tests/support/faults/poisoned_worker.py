"""A worker whose engine a marked picture kills: `python -m tests.support.faults.poisoned_worker`.

No known picture kills the real engine. A marked picture is valid, with a mark after its last byte. If a batch contains
one, the engine process ends like a native crash (SIGABRT), with the whole batch.
"""

import os
from collections.abc import Iterator, Sequence

from facerec.engine.child import EngineSpec
from facerec.engine.loading import ModelAnalyser, open_analyser
from model.faces import ImageAnalysis
from model.header import InvalidImage
from tests.fakes.worker import run_worker

MARK = b"poison"
FACTORY = "tests.support.faults.poisoned_worker:open_poisoned"


class PoisonedAnalyser:
    """The real analyser, until a marked picture comes."""

    def __init__(self, real: ModelAnalyser[ImageAnalysis | InvalidImage]) -> None:
        self._real = real
        self.name, self.precision, self.model_id = real.name, real.precision, real.model_id

    def prepare(self) -> Iterator[None]:
        """As the real one."""
        return self._real.prepare()

    def analyse_batch(self, images: Sequence[bytes]) -> list[ImageAnalysis | InvalidImage]:
        """As the real one; aborts for a marked picture."""
        if any(image.endswith(MARK) for image in images):
            os.abort()
        return self._real.analyse_batch(images)


def open_poisoned(spec: EngineSpec) -> PoisonedAnalyser:
    """The factory that an engine process calls."""
    return PoisonedAnalyser(open_analyser(spec))


if __name__ == "__main__":
    run_worker(FACTORY)
