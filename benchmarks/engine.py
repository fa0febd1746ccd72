"""The whole engine against the common pattern: from a photo's bytes to faces, embeddings and a match.

    python -m benchmarks.engine                # examples/, with thumbnails made of its faces; the pack open
    python -m benchmarks.engine --pack accurate --images DIR

One pinned thread. In each round every way processes the same photos, one way after the other. Speedups are medians of
the rounds' ratios of CPU time:

- `speedup_*`: the naive pattern at 240 px, against ours in batches as a busy worker's engine gets them: up to `--batch`
  photos of `--batch-megapixels` together, of nearly equal size (`batches`);
- `speedup_*_single`: against ours, one photo at a time;
- `speedup_*_same_size`: the naive pattern at 160 px against ours; the difference to `speedup_*` is the smaller crop.

The naive pattern always has MTCNN and FaceNet. The faces of all photos in DIR are counted, too:

- `faces_reference`: found by at least two of the three packs' detectors, or confirmed by `--verdicts`;
- `faces_found`: those of them that this pack finds; `faces_missing`: the places of the others;
- `faces_extra`: what this pack finds beside them; `disputed`: found by one detector only, to be judged by hand;
- `faces_false`: found in pictures without a face (`faceless` of them), or refuted by a verdict.

`cos_min`, `box_max_px`, `landmark_max_px`, `torch_missing` and `torch_extra` compare the pack classic with
facenet-pytorch at 160 px. `limit_ms_64` is the arithmetic of the detector and one embedding at the core's measured
peak; `peak_share` is the share of that peak that we reach. Needs `make install-reference`. The last line is one JSON
object.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import (
    add_pack_option,
    default_engine,
    gflop,
    interleaved,
    machine,
    median_ms,
    pack_artefact,
    peaks_gflops,
    pin,
    ratio,
)
from benchmarks.naive import GALLERY, Naive, gallery
from model.artefact import EMBEDDER, Artefact
from model.packs.catalogue import PACKS
from tests.support.measurements.agreement import counted, detected, edges, overlap, verdicts
from tests.support.measurements.photos import SIZES, by_size, grouped
from tests.support.processes import CHECKOUT

if TYPE_CHECKING:
    from model.engines import Engine

SAME_BOX = 0.5  # intersection over union; of one detector run by two engines
FACELESS_SEEDS = 8


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pack_option(parser)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--verdicts", type=Path, help="JSON file of faces that were judged by hand")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=8, help="most photos in a batch, a worker's batch_max")
    parser.add_argument(
        "--batch-megapixels", type=float, default=8, help="most megapixels in a batch, a worker's batch_max_megapixels"
    )
    parser.add_argument("--limit", type=int, default=16, help="photos of each size")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pin()
    from model.engines import open_engine  # noqa: PLC0415 - imported after the process has been pinned

    artefacts = {pack: pack_artefact(pack) for pack in PACKS}
    artefact = artefacts[options.pack]
    engine = open_engine(artefact, options.engine, precision=options.precision)
    photos = by_size(options.images, options.limit, default_engine)
    peaks = peaks_gflops()
    result: dict[str, Any] = {"pack": options.pack}
    ways = Ways(artefact, engine, artefacts["classic"])
    groups = {size: grouped(photos[size], options.batch, options.batch_megapixels) for size in SIZES if photos[size]}
    for size, together in groups.items():
        result |= ways.compare(size, together, options.rounds)
    if options.pack == "classic":
        result |= fidelity(artefact, engine, [data for size in SIZES for data in photos[size]])
    if photos["64"]:
        result |= limit(artefact, engine.precision, result["ms_64"], peaks)
    others = {pack: open_engine(other) for pack, other in artefacts.items() if pack != options.pack}
    result |= faces({options.pack: engine} | others, options.pack, options.images, options.verdicts)
    result |= {
        "engine": engine.name,
        "precision": engine.precision,
        "batches": {size: [len(group) for group in together] for size, together in groups.items()},
        "photos": {size: len(photos[size]) for size in SIZES},
        "peak_gflops": {precision: round(peak) for precision, peak in peaks.items()},
        "machine": machine(),
    }
    print(json.dumps(result))


class Ways:
    """Ours and the naive pattern, each with a gallery of as many strangers."""

    def __init__(self, artefact: Artefact, engine: "Engine", classic: Artefact) -> None:
        from model.matching import GalleryIndex  # noqa: PLC0415 - as above

        names = [f"stranger {number}" for number in range(GALLERY)]
        self._index = GalleryIndex(gallery(artefact.dimension), names, names)
        self._naive = {side: Naive(classic, side, gallery(classic.dimension)) for side in (240, 160)}
        self._engine = engine

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

        from model.analysis import PictureLimits, analyse_batch  # noqa: PLC0415 - as above
        from model.faces import ImageAnalysis  # noqa: PLC0415 - as above

        answers: list[object] = []
        for outcome in analyse_batch(self._engine, photos, PictureLimits()):
            if isinstance(outcome, ImageAnalysis) and outcome.faces:
                answers.append(self._index.search(np.stack([face.embedding for face in outcome.faces]), limit=5))
            else:
                answers.append(None)
        return answers

    def _stages(self, size: str, groups: list[list[bytes]], rounds: int) -> dict[str, float]:
        """Return our stages in wall-clock milliseconds, as every result states them.

        The median over the photos of the least over the rounds, since the clock counts other processes, too.
        """
        from model.analysis import PictureLimits, analyse_batch  # noqa: PLC0415 - as above
        from model.faces import ImageAnalysis  # noqa: PLC0415 - as above

        least: dict[str, dict[tuple[int, int], float]] = {}
        for number, group in [*enumerate(groups)] * rounds:
            for place, outcome in enumerate(analyse_batch(self._engine, group, PictureLimits())):
                if isinstance(outcome, ImageAnalysis):
                    for stage, ms in outcome.timings_ms.items():
                        known = least.setdefault(stage, {})
                        known[number, place] = min(ms, known.get((number, place), ms))
        return {f"{stage}_ms_{size}": round(statistics.median(ms.values()), 2) for stage, ms in least.items()}


def faces(engines: "dict[str, Engine]", pack: str, folder: Path, judged: Path | None) -> dict[str, Any]:
    """Count the faces that a pack finds, in photos and where there are none."""
    from model.analysis import PictureLimits, analyse  # noqa: PLC0415 - as above
    from tests.support.faceless import seeded  # noqa: PLC0415 - as above

    print("faces of all photos, by all detectors", file=sys.stderr)
    figures = counted(pack, detected(engines, folder), verdicts(judged) if judged else [])
    seen = {name: len(analyse(engines[pack], data, PictureLimits()).faces) for name, data in seeded(FACELESS_SEEDS)}
    return figures | {
        "faces_false": sum(seen.values()) + figures["faces_refuted"],
        "faceless": len(seen),
        "faceless_with_face": [name for name, count in seen.items() if count],
    }


def fidelity(artefact: Artefact, engine: "Engine", photos: list[bytes]) -> dict[str, float | int]:
    """Compare our faces with facenet-pytorch's, from the bytes to the embedding."""
    import numpy as np  # noqa: PLC0415 - as above

    from model.analysis import PictureLimits, analyse  # noqa: PLC0415 - as above
    from model.engines import open_engine  # noqa: PLC0415 - as above

    reference = open_engine(artefact, "torch")
    missing = extra = known_count = 0
    boxes, landmarks, cosines = [0.0], [0.0], [1.0]
    for data in photos:
        left = list(analyse(engine, data, PictureLimits()).faces)
        for known in analyse(reference, data, PictureLimits()).faces:
            known_count += 1
            face = next((each for each in left if overlap(each.box, known.box) >= SAME_BOX), None)
            if face is None:
                missing += 1
                continue
            left.remove(face)
            boxes.append(float(np.abs(np.subtract(edges(face.box), edges(known.box))).max()))
            landmarks.append(float(np.abs(np.subtract(face.landmarks, known.landmarks)).max()))
            cosines.append(float(face.embedding @ known.embedding))
        extra += len(left)
    return {
        "torch_faces": known_count,
        "torch_missing": missing,
        "torch_extra": extra,
        "box_max_px": round(max(boxes), 4),
        "landmark_max_px": round(max(landmarks), 4),
        "cos_min": round(min(cosines), 6),
    }


