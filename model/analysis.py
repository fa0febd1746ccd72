"""From the bytes of pictures to their faces: decode, detect, crop, embed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from model.engines import Engine
from model.faces import Box, DetectedFace, EmbeddedFace, ImageAnalysis
from model.header import InvalidImage
from model.imaging import Picture, decode_reduced
from model.matching import primary_order
from model.quality import assess, grey_patch

DETECT_PIXELS = 4_000_000  # pixels of decoded pictures that are held at a time, if there are several pictures
EMBED_BATCH = 16  # crops at a time: a group photo needs no more memory than several portraits
_ENLARGED = 1.25  # how far a crop may be enlarged before a reduced picture is decoded again in more detail


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The limits of a picture's analysis."""

    max_megapixels: float = 50.0
    max_faces: int = 100
    """Faces of a picture that are embedded, the largest first."""
    min_face_pixels: int | None = None
    """The smallest face to find, in pixels of the picture; None is a 64th of the longer side."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A decoded picture, its bytes, and the detector's `min_side`."""

    data: bytes
    picture: Picture
    side: int | None
    decode_ms: float


@dataclass(frozen=True, slots=True)
class _Detection:
    """A picture's faces before they are embedded, in the order of the report."""

    width: int
    height: int
    faces: list[DetectedFace]
    """As detected: crops and quality come from the whole face, of which an edge may hide a part."""
    clipped: list[DetectedFace]
    """Within the picture, for the report."""
    crops: list[NDArray[np.uint8]]
    patches: list[NDArray[np.float32] | None]
    """The `grey_patch` of each face."""
    more_faces: int
    decode_ms: float
    detect_ms: float


def analyse(engine: Engine, data: bytes, limits: PictureLimits) -> ImageAnalysis:
    """Return the faces of one picture with their embeddings, the primary one first; raises `InvalidImage`."""
    (outcome,) = analyse_batch(engine, [data], limits)
    if isinstance(outcome, InvalidImage):
        raise outcome
    return outcome


def analyse_batch(engine: Engine, images: Sequence[bytes], limits: PictureLimits) -> list[ImageAnalysis | InvalidImage]:
    """Return the result or the error of `analyse` for each picture; the crops of all are embedded together.

    The detector gets pictures of `DETECT_PIXELS` together, or one larger picture; one more is held decoded meanwhile.
    """
    detections = list(_detections(engine, images, limits))
    crops = [crop for detection in detections if isinstance(detection, _Detection) for crop in detection.crops]
    started = perf_counter()
    embedded = iter(list(_embedded(engine, crops)))
    embed_ms = _milliseconds_since(started) / max(1, len(crops))
    return [
        detection
        if isinstance(detection, InvalidImage)
        else ImageAnalysis(
            width=detection.width,
            height=detection.height,
            faces=tuple(
                _face(face, clipped, patch, *next(embedded))
                for face, clipped, patch in zip(detection.faces, detection.clipped, detection.patches, strict=True)
            ),
            timings_ms={
                "decode": detection.decode_ms,
                "detect": detection.detect_ms,
                "embed": embed_ms * len(detection.faces),
            },
            more_faces=detection.more_faces,
        )
        for detection in detections
    ]


def _embedded(engine: Engine, crops: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[NDArray[np.float32], float | None]]:
    """Yield each crop's embedding and its norm, if there is one."""
    for first in range(0, len(crops), EMBED_BATCH):
        vectors, norms = engine.embed(np.stack(crops[first : first + EMBED_BATCH]))
        yield from zip(vectors, repeat(None) if norms is None else norms.tolist(), strict=norms is not None)


def _face(
    face: DetectedFace,
    clipped: DetectedFace,
    patch: NDArray[np.float32] | None,
    embedding: NDArray[np.float32],
    norm: float | None,
) -> EmbeddedFace:
    quality = assess(patch, face.landmarks, face.probability, embedding_norm=norm)
    return EmbeddedFace(clipped.box, clipped.probability, clipped.landmarks, embedding, quality)


