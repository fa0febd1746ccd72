"""Which faces of a camera are sent."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facerec.edge.tracking import Tracker
from model.faces import Box, MeasuredFace, QualityFactor

RESEND = 30.0
SIDE = 100.0


def face(x: float, y: float = 300.0, *, side: float = SIDE, quality: float = 0.9) -> MeasuredFace:
    """A square face around a point."""
    half = side / 2
    return MeasuredFace(Box(x - half, y - half, x + half, y + half), 0.99, (), (QualityFactor(quality, "blurred"),))


def sends(
    tracker: Tracker, positions: Sequence[Callable[[float], float | None]], times: Iterable[float]
) -> dict[int, list[float]]:
    """When each person was sent; a position is that of the face at a time, or None while it is not seen."""
    sent: dict[int, list[float]] = {person: [] for person in range(len(positions))}
    for now in times:
        seen = [(person, x) for person, at in enumerate(positions) if (x := at(now)) is not None]
        for index in tracker.due([face(x) for _, x in seen], now):
            sent[seen[index][0]].append(now)
    return sent


def frames(per_second: float, seconds: float) -> list[float]:
    """The times of a camera's frames."""
    return [number / per_second for number in range(int(per_second * seconds))]


def test_person_who_stays_is_sent_once_in_each_period() -> None:
    """Not thirty times a second, although the box trembles."""
    sent = sends(Tracker(RESEND), [lambda now: 500 + 5 * math.sin(1000 * now)], frames(30, 70))
    assert sent[0] == pytest.approx([0, 30, 60], abs=0.1)


def test_each_of_several_people_is_sent_once() -> None:
    """Side by side; one who joins them is sent as the only one."""
    people = [lambda _: 200.0, lambda _: 320.0, lambda now: 440.0 if now >= 5 else None]
    assert sends(Tracker(RESEND), people, frames(10, 20)) == {0: [0], 1: [0], 2: [5]}


@pytest.mark.parametrize("per_second", [5, 10, 30])
def test_person_who_walks_through_the_picture_is_sent_once(per_second: float) -> None:
    """At 1.3 m/s, eight widths of the face per second, on a slow device as on a fast one."""
    sent = sends(Tracker(RESEND), [lambda now: 8 * SIDE * now], frames(per_second, 3))
    assert len(sent[0]) == 1


def test_short_gap_of_the_detector_is_no_new_person() -> None:
    """A head that turns away for half a second."""
    sent = sends(Tracker(RESEND), [lambda now: None if now % 2 > 1.5 else 500.0], frames(20, 20))
    assert len(sent[0]) == 1


def test_person_who_was_away_is_sent_again() -> None:
    """For two seconds; it may be another."""
    sent = sends(Tracker(RESEND), [lambda now: None if 3 <= now < 5 else 500.0], frames(20, 8))
    assert sent[0] == [0, 5]


def test_gap_of_the_camera_ends_the_tracks() -> None:
    """A camera that was away for 10 seconds may see somebody else."""
    tracker = Tracker(RESEND)
    assert tracker.due([face(500)], 0) == (0,)
    assert tracker.due([face(500)], 4) == ()
    assert tracker.due([face(500)], 14) == (0,)


def test_face_in_other_place_or_of_other_size_is_new() -> None:
    """Between two frames, a person neither jumps nor doubles."""
    tracker = Tracker(RESEND)
    assert tracker.due([face(500)], 0) == (0,)
    assert tracker.due([face(500), face(900)], 0.05) == (1,)
    assert tracker.due([face(500), face(900, side=2 * SIDE)], 0.1) == (1,)


def test_clearly_better_face_is_sent_again_once() -> None:
    """The first glimpse is often blurred; a little better is no reason."""
    tracker = Tracker(RESEND)
    qualities = [0.01, 0.25, 0.4, 0.5, 0.55, 0.9, 0.95, 0.3, 0.9, 1.0]
    due = [bool(tracker.due([face(500, quality=quality)], at / 10)) for at, quality in enumerate(qualities)]
    assert [quality for quality, sent in zip(qualities, due, strict=True) if sent] == [0.01, 0.4, 0.9]


