"""From pairs of photos to trials, and from trials to a report that claims no more than they support."""

from pathlib import Path

import numpy as np
import pytest

from facerec.accuracy.pairs import Pair, Skip, assess, embed_photos, photos_of, score
from model.evaluation import Trials
from model.faces import Box, EmbeddedFace, ImageAnalysis
from model.header import InvalidImage

AXES = np.eye(512, dtype=np.float32)


def analyse(photo: bytes) -> ImageAnalysis:
    """One face along the axis that the bytes name, a second one behind it; or none, or no picture."""
    if photo == b"broken":
        raise InvalidImage("broken")
    axes = [int(photo), 500] if photo != b"empty" else []
    faces = tuple(EmbeddedFace(Box(0, 0, 9, 9), 0.99, ((0.0, 0.0),) * 5, AXES[axis]) for axis in axes)
    return ImageAnalysis(10, 10, faces, {})


def test_photos_are_embedded_once_and_pairs_of_skipped_ones_counted(tmp_path: Path) -> None:
    """Missing, undecodable and faceless photos each have their reason."""
    for name, content in {"a": b"1", "b": b"1", "c": b"2", "none": b"empty", "bad": b"broken"}.items():
        (tmp_path / name).write_bytes(content)
    pairs = [
        Pair("a", "b", same=True, fold=0),
        Pair("a", "c", same=False, fold=1),
        *(Pair("a", name, same=False, fold=1) for name in ("none", "bad", "lost")),
    ]
    photos = photos_of(pairs)
    assert photos == ["a", "b", "c", "none", "bad", "lost"]
    seen: list[bytes] = []

    def counted(photo: bytes) -> ImageAnalysis:
        seen.append(photo)
        return analyse(photo)

    scored = score(pairs, embed_photos(photos, tmp_path, counted))
    assert len(seen) == 5
    assert scored.trials.cosines.tolist() == [1, 0]
    assert scored.trials.same.tolist() == [True, False]
    assert scored.folds is not None
    assert scored.folds.tolist() == [0, 1]
    assert scored.skipped_photos == {"none": Skip.NO_FACE, "bad": Skip.UNREADABLE, "lost": Skip.MISSING}
    assert (scored.photos, scored.skipped_pairs) == (6, 3)
    assert sorted(scored.skipped_photos.values()) == ["missing", "no_face", "unreadable"]


def test_missing_photos_give_no_trials(tmp_path: Path) -> None:
    """A wrong folder does not raise."""
    pairs = [Pair("a", "b", same=True)]
    scored = score(pairs, embed_photos(photos_of(pairs), tmp_path, analyse))
    assert (len(scored.trials.cosines), scored.folds, scored.skipped_pairs) == (0, None, 1)


def trials(genuine: int, impostor: int) -> Trials:
    """Separate pairs, one in a hundred of each kind on the wrong side of 0.5."""
    cosines = [0.05 if i % 100 == 50 else 0.8 for i in range(genuine)]
    cosines += [0.6 if i % 100 == 50 else 0.1 + i / impostor / 10 for i in range(impostor)]
    number = genuine + impostor
    return Trials(
        np.array(cosines), np.arange(number) < genuine, np.arange(0, 2 * number, 2), np.arange(1, 2 * number, 2)
    )


def test_rate_is_weak_below_ten_expected_false_matches() -> None:
    """1000 impostor pairs support 1e-2, 999 do not; the report says which."""
    too_few, enough = assess(trials(200, 999), None, 0.5), assess(trials(200, 1000), None, 0.5)
    point = enough.at_fmr[1e-2]
    assert point is not None
    assert point.fmr is not None
    assert point.tar is not None
    assert (point.fmr.value, point.tar.value) == (0.01, 0.99)
    assert point.tar.interval is not None
    assert point.tar.interval.low < 0.99 < point.tar.interval.high
    assert [enough.weak(target) for target in enough.at_fmr] == [False, True, True]
    plain = too_few.to_json()["at_fmr"]["0.01"]
    assert (plain["weak"], plain["impostor_pairs_needed"]) == (True, 1000)


def test_lfws_pairs_give_the_published_rates() -> None:
    """3 000 of each kind give weak rates at 1e-3 and 1e-4."""
    at_fmr = assess(trials(3000, 3000), None, 0.5).to_json()["at_fmr"]
    at = {target: (point["weak"], point["fmr"]["value"], point["tar"]["value"]) for target, point in at_fmr.items()}
    assert at == {"0.01": (False, 0.01, 0.99), "0.001": (True, 0, 0.99), "0.0001": (True, 0, 0.99)}


def test_both_rates_are_measured_at_the_threshold_in_use() -> None:
    """It does not depend on the targets."""
    point = assess(trials(200, 1000), None, 0.5).at_threshold
    assert point.fmr is not None
    assert point.tar is not None
    assert (point.threshold, point.fmr.value, point.tar.value) == (0.5, 0.01, 0.99)


@pytest.mark.parametrize(("genuine", "impostor"), [(0, 50), (50, 0)])
def test_pairs_of_one_kind_give_only_that_kinds_figures(genuine: int, impostor: int) -> None:
    """AUC and EER need both kinds, and a rate needs its pairs."""
    report = assess(trials(genuine, impostor), None, 0.5)
    assert (report.auc, report.eer) == (None, None)
    assert (report.at_threshold.tar is None, report.at_threshold.fmr is None) == (not genuine, not impostor)
    assert (report.at_fmr[1e-2] is None) == (not impostor)
    assert (report.to_json()["at_fmr"]["0.01"]["fmr"] is None) == (not impostor)


def test_separated_pairs_have_no_interval() -> None:
    """Resampling pairs without an error shows no error."""
    report = assess(trials(20, 20), None, 0.5)
    assert report.auc is not None
    assert report.eer is not None
    assert (report.auc.value, report.auc.interval, report.eer.interval) == (1, None, None)


def test_folds_follow_lfws_protocol() -> None:
    """If the list has them."""
    report = assess(trials(200, 200), np.tile(np.arange(10), 40), 0.5)
    assert report.folds is not None
    assert report.folds.folds == 10
    assert report.folds.mean == pytest.approx(0.99, abs=0.006)