def _detections(engine: Engine, images: Sequence[bytes], limits: PictureLimits) -> Iterator[_Detection | InvalidImage]:
    """Yield each picture's faces, or the reason why it is invalid, in the order of the pictures."""
    held: list[_Decoded | InvalidImage] = []
    room = DETECT_PIXELS
    for data in images:
        decoded = _decode(engine, data, limits)
        pixels = 0 if isinstance(decoded, InvalidImage) else decoded.picture.pixels.size // 3
        if pixels > room:
            yield from _detect(engine, held, limits)
            held, room = [], DETECT_PIXELS
        held.append(decoded)
        room -= pixels
    yield from _detect(engine, held, limits)


def _decode(engine: Engine, data: bytes, limits: PictureLimits) -> _Decoded | InvalidImage:
    started = perf_counter()
    min_side = partial(engine.detector.min_side, min_face_pixels=limits.min_face_pixels)
    try:
        picture = decode_reduced(data, limits.max_megapixels, min_side)
    except InvalidImage as exc:
        return exc
    return _Decoded(data, picture, min_side(picture.width, picture.height), _milliseconds_since(started))


def _detect(
    engine: Engine, held: Sequence[_Decoded | InvalidImage], limits: PictureLimits
) -> Iterator[_Detection | InvalidImage]:
    """Yield the faces of pictures that the detector gets together."""
    decoded = [picture for picture in held if isinstance(picture, _Decoded)]
    started = perf_counter()
    found = iter(
        engine.detector.detect_batch([each.picture.pixels for each in decoded], [each.side for each in decoded])
        if decoded
        else ()
    )
    pixel_ms = _milliseconds_since(started) / max(1, sum(each.picture.pixels.size for each in decoded))
    for each in held:
        if isinstance(each, InvalidImage):
            yield each
            continue
        started = perf_counter()
        picture = each.picture
        clipped = {face: inside for face in next(found) if (inside := _within(face, picture))}
        faces, more = _chosen(list(clipped), picture, engine.center_weight, limits.max_faces)
        sharper = _sharper(engine, each, faces, limits)
        ratio = picture.reduction / sharper.reduction
        crops = [engine.cropper.crop(sharper.pixels, _scaled(face, ratio)) for face in faces]
        yield _Detection(
            picture.width,
            picture.height,
            [_scaled(face, picture.reduction) for face in faces],
            [clipped[face] for face in faces],
            crops,
            [grey_patch(picture.pixels, face.box) for face in faces],
            more,
            each.decode_ms,
            pixel_ms * picture.pixels.size + _milliseconds_since(started),
        )


def _chosen(
    faces: Sequence[DetectedFace], picture: Picture, center_weight: float, most: int
) -> tuple[list[DetectedFace], int]:
    """Return the faces to embed, the primary one first, and the number of smaller ones left out."""
    height, width = picture.pixels.shape[:2]
    order = primary_order([face.box for face in faces], width, height, center_weight)
    # The detector returns the largest face first; the primary face is kept whatever its size.
    kept = {*order[:1], *range(most)}
    if len(kept) > most:
        kept.discard(most - 1)
    chosen = [faces[number] for number in order if number in kept]
    return chosen, len(faces) - len(chosen)


def _sharper(engine: Engine, decoded: _Decoded, faces: Sequence[DetectedFace], limits: PictureLimits) -> Picture:
    """Return the picture in as much detail as the crop of the smallest face needs."""
    picture = decoded.picture
    enlarged = max((engine.cropper.scale(face) for face in faces), default=0.0)
    if picture.reduction == 1 or enlarged <= _ENLARGED:
        return picture
    needed = int(max(picture.pixels.shape) * enlarged / _ENLARGED)
    return decode_reduced(decoded.data, limits.max_megapixels, lambda _width, _height: needed)


def _within(face: DetectedFace, picture: Picture) -> DetectedFace | None:
    """Return the face in the pixels of the stored picture and within it; None if nothing of it is inside."""
    return _scaled(face, picture.reduction).clipped(picture.width, picture.height)


def _scaled(face: DetectedFace, factor: float) -> DetectedFace:
    """Return the face in a picture that is `factor` times as large."""
    if factor == 1:
        return face
    box = face.box
    return replace(
        face,
        box=Box(box.x_min * factor, box.y_min * factor, box.x_max * factor, box.y_max * factor),
        landmarks=tuple((x * factor, y * factor) for x, y in face.landmarks),
    )


def _milliseconds_since(started: float) -> float:
    return (perf_counter() - started) * 1000
