"""The real engine as a child loads it: the model artefact, one thread, warm."""

from collections.abc import Iterator, Sequence

import numpy as np

from facerec.engine.child import EngineSpec
from model.analysis import Limits, analyse_batch
from model.artefact import Artefact
from model.engines import Engine, open_engine
from model.faces import ImageAnalysis
from model.header import InvalidImage


class ModelAnalyser:
    """`Analyser` over a model's engine."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self.name = engine.name
        self.precision = engine.precision
        self.model_id = engine.model_id
        self._engine = engine
        self._limits = limits

    def prepare(self) -> Iterator[None]:
        """The engine's steps."""
        return self._engine.prepare()

    def analyse_batch(self, images: Sequence[bytes]) -> list[ImageAnalysis | InvalidImage]:
        """One answer per image, in their order."""
        return analyse_batch(self._engine, images, self._limits)


def open_analyser(spec: EngineSpec) -> ModelAnalyser:
    """Load the artefact and run every network once; raises `ArtefactError` or `EngineUnavailable`."""
    artefact = Artefact.load(spec.artefact_dir)
    engine = open_engine(artefact, spec.engine, threads=1, cache_directory=spec.cache_dir, precision=spec.precision)
    # The first inference allocates and, in some engines, compiles: that belongs to the start, not to the first task.
    side = artefact.image_size
    engine.detect(np.zeros((side, side, 3), dtype=np.uint8))
    engine.embed(np.zeros((1, side, side, 3), dtype=np.uint8))
    return ModelAnalyser(engine, Limits(spec.max_megapixels, spec.max_faces, spec.min_face_pixels))
