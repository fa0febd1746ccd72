"""What the quality score predicts: scores of ordinary and of degraded photos, and their similarity.

    python -m benchmarks.quality                   # examples/gallery
    python -m benchmarks.quality --images DIR      # one folder per person

Each photo's primary face counts. The first photo of each person with several is degraded. Each degraded copy goes
through the whole pipeline, gets a score, and is compared with the person's other, ordinary photos. If the model's
analysis has no score, this benchmark computes it. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from facerec.engine.loading import analyser, load_artefact, open_engine
from facerec.settings import Settings
from model.faces import Box, EmbeddedFace, Quality
from model.imaging import decode
from model.quality import assess
from model.quality_factors import grey_patch, quality_factors
from tests.support.measurements.photos import paths
from tests.support.processes import CHECKOUT

TIMED = 200
Pixels = NDArray[np.uint8]
Degrade = Callable[[Pixels, Box], Pixels]


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples" / "gallery")
    options = parser.parse_args()
    settings = Settings.load()
    artefact = load_artefact(settings)
    analyse = analyser(settings, open_engine(settings, artefact))

    def primary(data: bytes) -> tuple[EmbeddedFace, Quality] | None:
        faces = analyse(data).faces
        if not faces:
            return None
        face = faces[0]
        return face, face.quality or measured(decode(data), face)

    people: dict[str, list[tuple[Path, EmbeddedFace, Quality]]] = {}
    for path in paths(options.images):
        found = primary(path.read_bytes())
        if found is None:
            say(f"{path}: no face")
            continue
        people.setdefault(path.parent.name, []).append((path, *found))
    figures: dict[str, Any] = {"model": artefact.model_id, **ordinary(people), **similarities(people)}
    figures["ms_per_face"] = cost(people)
    figures["degraded"] = degraded(people, primary)
    print(json.dumps(figures))


def measured(pixels: Pixels, face: EmbeddedFace) -> Quality:
    """Return the quality without the factor of the embedding."""
    return assess(quality_factors(grey_patch(pixels, face.box), face.landmarks, face.probability))


def ordinary(people: dict[str, list[tuple[Path, EmbeddedFace, Quality]]]) -> dict[str, Any]:
    """Return how the photos score as they are."""
    qualities = [quality for photos in people.values() for _, _, quality in photos]
    scores = [quality.score for quality in qualities]
    return {
        "photos": len(scores),
        "score_percentiles": {str(p): round(float(np.percentile(scores, p)), 3) for p in (0, 1, 5, 25, 50)},
        "below_0.5": sum(score < 0.5 for score in scores),  # noqa: PLR2004 - the default of the gate
        "reasons": dict(Counter(reason.partition(":")[0] for quality in qualities for reason in quality.reasons)),
    }


def similarities(people: dict[str, list[tuple[Path, EmbeddedFace, Quality]]]) -> dict[str, Any]:
    """Return the mean genuine similarity of pairs by thirds of their lesser score, and Spearman's rank correlation."""
    pairs = np.array(
        [
            (min(first[2].score, other[2].score), float(first[1].embedding @ other[1].embedding))
            for photos in people.values()
            for number, first in enumerate(photos)
            for other in photos[number + 1 :]
        ]
    )
    if len(pairs) < 30:  # noqa: PLR2004 - ten in each third
        return {}
    thirds = np.array_split(pairs[np.argsort(pairs[:, 0], kind="stable")], 3)
    score_ranks, similarity_ranks = (np.argsort(np.argsort(column)) for column in pairs.T)
    return {
        "pairs": len(pairs),
        "genuine_by_thirds": [
            {
                "score": [round(float(third[0, 0]), 3), round(float(third[-1, 0]), 3)],
                "mean": round(third[:, 1].mean(), 3),
            }
            for third in thirds
        ],
        "spearman": round(float(np.corrcoef(score_ranks, similarity_ranks)[0, 1]), 3),
    }


def cost(people: dict[str, list[tuple[Path, EmbeddedFace, Quality]]]) -> float:
    """Return the milliseconds of CPU that one face takes, the mean over the photos."""
    cv2.setNumThreads(1)
    photos = [photo for photos in people.values() for photo in photos][:TIMED]
    pictures = [decode(path.read_bytes()) for path, _, _ in photos]
    started = process_time()
    for pixels, (_, face, _) in zip(pictures, photos, strict=True):
        measured(pixels, face)
    return round((process_time() - started) / len(photos) * 1e3, 3)


