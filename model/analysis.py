"""From the bytes of pictures to their faces: decode, detect, crop, embed."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from model.engines import Engine
from model.faces import DetectedFace, EmbeddedFace, ImageAnalysis
from model.header import InvalidImage
from model.imaging import decode
from model.matching import primary_order

EMBED_BATCH = 16  # crops at a time: a group photo costs no more memory than a row of portraits


@dataclass(frozen=True, slots=True)
class _Detection:
    """A picture's faces before they are embedded, in the order in which they will be reported."""

    width: int
    height: int
    faces: list[DetectedFace]
    crops: list[NDArray[np.uint8]]
    decode_ms: float
    detect_ms: float


def analyse(engine: Engine, data: bytes, *, max_megapixels: float, center_weight: float) -> ImageAnalysis:
    """Return the faces of one picture with their embeddings, the primary one first.

    `center_weight` is that of `model.matching.primary_order`. Raises `InvalidImage`.
    """
    (outcome,) = analyse_batch(engine, [data], max_megapixels=max_megapixels, center_weight=center_weight)
    if isinstance(outcome, InvalidImage):
        raise outcome
    return outcome


def analyse_batch(
    engine: Engine, images: Sequence[bytes], *, max_megapixels: float, center_weight: float
) -> list[ImageAnalysis | InvalidImage]:
    """Return what `analyse` returns or raises for each picture; the crops of all are embedded together.

    One picture is held decoded at a time.
    """
    detections = [_detect(engine, data, max_megapixels, center_weight) for data in images]
    crops = [crop for detection in detections if isinstance(detection, _Detection) for crop in detection.crops]
    started = perf_counter()
    embeddings = [
        embedding
        for first in range(0, len(crops), EMBED_BATCH)
        for embedding in engine.embed(np.stack(crops[first : first + EMBED_BATCH]))
    ]
    embed_ms = _milliseconds_since(started) / max(1, len(crops))
    remaining = iter(embeddings)
    return [
        detection
        if isinstance(detection, InvalidImage)
        else ImageAnalysis(
            width=detection.width,
            height=detection.height,
            faces=tuple(
                EmbeddedFace(face.box, face.probability, face.landmarks, next(remaining)) for face in detection.faces
            ),
            timings_ms={
                "decode": detection.decode_ms,
                "detect": detection.detect_ms,
                "embed": embed_ms * len(detection.faces),
            },
        )
        for detection in detections
    ]


def _detect(engine: Engine, data: bytes, max_megapixels: float, center_weight: float) -> _Detection | InvalidImage:
    started = perf_counter()
    try:
        image = decode(data, max_megapixels)
    except InvalidImage as exc:
        return exc
    decode_ms = _milliseconds_since(started)
    started = perf_counter()
    height, width = image.shape[:2]
    found = engine.detect(image)
    order = primary_order([face.box for face in found], width, height, center_weight)
    faces = [found[index] for index in order]
    crops = [engine.crop(image, face) for face in faces]
    return _Detection(width, height, faces, crops, decode_ms, _milliseconds_since(started))


def _milliseconds_since(started: float) -> float:
    return (perf_counter() - started) * 1000
