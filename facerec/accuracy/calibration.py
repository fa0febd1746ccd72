"""A threshold for one collection from comparisons of different people, with its source."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from facerec.errors import FacerecError
from facerec.gallery.damaged import separate
from facerec.gallery.names import identity_key
from facerec.ports import CollectionThreshold, DamagedTemplate, Template, TemplateStore
from model.evaluation import ERRORS_NEEDED, Floats, pairs_needed, threshold_above

_CELLS = 4_000_000  # cosines at a time: 16 MB, and a few times that around them
_NO_PAIR = -2.0  # below every cosine


class TooFewPairs(FacerecError):
    """There are fewer than 10/FMR impostor pairs: the threshold would depend on chance."""


class NoThreshold(FacerecError):
    """Too many pairs of different people have a similarity of 1: some are one person under two names."""


@dataclass(frozen=True, slots=True)
class Lookalikes:
    """The two most similar templates of different people: often one person under two names."""

    cosine: float
    one: Template
    other: Template


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and the comparisons behind it."""

    threshold: CollectionThreshold
    identities: int
    gallery_pairs: int
    evaluation_pairs: int
    other_models: int
    """The number of templates of other models, which were left out."""
    lookalikes: Lookalikes | None
    damaged: Sequence[DamagedTemplate] = ()
    """The damaged templates, which were left out."""

    @property
    def strangers_taken(self) -> float:
        """The chance that a stranger is taken for one of the people: 1 - (1 - FMR)^people.

        With one template each and independent comparisons, at the target; after ISO/IEC 19795-1.
        """
        return float(1 - (1 - self.threshold.target_fmr) ** self.identities)


def calibrate(
    store: TemplateStore,
    collection: str,
    model_id: str,
    target_fmr: float,
    *,
    per_search: bool = False,
    evaluation: Floats | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Calibration:
    """Find the least threshold at which at most `target_fmr` of all impostor pairs match; stores nothing.

    With `per_search` the target is instead the share of strangers that may get a name. It is divided by the number of
    people, because a stranger is compared with each.

    Impostor pairs are all pairs of the collection's templates that belong to different people, and the cosines in
    `evaluation`. Raises `TooFewPairs` and `NoThreshold`.
    """
    damaged: list[DamagedTemplate] = []
    everything = list(store.templates(collection, damaged))
    own = [template for template in everything if template.model_id == model_id]
    templates, _, unusable = separate(own)
    damaged += unusable
    # Two spellings of a name are one person.
    keys = [identity_key(template.identity) for template in templates]
    names = sorted(set(keys))
    numbers = {name: number for number, name in enumerate(names)}
    owners = np.array([numbers[key] for key in keys], dtype=np.intp)
    extra = np.empty(0, np.float64) if evaluation is None else evaluation
    in_gallery = _pairs_of_different(owners)
    searched = max(1, len(names)) if per_search else 1
    target_fmr /= searched
    total, needed = in_gallery + len(extra), pairs_needed(target_fmr)
    if total < needed:
        raise TooFewPairs(_too_few(collection, target_fmr, searched, in_gallery, len(names), len(extra)))
    allowed = int(target_fmr * total + 1e-9)
    highest, closest = _highest(templates, owners, extra, allowed + 1)
    value = threshold_above(float(highest[0]))
    if value > 1:
        raise NoThreshold(
            f"{allowed + 1} pairs of different people have a similarity of 1: some photo is enrolled under two names"
        )
    sources = [f"{in_gallery} pairs of {len(templates)} templates of {len(names)} people"] if in_gallery else []
    sources += [f"{len(extra)} pairs of an evaluation set"] if len(extra) else []
    threshold = CollectionThreshold(
        value=value,
        target_fmr=target_fmr,
        fmr=float((highest >= value).sum()) / total,
        impostor_pairs=total,
        source=" and ".join(sources),
        calibrated_at=now(),
    )
    return Calibration(threshold, len(names), in_gallery, len(extra), len(everything) - len(own), closest, damaged)


def _too_few(collection: str, fmr: float, searched: int, in_gallery: int, people: int, extra: int) -> str:
    total = in_gallery + extra
    rate = f"{fmr:g}" if searched == 1 else f"{fmr:.3g} ({fmr * searched:g} of strangers / {searched} people)"
    least = _least_rate(searched * ERRORS_NEEDED / total) if total else 1.0
    ask = f", or ask for a rate of {least:g} or more" if least < 1 else ""
    return (
        f"a false match rate of {rate} needs {pairs_needed(fmr)} impostor pairs and there are {total}: {in_gallery} in "
        f"collection {collection} ({people} people) and {extra} in the evaluation set; "
        f"enrol more people, give --pairs{ask}; a collection without a calibration has the model's threshold for so "
        "many people"
    )


def _least_rate(rate: float) -> float:
    """The rate, rounded up to two digits."""
    step = 10.0 ** (math.floor(math.log10(rate)) - 1)
    return math.ceil(rate / step - 1e-9) * step


def _pairs_of_different(owners: NDArray[np.intp]) -> int:
    each = np.bincount(owners) if len(owners) else np.zeros(0, int)
    return int(len(owners) * (len(owners) - 1) // 2 - (each * (each - 1) // 2).sum())


def _highest(
    templates: Sequence[Template], owners: NDArray[np.intp], extra: Floats, number: int
) -> tuple[Floats, Lookalikes | None]:
    """The highest cosines of all impostor pairs, ascending, and the gallery's highest pair."""
    kept, closest = np.sort(extra)[-number:], None
    embeddings = np.stack([template.embedding for template in templates]) if templates else np.empty((0, 1), np.float32)
    rows = max(1, _CELLS // max(1, len(embeddings)))
    for first in range(0, len(embeddings), rows):
        # Each pair once: a template with those that come after it.
        cosines = embeddings[first : first + rows] @ embeddings[first:].T
        different = owners[first : first + rows, None] != owners[first:]
        cosines[~np.triu(different, 1)] = _NO_PAIR
        row, other = np.unravel_index(int(cosines.argmax()), cosines.shape)
        top = float(cosines[row, other])
        if top > (_NO_PAIR if closest is None else closest.cosine):
            closest = Lookalikes(top, templates[first + int(row)], templates[first + int(other)])
        floor = kept[0] if len(kept) == number else _NO_PAIR
        kept = np.sort(np.concatenate([kept, cosines[cosines > floor].astype(np.float64)]))[-number:]
    return kept, closest