def degraded(
    people: dict[str, list[tuple[Path, EmbeddedFace, Quality]]],
    primary: Callable[[bytes], tuple[EmbeddedFace, Quality] | None],
) -> dict[str, Any]:
    """Return, for each kind and amount, the mean score and genuine similarity as shares of those of the photos."""
    several = [photos for photos in people.values() if len(photos) > 1]
    if not several:
        return {}
    pictures = [decode(photos[0][0].read_bytes()) for photos in several]
    figures: dict[str, Any] = {}
    whole: tuple[float, float] | None = None
    for name, degrade in DEGRADED.items():
        scores, cosines, reasons = [], [], Counter[str]()
        for photos, pixels in zip(several, pictures, strict=True):
            found = primary(encoded(degrade(pixels, photos[0][1].box)))
            if found is None:
                continue
            face, quality = found
            scores.append(quality.score)
            cosines.append(float(np.mean([face.embedding @ other.embedding for _, other, _ in photos[1:]])))
            reasons.update(reason.partition(":")[0] for reason in quality.reasons)
        if not scores:
            figures[name] = {"found": 0}
            continue
        whole = whole or (float(np.mean(scores)), float(np.mean(cosines)))
        figures[name] = {
            "found": round(len(scores) / len(several), 3),
            "score": round(float(np.mean(scores)) / whole[0], 3),
            "genuine": round(float(np.mean(cosines)) / whole[1], 3),
            "reasons": dict(reasons.most_common(2)),
        }
        say(f"{name}: {figures[name]}")
    return figures


def encoded(pixels: Pixels) -> bytes:
    """The picture as a PNG."""
    done, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done  # noqa: S101
    return data.tobytes()


def blurred(amount: float) -> Degrade:
    """A Gaussian whose sigma is this share of the face's width."""
    return lambda pixels, box: rounded(cv2.GaussianBlur(pixels, (0, 0), amount * (box.x_max - box.x_min)))


def dark(times: float) -> Degrade:
    """So many times less light, with a sensor's noise."""
    noise = np.random.default_rng(0)
    return lambda pixels, _: rounded(pixels / times + noise.normal(0, 1.5, pixels.shape))


def overexposed(times: float) -> Degrade:
    """So many times more light."""
    return lambda pixels, _: rounded(pixels * float(times))


def pale(times: float) -> Degrade:
    """So many times less contrast."""
    return lambda pixels, _: rounded((pixels - 128.0) / times + 128)


def small(side: float) -> Degrade:
    """The face as many pixels wide."""

    def scaled(pixels: Pixels, box: Box) -> Pixels:
        factor = min(1.0, side / (box.x_max - box.x_min))
        return rounded(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))

    return scaled


def tilted(degrees: float) -> Degrade:
    """Turned in the plane of the picture."""

    def turned(pixels: Pixels, box: Box) -> Pixels:
        centre = ((box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2)
        matrix = cv2.getRotationMatrix2D(centre, degrees, 1)
        return rounded(cv2.warpAffine(pixels, matrix, pixels.shape[1::-1]))

    return turned


def rounded(values: Any) -> Pixels:
    """Round brightnesses to 8 bits, as a camera does."""
    return np.asarray(np.clip(np.rint(values), 0, 255), dtype=np.uint8)


def say(line: str) -> None:
    """Print the progress."""
    print(line, file=sys.stderr, flush=True)


DEGRADED: dict[str, Degrade] = {
    "as it is": lambda pixels, _: pixels,
    **{f"blurred {amount}": blurred(amount) for amount in (0.01, 0.02, 0.03, 0.04, 0.05)},
    **{f"dark {times}": dark(times) for times in (2, 4, 8, 16)},
    **{f"overexposed {times}": overexposed(times) for times in (1.5, 2, 3, 4)},
    **{f"pale {times}": pale(times) for times in (2, 4, 8, 16)},
    **{f"small {side}": small(side) for side in (60, 40, 30, 24, 20)},
    **{f"tilted {degrees}": tilted(degrees) for degrees in (15, 30, 45)},
}


if __name__ == "__main__":
    main()
