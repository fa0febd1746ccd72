"""A detection function whose engine marked pictures crash or hang; its handler is `poisoned_function.handler`.

As in `poisoned_worker`, a marked picture is valid, with a mark after its last byte.
"""

import os
import time
from collections.abc import Sequence
from typing import Any

from facerec.engine.child import EngineSpec
from facerec.engine.loading import ModelAnalyser, open_detector
from facerec.engine.supervisor import SupervisedDetector
from model.faces import PackedFaces
from model.header import InvalidImage
from tests.support.faults.poisoned_worker import MARK

HANGING = b"hanging"


def open_poisoned(spec: EngineSpec) -> "ModelAnalyser[PackedFaces | InvalidImage]":
    """The factory that an engine process calls."""
    real = open_detector(spec)

    def analyse_batch(images: Sequence[bytes]) -> "list[PackedFaces | InvalidImage]":
        if any(image.endswith(MARK) for image in images):
            os.abort()
        if any(image.endswith(HANGING) for image in images):
            time.sleep(3600)
        return real.analyse_batch(images)

    return ModelAnalyser(real.name, real.precision, real.model_id, real.prepare, analyse_batch)


def __getattr__(name: str) -> Any:
    """Open the function when its runtime asks for the handler; the engine's child imports this module, too."""
    if name != "handler":
        raise AttributeError(name)
    SupervisedDetector.FACTORY = f"{__name__}:open_poisoned"
    from facerec.serverless.detection import handler  # noqa: PLC0415 - see above

    return handler
