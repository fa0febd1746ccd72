"""The faces of photos: those that at least two of several detectors find, corrected by decisions made by hand.

A file of verdicts is a JSON list of `{"file": ..., "box": [x_min, y_min, x_max, y_max], "face": true or false}`; the
file's path is relative to the folder of photos. A verdict overrules any agreement.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.faces import Box
from tests.support.measurements.photos import paths

if TYPE_CHECKING:
    from model.engines import Engine

SAME_FACE = 0.3
"""Intersection over union from which two detectors' boxes are one face: some draw it to the chin, some to the hair."""
ENOUGH = 2


@dataclass(frozen=True, slots=True)
class Candidate:
    """A face found by at least one detector: the first one's box, and the names of all that found it."""

    box: Box
    found_by: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A person's decision whether a box is a face."""

    file: str
    box: Box
    face: bool


def overlap(box: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(box.x_max, other.x_max) - max(box.x_min, other.x_min)
    height = min(box.y_max, other.y_max) - max(box.y_min, other.y_min)
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((each.x_max - each.x_min) * (each.y_max - each.y_min) for each in (box, other))
    return shared / (areas - shared)


def candidates(found: Mapping[str, Sequence[Box]]) -> list[Candidate]:
    """Return every detector's boxes of one photo, those of several detectors that are one face together."""
    groups: list[Candidate] = []
    for detector, boxes in found.items():
        for box in boxes:
            others = [number for number, group in enumerate(groups) if detector not in group.found_by]
            best = max(others, key=lambda number: overlap(groups[number].box, box), default=None)
            if best is None or overlap(groups[best].box, box) < SAME_FACE:
                groups.append(Candidate(box, frozenset({detector})))
            else:
                groups[best] = Candidate(groups[best].box, groups[best].found_by | {detector})
    return groups


def verdicts(path: Path) -> list[Verdict]:
    """Read a file of verdicts."""
    return [
        Verdict(entry["file"], Box(*entry["box"]), entry["face"])
        for entry in json.loads(path.read_text(encoding="utf-8"))
    ]


def counted(pack: str, by_file: Mapping[str, Sequence[Candidate]], judged: Sequence[Verdict]) -> dict[str, Any]:
    """Return the counts of a pack's detector.

    `faces_reference` are the faces in the photos, `faces_found` those of them that it finds, and `faces_missing` the
    places of the others. A verdict refutes `faces_refuted`; nothing confirms `faces_extra`. `disputed` are found by one
    detector only and have no verdict; they are in the form of verdicts.
    """
    reference = found = refuted = extra = 0
    missing, disputed = [], []
    for file, group in by_file.items():
        mine = [verdict for verdict in judged if verdict.file == file]
        for candidate in group:
            verdict = next((each for each in mine if overlap(each.box, candidate.box) >= SAME_FACE), None)
            entry = {
                "file": file,
                "box": [round(edge) for edge in edges(candidate.box)],
                "found_by": sorted(candidate.found_by),
            }
            if len(candidate.found_by) >= ENOUGH if verdict is None else verdict.face:
                reference += 1
                if pack in candidate.found_by:
                    found += 1
                else:
                    missing.append(entry)
            elif verdict is not None:
                refuted += pack in candidate.found_by
            else:
                extra += pack in candidate.found_by
                disputed.append(entry)
    return {
        "faces_reference": reference,
        "faces_found": found,
        "faces_extra": extra,
        "faces_refuted": refuted,
        "faces_missing": missing,
        "disputed": disputed,
    }


def detected(engines: "Mapping[str, Engine]", folder: Path) -> dict[str, list[Candidate]]:
    """Return what the detectors find in each photo below the folder, by its path; of copies the first one counts."""
    from model.analysis import PictureLimits, analyse  # noqa: PLC0415 - imported after the process has been pinned

    found: dict[str, list[Candidate]] = {}
    seen: set[bytes] = set()
    for path in paths(folder):
        data = path.read_bytes()
        content = hashlib.sha256(data).digest()
        if content not in seen:
            seen.add(content)
            found[str(path.relative_to(folder))] = candidates(
                {
                    name: [face.box for face in analyse(engine, data, PictureLimits()).faces]
                    for name, engine in engines.items()
                }
            )
    return found


def edges(box: Box) -> tuple[float, float, float, float]:
    """Return the box's corners as four numbers."""
    return box.x_min, box.y_min, box.x_max, box.y_max
