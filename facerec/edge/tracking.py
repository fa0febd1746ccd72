"""Which faces of a camera's frame are new, or due again: pure, from boxes alone.

A track is what is taken for one person in view. A face continues the track whose box it overlaps most: the last one,
or the one that a steady walk would have led to (as in SORT, Bewley and others, 2016). Between two frames of a slow
device people may walk further than that: then it is the nearest track of about its size. Pairs are taken greedily, the
best first.

Boxes do not tell people apart, so what is uncertain is sent rather than not. When a face could belong to two tracks,
or a track to two faces, as when two people cross, the tracks are doubtful: they are sent again once they have been
certain for a second. The limit: a person who appears where another has just been, within a second and without both
being seen at once, is taken for the other until `resend_seconds` have passed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from model.faces import Box, MeasuredFace

_OVERLAP = 0.3
"""The intersection over union from which on two boxes are one face that hardly moved."""
_STEP, _SPEED, _REACH = 0.5, 8.0, 2.0
"""How far a face moves, in its own widths: within no time, per second (a person walks 1.3 m/s), and at most."""
_GROWTH = 1.6
"""How much larger or smaller it may be then."""
_DOUBTFUL = 0.5
"""How well a face fits another track, relative to a match that would then be wrong, for the matches to be in doubt."""
_CERTAIN_SECONDS = 1.0
_LOST_FRAMES, _LOST_SECONDS = 3, 1.0
"""A track ends after so many frames and so many seconds without it."""
_LONGEST_GAP = 10.0
"""Or after so many seconds without a frame."""
_BETTER = 1.5
_LOWEST_QUALITY = 0.2
"""Differences of quality below it mean nothing; a person comes at most three times because of a better face."""


@dataclass(slots=True)
class _Track:
    """A person in view, from the last frame with the face."""

    box: Box
    seen_at: float
    sent_at: float
    sent_quality: float
    velocity: tuple[float, float] = (0.0, 0.0)
    """In pixels per second."""
    missed: int = 0
    """Frames since it was seen."""
    doubted_at: float = -math.inf

    def see(self, box: Box, now: float) -> None:
        """Continue with the face of a frame."""
        if gap := now - self.seen_at:
            self.velocity = (box.x_min - self.box.x_min) / gap, (box.y_min - self.box.y_min) / gap
        self.box, self.seen_at, self.missed = box, now, 0

    def expected(self, now: float) -> Box:
        """Return the box that a steady walk leads to."""
        gap = now - self.seen_at
        x, y = gap * self.velocity[0], gap * self.velocity[1]
        return Box(self.box.x_min + x, self.box.y_min + y, self.box.x_max + x, self.box.y_max + y)


class Tracker:
    """Decides which faces to send; for one camera and one thread.

    A face is due when it is new, when it was sent `resend_seconds` ago, when its quality is 1.5 times that of the face
    that was sent, and when its track was doubtful. `due` takes it as sent then.
    """

    def __init__(self, resend_seconds: float) -> None:
        self._resend_seconds = resend_seconds
        self._tracks: list[_Track] = []
        self._now = -math.inf

    def due(self, faces: Sequence[MeasuredFace], now: float) -> tuple[int, ...]:
        """Return the indices of the faces to send, ascending.

        Call it for each frame in order, also for one without a face, with the time of its capture in seconds. When the
        clock was put back, all tracks end.
        """
        self._end_tracks(now)
        matches = self._match(faces, now)
        for each in self._tracks:
            each.missed += 1
        due = []
        for index, face in enumerate(faces):
            quality = max(_LOWEST_QUALITY, math.prod(factor.value for factor in face.factors) if face.factors else 0.0)
            track = matches.get(index)
            if track is None:
                self._tracks.append(_Track(face.box, now, sent_at=now, sent_quality=quality))
                due.append(index)
                continue
            track.see(face.box, now)
            if self._is_due(track, quality, now):
                track.sent_at, track.sent_quality = now, quality
                due.append(index)
        return tuple(due)

    def _end_tracks(self, now: float) -> None:
        if now < self._now:
            self._tracks.clear()
        self._now = now
        self._tracks = [
            track
            for track in self._tracks
            if now - track.seen_at < (_LOST_SECONDS if track.missed >= _LOST_FRAMES else _LONGEST_GAP)
        ]

    def _match(self, faces: Sequence[MeasuredFace], now: float) -> dict[int, _Track]:
        """Return the track of each face that continues one; doubtful tracks are marked."""
        tracks = [(track, track.box, track.expected(now)) for track in self._tracks]
        pairs = [
            (affinity, index, number)
            for index, face in enumerate(faces)
            for number, (track, *boxes) in enumerate(tracks)
            if (affinity := max(_affinity(box, face.box, now - track.seen_at) for box in boxes)) > 0
        ]
        pairs.sort(key=lambda pair: -pair[0])
        by_face: dict[int, tuple[float, int]] = {}
        by_track: dict[int, tuple[float, int]] = {}
        for affinity, index, number in pairs:
            if index not in by_face and number not in by_track:
                by_face[index] = by_track[number] = affinity, number
        for affinity, index, number in pairs:
            matches = [match for match in (by_face.get(index), by_track.get(number)) if match]
            if (affinity, number) in matches or affinity < _DOUBTFUL * min(match[0] for match in matches):
                continue
            for doubtful in {number, *(match[1] for match in matches)}:
                self._tracks[doubtful].doubted_at = now
        return {index: self._tracks[number] for index, (_, number) in by_face.items()}

    def _is_due(self, track: _Track, quality: float, now: float) -> bool:
        return (
            now - track.sent_at >= self._resend_seconds
            or quality > _BETTER * track.sent_quality
            or track.sent_at <= track.doubted_at <= now - _CERTAIN_SECONDS
        )


def _affinity(last: Box, box: Box, gap: float) -> float:
    """Return how well a box follows another after so many seconds: above 1 by overlap, otherwise by distance, or 0."""
    side, last_side = math.sqrt(box.area), math.sqrt(last.area)
    distance = math.hypot(
        (box.x_min + box.x_max - last.x_min - last.x_max) / 2, (box.y_min + box.y_max - last.y_min - last.y_max) / 2
    )
    if distance > _REACH * (side + last_side):
        return 0.0  # as for most pairs
    overlap = _overlap(last, box)
    if overlap >= _OVERLAP:
        return 1 + overlap
    if side > _GROWTH * last_side or last_side > _GROWTH * side:
        return 0.0
    reach = min(_REACH, _STEP + _SPEED * gap) * (side + last_side) / 2
    return max(0.0, 1 - distance / reach)


def _overlap(one: Box, other: Box) -> float:
    """Return the intersection over union."""
    width = min(one.x_max, other.x_max) - max(one.x_min, other.x_min)
    height = min(one.y_max, other.y_max) - max(one.y_min, other.y_min)
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / (one.area + other.area - width * height)
