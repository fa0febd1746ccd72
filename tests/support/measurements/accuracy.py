"""Photos with the people in them, and the figures of how well an embedding distinguishes people."""

import csv
import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facerec.accuracy.pairs import assess
from model.evaluation import Ranking, Trials
from tests.support.measurements.photos import SUFFIXES


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo and its person."""

    path: Path
    person: str


def labelled(folder: Path) -> list[Photo]:
    """The photos of a folder with what it says of them."""
    if (folder / "expected.csv").exists():
        enrolled = [Photo(path, path.parent.name) for path in sorted((folder / "gallery").glob("*/*"))]
        with (folder / "expected.csv").open(encoding="utf-8", newline="") as rows:
            probes = [
                Photo(folder / "probes" / row["file"], row["name"] or f"unknown: {row['file']}")
                for row in csv.DictReader(rows)
                if row["outcome"] != "no_face"
            ]
        return enrolled + probes
    if (folder / "known").is_dir():
        known = [Photo(path, path.parent.name) for path in sorted((folder / "known").glob("*/*"))]
        return known + [Photo(path, path.name) for path in sorted((folder / "strangers").iterdir())]
    if (folder / "labels.csv").exists():
        with (folder / "labels.csv").open(encoding="utf-8", newline="") as rows:
            return [Photo(folder / f"{row['Image']}.jpg", row["Results"]) for row in csv.DictReader(rows)]
    in_folders = [path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in SUFFIXES]
    if in_folders:
        return [Photo(path, path.parent.name) for path in in_folders]
    return [Photo(path, path.name) for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]


def distinct(photos: list[Photo]) -> list[Photo]:
    """The photos without copies: a picture compared with itself says nothing."""
    return list({hashlib.sha256(photo.path.read_bytes()).digest(): photo for photo in reversed(photos)}.values())[::-1]


def figures(trials: Trials, threshold: float) -> dict[str, Any]:
    """Return the figures of one side, for JSON."""
    report = assess(trials, None, threshold)
    both = bool(len(trials.genuine) and len(trials.impostor))
    return {
        "threshold": threshold,
        "told_apart": bool(trials.impostor.max() < threshold),
        "d_prime": round(d_prime(trials), 3) if both else None,
        "genuine": distribution(trials.genuine),
        "impostor": distribution(trials.impostor),
        "overlap": round(Ranking(trials).curve().overlap, 5) if both else None,
        "auc": None if report.auc is None else round(report.auc.value, 5),
        "eer": None if report.eer is None else round(report.eer.value, 5),
        "at_fmr": report.to_json()["at_fmr"],
        "at_threshold": asdict(report.at_threshold),
    }


def d_prime(trials: Trials) -> float:
    """Return the distance of the means of both kinds, in units of their spread."""
    genuine, impostor = trials.genuine, trials.impostor
    return float((genuine.mean() - impostor.mean()) / np.sqrt((genuine.var() + impostor.var()) / 2))


def distribution(cosines: NDArray[np.float64]) -> dict[str, float] | None:
    """Mean, spread and the ends of the cosines."""
    if not len(cosines):
        return None
    names = ("min", "p1", "p5", "median", "p95", "p99", "max")
    quantiles = np.percentile(cosines, (0, 1, 5, 50, 95, 99, 100))
    ends = {name: round(float(value), 4) for name, value in zip(names, quantiles, strict=True)}
    return {"mean": round(float(cosines.mean()), 4), "std": round(float(cosines.std()), 4)} | ends