def limit(artefact: Artefact, precision: str, ms: float, peaks: dict[str, float]) -> dict[str, float]:
    """Return the time of the arithmetic of a 64 by 64 photo at the core's peak, and the share of it that we reach."""
    embedding = gflop(artefact.path(EMBEDDER), (1, 3, artefact.crop.image_size, artefact.crop.image_size))
    detecting = sum(gflop(path, (1, 3, side, side)) for path, side in _looks(artefact, 64))
    least = 1000 * (embedding / peaks[precision] + detecting / peaks["fp32"])
    return {
        "gflop_64": round(embedding + detecting, 3),
        "limit_ms_64": round(least, 2),
        "peak_share": round(least / ms, 3),
    }


def _looks(artefact: Artefact, photo_side: int) -> Iterator[tuple[Path, int]]:
    """Yield the detector's networks with the side of each input, for a square photo."""
    from model.detection.grid import SMALL_SIDE  # noqa: PLC0415 - as above
    from model.detection.mtcnn import pyramid_scales  # noqa: PLC0415 - as above

    options = artefact.detector.options
    if artefact.detector.kind != "mtcnn":
        yield artefact.path("detector.onnx"), SMALL_SIDE
        return
    for scale in pyramid_scales(photo_side, photo_side, options["min_face_size"], options["factor"]):
        yield artefact.path("pnet.onnx"), int(photo_side * scale + 1)


if __name__ == "__main__":
    main()
