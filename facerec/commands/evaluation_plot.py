"""The plot of `facerec evaluate`: ROC on a logarithmic axis and the two distributions, drawn with Pillow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.evaluation import ERRORS_NEEDED, Ranking, Trials

_SCALE = 2  # drawn twice as large and reduced, since Pillow's lines have no smooth edges
_SIZE = (1400, 600)
_TOP, _PANEL = 90, (560, 420)  # pixels; of an axis frame
_INK, _FAINT, _SHADE = "#222222", "#d8d8d8", "#eeeeee"
_GENUINE, _IMPOSTOR = "#0072b2", "#d55e00"  # distinct for colour-blind readers, too (Okabe and Ito)
_BIN = 0.025  # of cosine

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One pair of axes; points are in units of the data."""

    canvas: ImageDraw.ImageDraw
    left: int
    x: Point
    y: Point
    """The ends of the axes."""

    def at(self, point: Point, shift: Point = (0, 0)) -> Point:
        """Return the place of a point on the canvas; the shift is in pixels of the picture."""
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        x, y = self.left + across * _PANEL[0] + shift[0], _TOP + (1 - up) * _PANEL[1] + shift[1]
        return x * _SCALE, y * _SCALE

    def frame(self, title: str, names: tuple[str, str], x: Sequence[tuple[float, str]], y: Sequence[float]) -> None:
        """Draw grid, ticks, frame and names; y is a share."""
        (x_low, x_high), (y_low, y_high) = self.x, self.y
        for value, text in x:
            self.line([(value, y_low), (value, y_high)], _FAINT, 1)
            self.write((value, y_low), text, "mt", (0, 8))
        for value in y:
            self.line([(x_low, value), (x_high, value)], _FAINT, 1)
            self.write((x_low, value), f"{value:.0%}", "rm", (-8, 0))
        self.line([(x_low, y_low), (x_high, y_low), (x_high, y_high), (x_low, y_high), (x_low, y_low)], _INK, 1)
        self.write(((x_low + x_high) / 2, y_low), names[0], "mt", (0, 34))
        self.write((x_low, y_high), names[1], "lb", (-44, -10))
        self.write(((x_low + x_high) / 2, y_high), title, "mb", (0, -10))

    def line(self, points: Sequence[Point], colour: str, width: int = 3) -> None:
        """Draw a line through the points."""
        self.canvas.line([self.at(point) for point in points], colour, width * _SCALE, joint="curve")

    def write(self, point: Point, text: str, anchor: str, shift: Point = (0, 0), colour: str = _INK) -> None:
        """Write beside a point."""
        self.canvas.text(self.at(point, shift), text, colour, ImageFont.load_default(15 * _SCALE), anchor)


def draw(trials: Trials, threshold: float, title: str) -> Image.Image:
    """Return the picture, RGB; without pairs of both kinds a text replaces the ROC."""
    picture = Image.new("RGB", (_SIZE[0] * _SCALE, _SIZE[1] * _SCALE), "white")
    canvas = ImageDraw.Draw(picture)
    counts = f"{len(trials.genuine)} pairs of one person, {len(trials.impostor)} of two"
    font = ImageFont.load_default(18 * _SCALE)
    canvas.text((_SIZE[0] // 2 * _SCALE, 16 * _SCALE), f"{title}: {counts}", _INK, font, "mt")
    _roc(canvas, trials, threshold)
    _distributions(canvas, trials, threshold)
    return picture.resize(_SIZE, Image.Resampling.LANCZOS)


def _roc(canvas: ImageDraw.ImageDraw, trials: Trials, threshold: float) -> None:
    impostor = len(trials.impostor)
    lowest = min(-4, -math.ceil(math.log10(max(impostor, 1))))
    panel = _Panel(canvas, 90, (lowest, 0), (0, 1))
    supported = min(0.0, math.log10(ERRORS_NEEDED / max(impostor, 1)))
    if supported > lowest:
        # Left of it a rate rests on fewer than ten false matches.
        (left, bottom), (right, top) = panel.at((lowest, 0)), panel.at((supported, 1))
        canvas.rectangle((left, top, right, bottom), _SHADE)
    ticks = [(float(power), "1" if power == 0 else f"1e{power}") for power in range(lowest, 1)]
    panel.frame("ROC", ("false match rate (log)", "true accept rate"), ticks, [0, 0.2, 0.4, 0.6, 0.8, 1])
    if supported > lowest:
        text = f"fewer than {ERRORS_NEEDED} false matches"
        panel.write((lowest, 0), text, "lb", (8, -8), "#777777")
    if not impostor or not len(trials.genuine):
        panel.write((lowest / 2, 0.5), "needs pairs of both kinds", "mm")
        return
    curve = Ranking(trials).curve()
    # Steps: between two thresholds neither rate changes; from the left edge with what passes without a false match.
    points: list[Point] = [(float(lowest), curve.tar_at(0.0))]
    for fmr, tar in zip(curve.fmr, curve.tar, strict=True):
        if fmr > 0:
            points += [(math.log10(fmr), points[-1][1]), (math.log10(fmr), float(tar))]
    panel.line(points, _GENUINE)
    fmr, tar = float((trials.impostor >= threshold).mean()), float((trials.genuine >= threshold).mean())
    point = (math.log10(fmr) if fmr else float(lowest), tar)
    x, y = panel.at(point)
    canvas.ellipse((x - 6 * _SCALE, y - 6 * _SCALE, x + 6 * _SCALE, y + 6 * _SCALE), _INK)
    panel.write(point, f"threshold {threshold:g}" + ("" if fmr else " (no false match)"), "lm", (12, 16))


def _distributions(canvas: ImageDraw.ImageDraw, trials: Trials, threshold: float) -> None:
    low = min(-0.3, math.floor(float(trials.cosines.min()) * 10) / 10)
    edges = np.arange(low, 1 + _BIN, _BIN)
    kinds = [(trials.impostor, _IMPOSTOR, "two people"), (trials.genuine, _GENUINE, "one person")]
    kinds = [kind for kind in kinds if len(kind[0])]
    shares = [np.histogram(cosines, edges)[0] / len(cosines) for cosines, _, _ in kinds]
    top = math.ceil(max(float(share.max()) for share in shares) * 10 + 0.3) / 10
    panel = _Panel(canvas, 790, (low, 1), (0, top))
    x_ticks = [(value, f"{value:.1f}") for value in np.arange(math.ceil(low * 5) / 5, 1.01, 0.2).round(1).tolist()]
    y_ticks = np.arange(0, top + 1e-9, 0.05 if top <= 0.3 else 0.1).tolist()  # noqa: PLR2004 - up to ten of them
    panel.frame("Distributions", ("cosine", f"share of pairs in bins of {_BIN:g}"), x_ticks, y_ticks)
    for row, (share, (cosines, colour, name)) in enumerate(zip(shares, kinds, strict=True)):
        points: list[Point] = [(low, 0.0)]
        for left, right, value in zip(edges[:-1], edges[1:], share, strict=True):
            points += [(float(left), float(value)), (min(float(right), 1.0), float(value))]
        panel.line([*points, (1.0, 0.0)], colour)
        panel.write((1, top), f"{name} ({len(cosines)})", "rt", (-12, 12 + 24 * row), colour)
    panel.line([(threshold, 0), (threshold, top)], _INK, 1)
    panel.write((threshold, top), f"{threshold:g}", "lt", (6, 12))
