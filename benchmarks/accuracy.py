"""How well each pack distinguishes people, beside the common pattern from tutorials (240 px, largest face).

    python -m benchmarks.accuracy                   # examples/
    python -m benchmarks.accuracy --images DIR      # below: the forms of labels
    python -m benchmarks.accuracy --images DIR --different

DIR has one of these forms: expected.csv, gallery/ and probes/, like examples/; known/ with a folder per person and
strangers/ with a photo of each; labels.csv (Image,Results); or a folder per person. In any other folder each photo
counts as another person, which gives impostor pairs only. `--different` does the same and ignores the labels. Every
photo is compared with every other one. Files of the same content count once.

`d_prime` is the distance of the two means in units of the spread, sqrt((var genuine + var impostor) / 2), and
`told_apart` says that the greatest similarity of different people is below the pack's threshold. The naive side needs
`make install-reference`; `--ours-only` skips it. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import machine, pack_artefact
from benchmarks.naive import Naive
from model.analysis import PictureLimits, analyse
from model.artefact import Artefact
from model.engines import Engine, open_engine
from model.evaluation import Trials, method
from model.packs.catalogue import PACKS
from tests.support.measurements.accuracy import Photo, distinct, figures, labelled
from tests.support.processes import CHECKOUT

NAIVE = "naive_240"
Embedding = NDArray[np.float32]
Embed = Callable[[bytes], Embedding | None]
"""From a photo's bytes to the embedding of the face that counts, L2-normalised; nothing where no face is found."""


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument(
        "--pack", choices=list(PACKS), action="append", help="pack to measure; may be repeated (default: all)"
    )
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--different", action="store_true", help="treat every photo as another person")
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
    if len({photos[i].person for i in usable}) < 2:  # noqa: PLR2004 - one person gives no impostor pair
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
        faces = analyse(engine, data, PictureLimits()).faces
        return faces[0].embedding if faces else None

    return embed


def naive_embedder(artefact: Artefact) -> Embed:
    """The common pattern, with its largest face."""
    naive = Naive(artefact, 240)

    def embed(data: bytes) -> Embedding | None:
        embedding = naive.embedding(data)
        return None if embedding is None else embedding.numpy()[0]

    return embed


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