def test_face_without_measurements_counts_as_the_worst() -> None:
    """It has no pixel in the picture."""
    tracker = Tracker(RESEND)
    unmeasured = MeasuredFace(face(500).box, 0.99, (), ())
    assert tracker.due([unmeasured], 0) == (0,)
    assert tracker.due([unmeasured], 0.1) == ()
    assert tracker.due([face(500)], 0.2) == (0,)


def test_clock_that_is_put_back_ends_all_tracks() -> None:
    """Otherwise nobody would be sent until it has caught up."""
    tracker = Tracker(RESEND)
    tracker.due([face(500)], 1_000_000)
    assert tracker.due([face(500)], 10) == (0,)
    assert tracker.due([face(500)], 10.1) == ()


@settings(max_examples=40)  # each one is hundreds of frames
@given(
    per_second=st.floats(5, 30),
    speeds=st.tuples(st.floats(0.5, 8), st.floats(0.5, 8)),
    hidden=st.floats(0.2, 0.9),
)
def test_people_who_cross_are_told_apart_or_sent_again(
    per_second: float, speeds: tuple[float, float], hidden: float
) -> None:
    """The one behind is not seen while the boxes overlap so much. No track silently goes over to the other person."""
    meet, distance = 6.0, 5 * SIDE

    def front(now: float) -> float:
        return _path(now - meet, speeds[0], distance)

    def behind(now: float) -> float | None:
        x = _path(meet - now, speeds[1], distance)
        return None if abs(x - front(now)) < (1 - hidden) * SIDE else x

    tracker = Tracker(RESEND)
    sent = sends(tracker, [front, behind], frames(per_second, 20))
    assert sent[0][0] == sent[1][0] == 0
    exchanged = tracker._tracks[0].box != face(1000 + distance).box
    for person in sent.values():
        assert any(at >= meet - 1 for at in person) or not exchanged
        assert len(person) <= 6


def _path(since: float, speed: float, distance: float) -> float:
    """Stand on one side, walk through 0 at time 0, stand on the other side."""
    return 1000 + max(-distance, min(distance, since * speed * SIDE))


def test_person_in_the_place_of_another_is_sent_at_last_after_the_period() -> None:
    """The limit of tracking by boxes: the change takes less than a second, and both are never seen at once."""
    people = [lambda now: 500.0 if now < 5 else None, lambda now: 510.0 if now >= 5.5 else None]
    sent = sends(Tracker(RESEND), people, frames(10, 60))
    assert sent[1][0] == pytest.approx(RESEND, abs=0.2)


faces_seen = st.builds(
    face,
    st.floats(50, 1900),
    st.floats(50, 1000),
    side=st.floats(8, 400),
    quality=st.floats(0, 1),
)


@given(st.lists(st.tuples(st.floats(0, 5), st.lists(faces_seen, max_size=6)), max_size=30))
def test_due_faces_are_some_of_the_frame_and_none_that_is_far_from_all_before_is_left_out(
    scene: list[tuple[float, list[MeasuredFace]]],
) -> None:
    """Whatever comes: a face that no earlier one can have become is sent."""
    tracker, now, before = Tracker(RESEND), 0.0, list[MeasuredFace]()
    for gap, seen in scene:
        now += gap
        due = tracker.due(seen, now)
        assert list(due) == sorted(set(due))
        assert set(due) <= set(range(len(seen)))
        for index, each in enumerate(seen):
            if all(_far(each.box, other.box) for other in before):
                assert index in due
        before += seen


def _far(one: Box, other: Box) -> bool:
    """Whether a face cannot have moved from one place to the other."""
    sides = math.sqrt(one.area) + math.sqrt(other.area)
    return math.dist((one.x_min, one.y_min), (other.x_min, other.y_min)) > 3 * sides


@given(st.lists(st.floats(0.01, 3), min_size=1, max_size=100), st.floats(0.5, 60))
def test_person_in_view_is_never_unsent_for_longer_than_the_period(gaps: list[float], resend: float) -> None:
    """Up to the next frame, however irregular they are; nor sent more often."""
    tracker, now, sent = Tracker(resend), 0.0, list[float]()
    for gap in gaps:
        now += gap
        if tracker.due([face(500)], now):
            sent.append(now)
        assert now - sent[-1] < resend
    assert all(later - earlier >= resend for earlier, later in pairwise(sent))
