"""The whole engine against the pattern that everyone copies: photos as bytes in, faces with embeddings and a match out.

    python -m benchmarks.engine                # examples/, with thumbnails made of its faces
    python -m benchmarks.engine --images DIR

One pinned thread; in each round every way sees the same group of photos, one way after the other, and the speedups are
medians over the rounds' ratios. `speedup_*` is the naive pattern at 240 px against ours as a busy worker's engine gets
its photos, a batch at a time: up to `--batch` of `--batch-megapixels` together, and as even as possible, so that no
small rest is among the medians (`batches` says how many each has); `speedup_*_single` against ours one at a time;
`speedup_*_same_size` the naive pattern at 160 px against ours, so that the difference to `speedup_*` is what the
smaller crop gives.
`cos_min`, `box_max_px`, `landmark_max_px`, `faces_missing` and `faces_extra` hold our faces against facenet-pytorch's
at 160 px. `limit_ms_64` is the arithmetic of P-Net on every scale and of one embedding at the core's measured peak;
`bf16_peak_share` is that arithmetic in the time that we take, against the peak in bf16. Needs `make install-reference`.
The last line is one JSON object.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import ROOT, gflop, interleaved, machine, median_ms, model_dir, peaks_gflops, pin, ratio
from benchmarks.naive import GALLERY, Naive, gallery
from benchmarks.photos import SIZES, by_size
from model.artefact import Artefact
from model.header import MEGAPIXEL, read_header

if TYPE_CHECKING:
    from model.engines import Engine
    from model.faces import EmbeddedFace

SAME_FACE_OVERLAP = 0.5
MAX_MEGAPIXELS = 50.0


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=ROOT / "examples")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=8, help="photos that ours takes at a time, a worker's batch_max")
    parser.add_argument("--batch-megapixels", type=float, default=8, help="the same, a worker's batch_max_megapixels")
    parser.add_argument("--limit", type=int, default=16, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pin()
    from model.engines import open_engine  # noqa: PLC0415 - imported after the process has been pinned

    artefact = Artefact.load(model_dir())
    engine = open_engine(artefact, options.engine, precision=options.precision)
    photos = by_size(options.images, options.limit)
    peaks = peaks_gflops()
    result: dict[str, Any] = {}
    ways = Ways(artefact, engine)
    groups = {size: grouped(photos[size], options.batch, options.batch_megapixels) for size in SIZES if photos[size]}
    for size, together in groups.items():
        result |= ways.compare(size, together, options.rounds)
    everything = [data for size in SIZES for data in photos[size]]
    result |= correctness(artefact, engine, everything)
    if photos["64"]:
        result |= limit(artefact, engine.precision, result["ms_64"], peaks)
    result |= {
        "engine": engine.name,
        "precision": engine.precision,
        "batches": {size: [len(group) for group in together] for size, together in groups.items()},
        "photos": {size: len(photos[size]) for size in SIZES},
        "peak_gflops": {precision: round(peak) for precision, peak in peaks.items()},
        "machine": machine(),
    }
    print(json.dumps(result))


def grouped(photos: list[bytes], most: int, megapixels: float) -> list[list[bytes]]:
    """Return the photos in as few batches as a worker would make of them, of nearly as many photos each.

    A batch has `most` photos at most, and `megapixels` together or a single one.
    """
    sizes = [header.width * header.height / MEGAPIXEL for header in map(read_header, photos)]
    for count in range(-(-len(photos) // most), len(photos)):
        ends = [number * len(photos) // count for number in range(count + 1)]
        spans = [slice(first, last) for first, last in pairwise(ends)]
        if all(span.stop - span.start == 1 or sum(sizes[span]) <= megapixels for span in spans):
            return [photos[span] for span in spans]
    return [[photo] for photo in photos]


class Ways:
    """Ours and the naive pattern, each with a gallery of as many strangers."""

    def __init__(self, artefact: Artefact, engine: "Engine") -> None:
        from model.matching import GalleryIndex  # noqa: PLC0415 - as above

        known = gallery()
        names = [f"stranger {number}" for number in range(GALLERY)]
        self._index = GalleryIndex(known, names, names)
        self._naive = {side: Naive(artefact, side, known) for side in (240, 160)}
        self._engine = engine
        self._center_weight = artefact.center_weight

    def compare(self, size: str, groups: list[list[bytes]], rounds: int) -> dict[str, float]:
        """Time every way on each batch of photos."""
        seconds: dict[str, list[float]] = {}
        for number, group in enumerate(groups, start=1):
            calls: dict[str, Callable[[], object]] = {
                "240": partial(self._naively, 240, group),
                "160": partial(self._naively, 160, group),
                "batch": partial(self._ours, group),
                "single": partial(self._one_by_one, group),
            }
            for way, times in interleaved(calls, rounds, warm_ups=1).items():
                seconds.setdefault(way, []).extend(time / len(group) for time in times)
            print(f"{size}: {number} of {len(groups)} batches", file=sys.stderr)
        return {
            f"speedup_{size}": round(ratio(seconds["240"], seconds["batch"]), 2),
            f"speedup_{size}_single": round(ratio(seconds["240"], seconds["single"]), 2),
            f"speedup_{size}_same_size": round(ratio(seconds["160"], seconds["batch"]), 2),
            f"ms_{size}": round(median_ms(seconds["batch"]), 2),
            f"ms_{size}_single": round(median_ms(seconds["single"]), 2),
            f"ms_{size}_naive": round(median_ms(seconds["240"]), 2),
        } | self._stages(size, groups, rounds)

    def _naively(self, side: int, photos: list[bytes]) -> None:
        for data in photos:
            self._naive[side].recognise(data)

    def _one_by_one(self, photos: list[bytes]) -> None:
        for data in photos:
            self._ours([data])

    def _ours(self, photos: list[bytes]) -> list[object]:
        import numpy as np  # noqa: PLC0415 - as above

        from model.analysis import analyse_batch  # noqa: PLC0415 - as above
        from model.faces import ImageAnalysis  # noqa: PLC0415 - as above

        answers: list[object] = []
        for outcome in analyse_batch(
            self._engine, photos, max_megapixels=MAX_MEGAPIXELS, center_weight=self._center_weight
        ):
            if isinstance(outcome, ImageAnalysis) and outcome.faces:
                answers.append(self._index.search(np.stack([face.embedding for face in outcome.faces]), limit=5))
            else:
                answers.append(None)
        return answers

    def _stages(self, size: str, groups: list[list[bytes]], rounds: int) -> dict[str, float]:
        """Where our time goes: the stages that every result carries, in milliseconds by the clock.

        The median over the photos of the least over the rounds, since the clock counts other processes, too.
        """
        from model.analysis import analyse_batch  # noqa: PLC0415 - as above
        from model.faces import ImageAnalysis  # noqa: PLC0415 - as above

        least: dict[str, dict[tuple[int, int], float]] = {}
        options = {"max_megapixels": MAX_MEGAPIXELS, "center_weight": self._center_weight}
        for number, group in [*enumerate(groups)] * rounds:
            for place, outcome in enumerate(analyse_batch(self._engine, group, **options)):
                if isinstance(outcome, ImageAnalysis):
                    for stage, ms in outcome.timings_ms.items():
                        known = least.setdefault(stage, {})
                        known[number, place] = min(ms, known.get((number, place), ms))
        return {f"{stage}_ms_{size}": round(statistics.median(ms.values()), 2) for stage, ms in least.items()}


def correctness(artefact: Artefact, engine: "Engine", photos: list[bytes]) -> dict[str, float | int]:
    """Hold our faces against the reference's, each way from the bytes to the embedding."""
    import numpy as np  # noqa: PLC0415 - as above

    from model.analysis import analyse  # noqa: PLC0415 - as above
    from model.engines import open_engine  # noqa: PLC0415 - as above

    reference = open_engine(artefact, "torch")
    missing = extra = known_count = 0
    boxes, landmarks, cosines = [0.0], [0.0], [1.0]
    for data in photos:
        options = {"max_megapixels": MAX_MEGAPIXELS, "center_weight": artefact.center_weight}
        left = list(analyse(engine, data, **options).faces)
        for known in analyse(reference, data, **options).faces:
            known_count += 1
            face = max(left, key=partial(_overlap, known), default=None)
            if face is None or _overlap(face, known) < SAME_FACE_OVERLAP:
                missing += 1
                continue
            left.remove(face)
            boxes.append(float(np.abs(np.subtract(_edges(face), _edges(known))).max()))
            landmarks.append(float(np.abs(np.subtract(face.landmarks, known.landmarks)).max()))
            cosines.append(float(face.embedding @ known.embedding))
        extra += len(left)
    return {
        "faces": known_count,
        "faces_missing": missing,
        "faces_extra": extra,
        "box_max_px": round(max(boxes), 4),
        "landmark_max_px": round(max(landmarks), 4),
        "cos_min": round(min(cosines), 6),
    }


