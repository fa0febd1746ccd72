"""From the bytes of pictures to their faces: decode, detect, crop, embed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from model.engines import Engine
from model.faces import DetectedFace, EmbeddedFace, ImageAnalysis
from model.header import InvalidImage
from model.imaging import decode
from model.matching import primary_order

DETECT_PIXELS = 4_000_000  # of pictures held decoded at a time, where they are several
EMBED_BATCH = 16  # crops at a time: a group photo costs no more memory than a row of portraits


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded picture."""

    pixels: NDArray[np.uint8]
    decode_ms: float


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

    At most `DETECT_PIXELS`, or one larger picture, are looked at together; one more is held decoded meanwhile.
    """
    detections = list(_detections(engine, images, max_megapixels, center_weight))
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


def _detections(
    engine: Engine, images: Sequence[bytes], max_megapixels: float, center_weight: float
) -> Iterator[_Detection | InvalidImage]:
    """Yield the faces of each picture, or why it has none, in the order of the pictures."""
    held: list[_Picture | InvalidImage] = []
    room = DETECT_PIXELS
    for data in images:
        picture = _decode(data, max_megapixels)
        pixels = 0 if isinstance(picture, InvalidImage) else picture.pixels.size // 3
        if pixels > room:
            yield from _detect(engine, held, center_weight)
            held, room = [], DETECT_PIXELS
        held.append(picture)
        room -= pixels
    yield from _detect(engine, held, center_weight)


def _decode(data: bytes, max_megapixels: float) -> _Picture | InvalidImage:
    started = perf_counter()
    try:
        return _Picture(decode(data, max_megapixels), _milliseconds_since(started))
    except InvalidImage as exc:
        return exc


def _detect(
    engine: Engine, held: Sequence[_Picture | InvalidImage], center_weight: float
) -> Iterator[_Detection | InvalidImage]:
    """Yield the faces of pictures that are looked at together."""
    pictures = [picture for picture in held if isinstance(picture, _Picture)]
    started = perf_counter()
    found = iter(engine.detect_batch([picture.pixels for picture in pictures]) if pictures else ())
    pixel_ms = _milliseconds_since(started) / max(1, sum(picture.pixels.size for picture in pictures))
    for picture in held:
        if isinstance(picture, InvalidImage):
            yield picture
            continue
        started = perf_counter()
        height, width = picture.pixels.shape[:2]
        faces = next(found)
        order = primary_order([face.box for face in faces], width, height, center_weight)
        faces = [faces[index] for index in order]
        crops = [engine.crop(picture.pixels, face) for face in faces]
        detect_ms = pixel_ms * picture.pixels.size + _milliseconds_since(started)
        yield _Detection(width, height, faces, crops, picture.decode_ms, detect_ms)


def _milliseconds_since(started: float) -> float:
    return (perf_counter() - started) * 1000
