"""How well people are told apart: all packs side by side, and the pattern that everyone copies (240 px, largest face).

    python -m benchmarks.accuracy                   # examples/
    python -m benchmarks.accuracy --images DIR      # see below for the labels that are understood
    python -m benchmarks.accuracy --images DIR --different

DIR is like examples/ (expected.csv, gallery/, probes/), or has known/ with one folder per person and strangers/ with
one photo of each, or labels.csv (Image,Results), or one folder per person; any other folder counts as one photo each of
different people, and gives impostor pairs alone. With `--different` every photo shows another person, whatever the
labels say. Every photo is compared with every other; of files with the same content one counts.

`d_prime` is the distance of the two means in units of the spread, sqrt((var genuine + var impostor) / 2), and
`told_apart` says that the greatest similarity of different people is below the pack's threshold. The naive side needs
`make install-reference`; --ours-only leaves it out. The last line is one JSON object.
"""

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import ROOT, machine, pack_artefact
from benchmarks.naive import Naive
from facerec.accuracy.report import assess
from model.analysis import Limits, analyse
from model.artefact import Artefact
from model.engines import Engine, open_engine
from model.evaluation import Ranking, Trials, method
from model.packs.catalogue import PACKS

PICTURES = {".jpg", ".jpeg", ".png", ".webp"}
NAIVE = "naive_240"
Embedding = NDArray[np.float32]
Embed = Callable[[bytes], Embedding | None]
"""From a photo's bytes to the embedding of the face that counts, L2-normalised; nothing where no face is found."""


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo and who is in it."""

    path: Path
    person: str


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=ROOT / "examples")
    parser.add_argument("--pack", choices=list(PACKS), action="append", help="may be repeated; default all of them")
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--different", action="store_true", help="every photo shows another person")
    parser.add_argument("--ours-only", action="store_true")
    options = parser.parse_args()
    photos = distinct(labelled(options.images))
    if options.different:
        photos = [Photo(photo.path, str(photo.path)) for photo in photos]
    artefacts = {pack: pack_artefact(pack) for pack in options.pack or PACKS}
    thresholds = {pack: artefact.threshold for pack, artefact in artefacts.items()}
    sides = {pack: our_embedder(open_engine(artefact, options.engine)) for pack, artefact in artefacts.items()}
    if not options.ours_only:
        classic = pack_artefact("classic")
        sides[NAIVE], thresholds[NAIVE] = naive_embedder(classic), classic.threshold
    people = len({photo.person for photo in photos})
    print(f"{len(photos)} photos of {people} people in {options.images}", file=sys.stderr)
    embeddings, cpu_ms = embed_all(sides, photos)
    # One set of pairs for all sides, or one that fails on hard photos would be flattered.
    usable = [i for i in range(len(photos)) if all(found[i] is not None for found in embeddings.values())]
    if len({photos[i].person for i in usable}) < 2:  # noqa: PLR2004 - nobody to take for somebody else
        sys.exit("benchmarks.accuracy: there must be photos with a face of at least two people")
    numbers = {name: number for number, name in enumerate(sorted({photo.person for photo in photos}))}
    owners = np.array([numbers[photos[i].person] for i in usable], dtype=np.intp)
    result: dict[str, Any] = {"photos": len(photos), "people": len(set(owners.tolist())), "compared": len(usable)}
    for side, found in embeddings.items():
        trials = Trials.all_against_all(np.stack([e for e in (found[i] for i in usable) if e is not None]), owners)
        result["genuine_pairs"], result["impostor_pairs"] = len(trials.genuine), len(trials.impostor)
        result["intervals"] = method(trials)
        result[side] = figures(trials, thresholds[side]) | {
            "no_face": sum(embedding is None for embedding in found),
            "cpu_ms_per_photo": round(cpu_ms[side], 1),
        }
    tell(result, list(embeddings))
    print(json.dumps(result | {"machine": machine()}))


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
    in_folders = [path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in PICTURES]
    if in_folders:
        return [Photo(path, path.parent.name) for path in in_folders]
    return [Photo(path, path.name) for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES]


def distinct(photos: list[Photo]) -> list[Photo]:
    """The photos without copies: a picture compared with itself says nothing."""
    return list({hashlib.sha256(photo.path.read_bytes()).digest(): photo for photo in reversed(photos)}.values())[::-1]


def embed_all(
    sides: dict[str, Embed], photos: list[Photo]
) -> tuple[dict[str, list[Embedding | None]], dict[str, float]]:
    """Every side's embedding of every photo, and its CPU time a photo in ms; the sides take turns on each photo."""
    found: dict[str, list[Embedding | None]] = {side: [] for side in sides}
    seconds = dict.fromkeys(sides, 0.0)
    first = photos[0].path.read_bytes()
    for embed in sides.values():
        embed(first)  # warm up
    for number, photo in enumerate(photos, start=1):
        data = photo.path.read_bytes()
        for side, embed in sides.items():
            started = process_time()
            found[side].append(embed(data))
            seconds[side] += process_time() - started
        if number % 20 == 0:
            print(f"  {number} of {len(photos)}", file=sys.stderr)
    return found, {side: 1000 * spent / len(photos) for side, spent in seconds.items()}


def our_embedder(engine: Engine) -> Embed:
    """Ours, as a worker does it: all faces are embedded, and the primary one counts."""

    def embed(data: bytes) -> Embedding | None:
        faces = analyse(engine, data, Limits()).faces
        return faces[0].embedding if faces else None

    return embed


def naive_embedder(artefact: Artefact) -> Embed:
    """The pattern everyone copies, with its largest face."""
    naive = Naive(artefact, 240)

    def embed(data: bytes) -> Embedding | None:
        embedding = naive.embedding(data)
        return None if embedding is None else embedding.numpy()[0]

    return embed


def figures(trials: Trials, threshold: float) -> dict[str, Any]:
    """What is known of one side, for JSON."""
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
    """Return how far apart the two kinds are: the distance of their means in units of their spread."""
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


def tell(result: dict[str, Any], sides: list[str]) -> None:
    """Print the table for people."""
    kinds = f"{result['genuine_pairs']} genuine and {result['impostor_pairs']} impostor pairs"
    print(f"{kinds} of {result['compared']} photos; intervals {result['intervals']}")
    for side in sides:
        found = result[side]
        for kind in ("genuine", "impostor"):
            if found[kind] is not None:
                values = ", ".join(f"{name} {value:.3f}" for name, value in found[kind].items())
                print(f"  {side:<18} {kind:<9} {values}")
        if found["overlap"] is not None:
            print(f"  {side:<18} d' {found['d_prime']:.2f}, AUC {found['auc']:.4f}, EER {found['eer']:.2%}")
        for target, point in found["at_fmr"].items():
            if point["fmr"] is not None:
                weak = f" (weak: {point['impostor_pairs_needed']} impostor pairs are needed)" if point["weak"] else ""
                print(f"  {side:<18} FMR {target}: threshold {point['threshold']:.4f}, {_rates(point)}{weak}")
        print(f"  {side:<18} at threshold {found['threshold']}: {_rates(found['at_threshold'])}")
        print(f"  {side:<18} {found['no_face']} without a face, {found['cpu_ms_per_photo']} ms CPU a photo")


def _rates(point: dict[str, Any]) -> str:
    texts = []
    for rate in ("fmr", "tar"):
        if point[rate] is not None:
            interval = point[rate]["interval"]
            texts.append(f"{rate.upper()} {point[rate]['value']:.3%} [{interval['low']:.3%}, {interval['high']:.3%}]")
    return ", ".join(texts)


if __name__ == "__main__":
    main()