def limit(artefact: Artefact, precision: str, ms: float, peaks: dict[str, float]) -> dict[str, float]:
    """Return what the arithmetic of a photo of 64 by 64 takes at the core's peak, and the share of it that we reach."""
    from model.detection.mtcnn import pyramid_scales  # noqa: PLC0415 - as above

    embedding = gflop(artefact.path("embedder.onnx"), (1, 3, artefact.image_size, artefact.image_size))
    sides = [int(64 * scale + 1) for scale in pyramid_scales(64, 64, artefact.min_face_size, artefact.factor)]
    proposing = sum(gflop(artefact.path("pnet.onnx"), (1, 3, side, side)) for side in sides)
    peak = peaks["bf16"] or peaks["fp32"]
    return {
        "gflop_64": round(embedding + proposing, 3),
        "limit_ms_64": round(1000 * (embedding / peaks[precision] + proposing / peaks["fp32"]), 2),
        "bf16_peak_share": round((embedding + proposing) / (ms / 1000) / peak, 3),
    }


def _edges(face: "EmbeddedFace") -> tuple[float, float, float, float]:
    return face.box.x_min, face.box.y_min, face.box.x_max, face.box.y_max


def _overlap(one: "EmbeddedFace", other: "EmbeddedFace") -> float:
    """Intersection over union of two faces' boxes."""
    a, b = one.box, other.box
    width = min(a.x_max, b.x_max) - max(a.x_min, b.x_min)
    height = min(a.y_max, b.y_max) - max(a.y_min, b.y_min)
    shared = max(0.0, width) * max(0.0, height)
    areas = [(box.x_max - box.x_min) * (box.y_max - box.y_min) for box in (a, b)]
    return shared / (sum(areas) - shared)


if __name__ == "__main__":
    main()
