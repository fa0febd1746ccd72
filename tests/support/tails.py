"""Impostor tails measured on LFW, and the measured thresholds of galleries."""

from model.tail import ImpostorTail

_RATES = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)


def _all_photos(*similarities: float) -> ImpostorTail:
    points = tuple(zip(_RATES, similarities, strict=True))
    return ImpostorTail(points, 87_000_000, "all 13 233 photos of LFW, deep-funneled, against those of other names")


TAILS = {
    "classic": _all_photos(0.399, 0.462, 0.511, 0.559, 0.597, 0.635, 0.665, 0.698),
    "open": _all_photos(0.294, 0.332, 0.363, 0.395, 0.424, 0.458, 0.490, 0.526),
    "accurate": _all_photos(0.170, 0.204, 0.234, 0.266, 0.296, 0.331, 0.359, 0.391),
}
"""By pack: the comparisons of all photos, of which a few people have hundreds."""


def _photos_of_the_pairs(*similarities: float) -> ImpostorTail:
    points = tuple(zip((1e-3, 1e-4, 1e-5, 1e-6), similarities, strict=True))
    return ImpostorTail(points, 8_000_000, "the photos of LFW's 6 000 pairs, deep-funneled, all against all")


TAILS_OF_PAIRS = {
    "open": _photos_of_the_pairs(0.356, 0.412, 0.462, 0.532),
    "accurate": _photos_of_the_pairs(0.226, 0.280, 0.330, 0.385),
}
"""By pack: the comparisons of fewer photos, more evenly spread over people."""

OPEN_SET = {
    "classic": {332: 0.619, 1600: 0.663},
    "open": {332: 0.432, 1600: 0.469},
    "accurate": {332: 0.303, 1600: 0.344},
}
"""By pack and number of people enrolled with one photo: the threshold at which 1 % of 1 600 strangers got a name."""
