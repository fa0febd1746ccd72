"""How the benchmarks count faces: where detectors agree, where a person decided, and where there are none."""

import json
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from model.faces import Box
from tests.support.faceless import KINDS, SIZES, faceless, seeded
from tests.support.measurements.agreement import Candidate, Verdict, candidates, counted, overlap, verdicts

FACE, SAME_FACE_DRAWN_LARGER, ELSEWHERE = Box(10, 10, 50, 60), Box(8, 2, 54, 64), Box(200, 10, 240, 60)


def seen(box: Box, *detectors: str) -> dict[str, list[Candidate]]:
    """Return one photo with one candidate."""
    return {"a.jpg": [Candidate(box, frozenset(detectors))]}


def test_overlap_is_intersection_over_union() -> None:
    """It is 1 for the same box, 0 for boxes apart, and a third for halves that share a quarter of the whole."""
    assert overlap(FACE, FACE) == 1
    assert overlap(FACE, ELSEWHERE) == 0
    assert overlap(Box(0, 0, 2, 1), Box(1, 0, 3, 1)) == pytest.approx(1 / 3)


def test_candidates_join_boxes_of_several_detectors() -> None:
    """Overlapping boxes are one face, even if detectors draw it differently."""
    found = candidates({"open": [FACE, ELSEWHERE], "accurate": [SAME_FACE_DRAWN_LARGER], "classic": []})
    assert found == [Candidate(FACE, frozenset({"open", "accurate"})), Candidate(ELSEWHERE, frozenset({"open"}))]


def test_candidates_keep_boxes_of_one_detector_apart() -> None:
    """A detector cannot confirm itself."""
    found = candidates({"open": [FACE, SAME_FACE_DRAWN_LARGER]})
    assert [candidate.found_by for candidate in found] == [{"open"}, {"open"}]


def test_face_of_two_detectors_is_missing_from_the_third() -> None:
    """It is found by the two."""
    photos = seen(FACE, "accurate", "classic")
    assert counted("accurate", photos, []).items() >= {"faces_reference": 1, "faces_found": 1}.items()
    missed = counted("open", photos, [])
    assert (missed["faces_reference"], missed["faces_found"]) == (1, 0)
    assert missed["faces_missing"] == [
        {"file": "a.jpg", "box": [10, 10, 50, 60], "found_by": ["accurate", "classic"]},
    ]


def test_face_of_one_detector_is_extra_and_disputed() -> None:
    """It stays so until a person decides."""
    figures = counted("open", seen(FACE, "open"), [])
    assert (figures["faces_reference"], figures["faces_extra"], len(figures["disputed"])) == (0, 1, 1)


def test_verdict_outweighs_the_detectors(tmp_path: Path) -> None:
    """It confirms or refutes the faces at its place in its photo. The file has the form of `disputed`."""
    path = tmp_path / "verdicts.json"
    path.write_text(json.dumps([{"file": "a.jpg", "box": [9, 9, 51, 61], "face": True}]))
    judged = verdicts(path)
    confirmed = counted("open", seen(FACE, "open"), judged)
    assert (confirmed["faces_found"], confirmed["faces_extra"], confirmed["disputed"]) == (1, 0, [])
    assert counted("open", seen(ELSEWHERE, "open"), judged)["faces_extra"] == 1
    refuted = counted("open", seen(FACE, "open", "classic"), [Verdict("a.jpg", FACE, face=False)])
    assert (refuted["faces_reference"], refuted["faces_refuted"], refuted["faces_missing"]) == (0, 1, [])


def test_faceless_pictures_are_the_same_for_a_seed() -> None:
    """Another seed gives other pictures of the same kinds and sizes."""
    sizes = SIZES[:2]
    pictures = faceless(3, sizes)
    assert pictures == faceless(3, sizes)
    assert pictures != faceless(4, sizes)
    assert len(pictures) == len(KINDS) * len(sizes)
    assert len(dict(seeded(2, sizes))) == 2 * len(pictures)
    for name, data in pictures.items():
        with Image.open(BytesIO(data)) as picture:
            assert f"{picture.width}x{picture.height}" == name.split()[-1]
