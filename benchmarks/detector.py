"""A pack's detector against facenet-pytorch's MTCNN: the speedup, and whether all engines find the same faces.

    python -m benchmarks.detector --pack open          # needs `make install-reference`
    python -m benchmarks.detector --pack classic --images DIR

In each round facenet-pytorch's MTCNN (eager, as published) and each engine detect every photo in turn, on one pinned
core with one thread. Times are CPU times, and medians unless their name says mean:

- `mean_first_ms`: photos that the engine sees for the first time; `batch_ms`: one photo in a batch of 8;
- `stages_ms`: means under a profiler, which slows them;
- `speedup`: the median ratio of neighbouring runs, by the longer side of the photos: up to 96 pixels, up to 400, more.

If the folder has only large photos, they are also scaled down. For the pack classic the faces are compared with
facenet-pytorch's, for the others with those of the first of `--engines`. The last line is one JSON object. The exit
status is 1 if a face is missing, added, or moved by half a pixel.
"""

import argparse
import cProfile
import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import add_pack_option, machine, pack_artefact, pin
from tests.support.measurements.agreement import edges, overlap
from tests.support.measurements.photos import paths
from tests.support.processes import CHECKOUT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.engines import Engine
    from model.faces import DetectedFace

SIZES = {"64": 96, "250": 400, "large": 1 << 30}  # pixels of the longer side
BATCH = 8
TOLERANCE_PIXELS = 0.5
SAME_FACE = 0.5  # intersection over union
STAGES = {
    "_propose": "propose",
    "_refine": "refine",
    "_decide": "decide",
    "scaled": "of it: scaling",
    "crops": "of it: cropping",
    "_suppress": "of it: suppression",
    "_look": "look",
    "_uprighted": "second looks",
    "pixels": "of it: pixels",
    "resized": "scaling",
}
"""Functions of the detectors, by what they are called in the figures."""


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pack_option(parser)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--engines", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--limit", type=int, default=30, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pin()
    figures = measure(options)
    print(json.dumps(figures))
    sys.exit(0 if figures["same_faces"] else 1)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time and compare; the models are loaded here, after the process is pinned."""
    import cv2  # noqa: PLC0415 - as above

    from model.engines import open_engine  # noqa: PLC0415 - as above

    cv2.setNumThreads(1)
    artefact = pack_artefact(options.pack)
    naive = open_engine(pack_artefact("classic"), "torch")
    engines = {name: open_engine(artefact, name) for name in options.engines}
    reference = naive if options.pack == "classic" else engines[options.engines[0]]
    figures: dict[str, Any] = {"pack": options.pack, "machine": machine(), "photos": {}, "naive_ms": {}}
    compared = {name: Comparison() for name in engines}
    results: dict[str, dict[str, Any]] = {name: {} for name in engines}
    for size, photos in _photos(options.images, options.limit).items():
        print(f"{len(photos)} photos of size {size}", file=sys.stderr)
        figures["photos"][size] = len(photos)
        first = defaultdict(list)
        for photo in photos:
            known = reference.detect(photo)
            for name, engine in engines.items():
                started = time.process_time()
                found = engine.detect(photo)
                first[name].append(time.process_time() - started)
                compared[name].add(known, found)
        calls = {"naive": naive.detect} | {name: engine.detect for name, engine in engines.items()}
        seconds = _interleaved(photos, calls, options.rounds)
        figures["naive_ms"][size] = _median_ms(seconds["naive"])
        for name, engine in engines.items():
            ratios = [slow / fast for slow, fast in zip(seconds["naive"], seconds[name], strict=True)]
            results[name][size] = {
                "speedup": round(statistics.median(ratios), 2),
                "ms": _median_ms(seconds[name]),
                "mean_ms": _ms(statistics.fmean(seconds[name])),
                "mean_first_ms": _ms(statistics.fmean(first[name])),
                "batch_ms": _ms(_batched(engine, photos, options.rounds)),
                "stages_ms": _stages(engine, photos),
            }
    for name, comparison in compared.items():
        figures[name] = results[name] | comparison.figures()
    figures["same_faces"] = all(comparison.same() for comparison in compared.values())
    return figures


class Comparison:
    """How far an engine's faces are from the reference's."""

    def __init__(self) -> None:
        self._faces = self._missing = self._extra = 0
        self._box_pixels = self._landmark_pixels = 0.0

    def add(self, known: "list[DetectedFace]", found: "list[DetectedFace]") -> None:
        """Compare the faces of one photo: each known one with the found one that covers it best."""
        left = list(found)
        self._faces += len(known)
        for face in known:
            best = max(left, key=lambda other: overlap(face.box, other.box), default=None)
            if best is None or overlap(face.box, best.box) < SAME_FACE:
                self._missing += 1
                continue
            left.remove(best)
            self._box_pixels = max(self._box_pixels, *_distances(edges(face.box), edges(best.box)))
            for point, other in zip(face.landmarks, best.landmarks, strict=True):
                self._landmark_pixels = max(self._landmark_pixels, *_distances(point, other))
        self._extra += len(left)

    def same(self) -> bool:
        """Whether they are the same faces at the same places."""
        return not (self._missing or self._extra) and max(self._box_pixels, self._landmark_pixels) < TOLERANCE_PIXELS

    def figures(self) -> dict[str, int | float]:
        """Return what was found."""
        return {
            "faces": self._faces,
            "faces_missing": self._missing,
            "faces_extra": self._extra,
            "box_max_px": round(self._box_pixels, 5),
            "landmark_max_px": round(self._landmark_pixels, 5),
        }


def _distances(values: Iterable[float], others: Iterable[float]) -> list[float]:
    return [abs(value - other) for value, other in zip(values, others, strict=True)]


def _photos(folder: Path, limit: int) -> "dict[str, list[NDArray[np.uint8]]]":
    """Return up to `limit` decoded photos of each size; if it lacks small ones, large ones are scaled down."""
    import cv2  # noqa: PLC0415 - as in `measure`
    import numpy as np  # noqa: PLC0415 - as in `measure`

    from model.imaging import decode  # noqa: PLC0415 - as in `measure`

    found: dict[str, list[NDArray[np.uint8]]] = {}
    for path in paths(folder):
        photo = decode(path.read_bytes())
        size = next(size for size, side in SIZES.items() if max(photo.shape[:2]) <= side)
        if len(found.setdefault(size, [])) < limit:
            found[size].append(photo)
    if not found:
        raise SystemExit(f"there is no photo below {folder}")
    if set(found) == {"large"}:
        for size in ("64", "250"):
            scaled = [(photo, int(size) / max(photo.shape[:2])) for photo in found["large"]]
            found[size] = [
                np.asarray(cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
                for photo, scale in scaled
            ]
    return {size: found[size] for size in SIZES if size in found}


def _interleaved(
    photos: "list[NDArray[np.uint8]]", calls: "Mapping[str, Callable[[NDArray[np.uint8]], object]]", rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of every call on every photo in every round, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for photo in photos:
            for name, call in calls.items():
                started = time.process_time()
                call(photo)
                seconds[name].append(time.process_time() - started)
    return seconds


def _batched(engine: "Engine", photos: "list[NDArray[np.uint8]]", rounds: int) -> float:
    """Return the median seconds of a photo in batches of `BATCH`."""
    seconds = []
    for _ in range(rounds):
        for first in range(0, len(photos), BATCH):
            batch = photos[first : first + BATCH]
            started = time.process_time()
            sides = [engine.detector.min_side(photo.shape[1], photo.shape[0], None) for photo in batch]
            engine.detector.detect_batch(batch, sides)
            seconds.append((time.process_time() - started) / len(batch))
    return statistics.median(seconds)


def _stages(engine: "Engine", photos: "list[NDArray[np.uint8]]") -> dict[str, float]:
    """Return the mean milliseconds of each stage in a photo, and of what they have in common, under a profiler."""
    profile = cProfile.Profile(time.process_time)
    profile.enable()
    for photo in photos:
        engine.detect(photo)
    profile.disable()
    stages = dict.fromkeys(STAGES.values(), 0.0)
    for entry in profile.getstats():
        code = entry.code
        if not isinstance(code, str) and code.co_name in STAGES and f"{os.sep}model{os.sep}" in code.co_filename:
            stages[STAGES[code.co_name]] += entry.totaltime
    return {stage: _ms(seconds / len(photos)) for stage, seconds in stages.items() if seconds}


def _median_ms(seconds: list[float]) -> float:
    return _ms(statistics.median(seconds))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


if __name__ == "__main__":
    main()
