"""What the matching rules do to identification with strangers: several photos of a person, several faces of a photo.

    python -m benchmarks.matching --images DIR      # known/ with a folder per person, strangers/ with a photo of each

*Photos*: each photo of a known person is once the probe. Enrolled is one other photo, or all others, compared by the
best or by the mean. Rank 1 is the share of probes whose own person is the nearest, `named` the share with the right
name at the threshold for so many people, `strangers` the share of strangers with a name. `named_at_1` is `named` at the
threshold that 1 % of these strangers reach.

*Faces*: group photos of five faces drawn by lot, of different people, two of them strangers. Each face is matched by
itself, and with the rule that two faces of one photo are never the same person.

The last line is one JSON object.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import our_embedder
from benchmarks.measure import machine, pack_artefact
from facerec.accuracy.open_set import people_in, strangers_in
from facerec.matching_rules import match_faces
from model.engines import open_engine
from model.matching import GalleryIndex, Match
from model.means import PersonMeans
from model.packs.catalogue import PACKS
from model.tail import identification_threshold

Faces = NDArray[np.float32]
Search = Callable[[Faces, int], list[list[Match]]]
Known = dict[str, list[Faces]]
"""The embeddings of each person's photos, (D,) each."""

_GROUP_KNOWN, _GROUP_STRANGERS = 3, 2
_EVERYBODY = 10_000


def main() -> None:
    """Measure each pack and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pack", choices=list(PACKS), action="append", help="may be repeated (default: all)")
    parser.add_argument("--groups", type=int, default=2000, help="group photos")
    parser.add_argument("--false-names", type=float, default=0.01)
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for pack in options.pack or PACKS:
        artefact = pack_artefact(pack)
        embed = our_embedder(open_engine(artefact, "auto"))

        def embeddings(photos: Sequence[str], embed: Callable[[bytes], Faces | None] = embed) -> list[Faces]:
            return [found for photo in photos if (found := embed(Path(photo).read_bytes())) is not None]

        known = {name: embeddings(photos) for name, photos in people_in(options.images / "known").items()}
        known = {name: faces for name, faces in known.items() if len(faces) > 1}
        strangers = np.stack([embeddings(p)[0] for p in strangers_in(options.images / "strangers").values()])
        threshold = identification_threshold(artefact.tail, artefact.threshold, options.false_names, len(known)).value
        result[pack] = {"people": len(known), "threshold": round(threshold, 4)}
        result[pack]["photos"] = photo_figures(known, strangers, threshold)
        result[pack]["faces"] = group_figures(known, strangers, threshold, options.groups)
        tell(pack, result[pack])
    print(json.dumps(result | {"machine": machine()}))


def photo_figures(known: Known, strangers: Faces, threshold: float) -> dict[str, Any]:
    """The rates with one photo enrolled, with several and the best, and with several and their mean."""
    own: dict[str, list[tuple[str, list[Match]]]] = {"one": [], "best": [], "mean": []}
    others: dict[str, list[float]] = {way: [] for way in own}
    for turn in range(max(map(len, known.values()))):
        probes = {name: faces[turn] for name, faces in known.items() if turn < len(faces)}
        enrolled = {name: [f for at, f in enumerate(faces) if at != turn] for name, faces in known.items()}
        for way, search in searches(enrolled).items():
            found = search(np.stack(list(probes.values())), _EVERYBODY)
            own[way] += zip(probes, found, strict=True)
            others[way] += [matches[0].similarity for matches in search(strangers, 1)]
    figures = {}
    for way, probed in own.items():
        first = [(matches[0].identity == name, matches[0].similarity) for name, matches in probed]
        named = np.array([similarity for right, similarity in first if right])
        reached = float(np.sort(others[way])[::-1][int(0.01 * len(others[way]))])
        figures[way] = {
            "probes": len(first),
            "rank_1": round(len(named) / len(first), 4),
            "named": round(float((named >= threshold).sum()) / len(first), 4),
            "strangers": round(float((np.array(others[way]) >= threshold).mean()), 4),
            "threshold_at_1": round(reached, 4),
            "named_at_1": round(float((named > reached).sum()) / len(first), 4),
        }
    return figures


def searches(enrolled: Known) -> dict[str, Search]:
    """Search one photo of each person, or all of them by the best or the mean."""
    several, one = index_of(enrolled), index_of({name: faces[:1] for name, faces in enrolled.items()})
    means = PersonMeans(several)
    return {"one": one.search, "best": several.search, "mean": lambda faces, limit: means.search(several, faces, limit)}


def index_of(enrolled: Known) -> GalleryIndex:
    """An index of these photos."""
    rows = [(face, name) for name, faces in enrolled.items() for face in faces]
    names = [name for _, name in rows]
    return GalleryIndex(np.stack([face for face, _ in rows]), names, [str(row) for row in range(len(rows))])


def group_figures(known: Known, strangers: Faces, threshold: float, groups: int) -> dict[str, Any]:
    """The rates of faces in group photos, each face by itself and with the rule."""
    random = np.random.default_rng(0)
    search = searches({name: faces[1:] for name, faces in known.items()})["best"]
    counts = {way: dict.fromkeys(("right", "wrong", "strangers"), 0) for way in ("alone", "together")}
    for _ in range(groups):
        names = random.choice(sorted(known), _GROUP_KNOWN, replace=False).tolist()
        away = random.choice(len(strangers), _GROUP_STRANGERS, replace=False)
        faces = np.stack([*(known[name][0] for name in names), *strangers[away]])
        for way, parts in (("alone", [faces[at : at + 1] for at in range(len(faces))]), ("together", [faces])):
            found = [face for part in parts for face in match_faces(part, search, {}, threshold, most=5)]
            answers = [face.matches[0].identity if face.matches else None for face in found]
            for answer, name in zip(answers, [*names, *[None] * _GROUP_STRANGERS], strict=True):
                if answer is not None:
                    counts[way]["strangers" if name is None else "right" if answer == name else "wrong"] += 1
    people = {"right": _GROUP_KNOWN, "wrong": _GROUP_KNOWN, "strangers": _GROUP_STRANGERS}
    return {
        way: {kind: round(count / (groups * people[kind]), 5) for kind, count in found.items()}
        for way, found in counts.items()
    }


def tell(pack: str, found: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{pack}: {found['people']} people, threshold {found['threshold']}", file=sys.stderr)
    for part in ("photos", "faces"):
        for way, figures in found[part].items():
            values = ", ".join(f"{name} {value}" for name, value in figures.items())
            print(f"  {part:<7} {way:<9} {values}", file=sys.stderr)


if __name__ == "__main__":
    main()
