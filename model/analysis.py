"""From the bytes of pictures to their faces: decode, detect, crop, embed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np

from model.embedding import embed_valid
from model.engines import DetectionEngine, Engine
from model.faces import Box, DetectedFace, ImageAnalysis, MeasuredFace, PictureFaces, PictureToEnrol
from model.header import InvalidImage
from model.imaging import Picture, decode_reduced
from model.matching import primary_order
from model.quality_factors import grey_patch, quality_factors
from model.thumbnails import thumbnail

DETECT_PIXELS = 4_000_000  # pixels of decoded pictures that are held at a time, if there are several pictures
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


def analyse(engine: Engine, data: bytes, limits: PictureLimits) -> ImageAnalysis:
    """Return the faces of one picture with their embeddings, the primary one first; raises `InvalidImage`."""
    (outcome,) = analyse_batch(engine, [data], limits)
    if isinstance(outcome, InvalidImage):
        raise outcome
    return outcome


def analyse_batch(engine: Engine, images: Sequence[bytes], limits: PictureLimits) -> list[ImageAnalysis | InvalidImage]:
    """Return the result or the error of `analyse` for each picture: `detect_batch`, then `embed_valid`."""
    return embed_valid(engine, detect_batch(engine, images, limits))


def detect_batch(
    engine: DetectionEngine, images: Sequence[bytes], limits: PictureLimits
) -> list[PictureFaces | InvalidImage]:
    """Return for each picture its faces, the primary one first, or the reason why it is invalid.

    The detector gets pictures of `DETECT_PIXELS` together, or one larger picture; one more is held decoded meanwhile.
    """
    return list(_detections(engine, images, limits))


def _detections(
    engine: DetectionEngine, images: Sequence[bytes], limits: PictureLimits
) -> Iterator[PictureFaces | InvalidImage]:
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


def _decode(engine: DetectionEngine, data: bytes, limits: PictureLimits) -> _Decoded | InvalidImage:
    started = perf_counter()
    min_side = partial(engine.detector.min_side, min_face_pixels=limits.min_face_pixels)
    try:
        picture = decode_reduced(data, limits.max_megapixels, min_side)
    except InvalidImage as exc:
        return exc
    return _Decoded(data, picture, min_side(picture.width, picture.height), _milliseconds_since(started))


def _detect(
    engine: DetectionEngine, held: Sequence[_Decoded | InvalidImage], limits: PictureLimits
) -> Iterator[PictureFaces | InvalidImage]:
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
        in_sharper = [_scaled(face, ratio) for face in faces]
        crops = [engine.cropper.crop(sharper.pixels, face) for face in in_sharper]
        measured = tuple(_measured(face, clipped[face], picture) for face in faces)
        if isinstance(each.data, PictureToEnrol):
            measured = tuple(
                replace(known, thumbnail=thumbnail(sharper.pixels, face.box))
                for known, face in zip(measured, in_sharper, strict=True)
            )
        yield PictureFaces(
            width=picture.width,
            height=picture.height,
            faces=measured,
            crops=np.stack(crops) if crops else np.empty((0, 0, 0, 3), dtype=np.uint8),
            timings_ms={
                "decode": each.decode_ms,
                "detect": pixel_ms * picture.pixels.size + _milliseconds_since(started),
            },
            more_faces=more,
        )


def _measured(face: DetectedFace, clipped: DetectedFace, picture: Picture) -> MeasuredFace:
    """Return the face for the report; its quality is that of the whole face, of which an edge may hide a part."""
    whole = _scaled(face, picture.reduction)
    factors = quality_factors(grey_patch(picture.pixels, face.box), whole.landmarks, whole.probability)
    return MeasuredFace(clipped.box, clipped.probability, clipped.landmarks, factors)


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


def _sharper(
    engine: DetectionEngine, decoded: _Decoded, faces: Sequence[DetectedFace], limits: PictureLimits
) -> Picture:
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
