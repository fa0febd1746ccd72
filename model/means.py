"""The mean embedding of each person's templates, searchable; pure.

The similarity to a person is the cosine to the normalised mean of the person's embeddings. A mean has less of what is
particular to one photo than a template, and it is one chance for a stranger where several templates are several
(docs/accuracy.md, Several photos of a person).
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from model.index.blocks import PutAside
from model.index.vectors import Float32Vectors
from model.matching import Columns, GalleryIndex, Match

_PEOPLE_AT_ONCE = 32_768
"""Means that are computed together: 64 MB at 512 dimensions."""


class PersonMeans:
    """The means of the people of an index; any number of threads may search while one renews them.

    They take as much memory as an index with one template for each person. `put_aside` is that of
    `GalleryIndex.of_pieces`. Raises `RowsDamaged` as the index does.
    """

    def __init__(self, templates: GalleryIndex, put_aside: PutAside = Float32Vectors) -> None:
        names = sorted(filter(None, templates.names))
        groups = (names[start : start + _PEOPLE_AT_ONCE] for start in range(0, len(names), _PEOPLE_AT_ONCE))
        self._means = GalleryIndex.of_pieces((_means(templates, group) for group in groups), put_aside)

    def renew(self, templates: GalleryIndex, people: Collection[str]) -> None:
        """Compute the means of these people again; those without a template are forgotten."""
        means = _means(templates, sorted(people))
        self._means.remove(sorted(set(people).difference(means[1])))
        self._means.add(*means)

    def search(self, templates: GalleryIndex, queries: NDArray[np.float32], limit: int = 1) -> list[list[Match]]:
        """Return what `GalleryIndex.search` does, with the similarities to the means.

        A match still has the template that is the most similar one. A person whose templates are removed at this moment
        is left out.
        """
        found = self._means.search(queries, limit)
        best = _best_templates(templates, queries, [{match.identity for match in matches} for matches in found])
        return [
            [
                Match(match.identity, match.similarity, known[match.identity])
                for match in matches
                if match.identity in known
            ]
            for matches, known in zip(found, best, strict=True)
        ]


def _means(templates: GalleryIndex, people: Sequence[str]) -> Columns:
    """Return the means of those of the people who have one; a mean's template id is the name."""
    numbers = {name: number for number, name in enumerate(people)}
    sums = np.zeros((len(people), templates.dimension), dtype=np.float32)
    for embeddings, owners, _ in templates.columns(people):
        of = np.fromiter((numbers[owner] for owner in owners), dtype=np.intp, count=len(owners))
        order = np.argsort(of, kind="stable")
        present, starts = np.unique(of[order], return_index=True)
        sums[present] += np.add.reduceat(np.asarray(embeddings, dtype=np.float32)[order], starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1)
    some = np.flatnonzero(lengths > 0)  # opposite templates have no mean
    names = [people[number] for number in some.tolist()]
    return sums[some] / lengths[some, None], names, names


def _best_templates(
    templates: GalleryIndex, queries: NDArray[np.float32], people: Sequence[Collection[str]]
) -> list[dict[str, str]]:
    """Return for each query the most similar template of each of its people."""
    best: list[dict[str, tuple[float, str]]] = [{} for _ in queries]
    for embeddings, owners, template_ids in templates.columns(set().union(*people)):
        for known, wanted, cosines in zip(best, people, (queries @ embeddings.T).tolist(), strict=True):
            for cosine, owner, template_id in zip(cosines, owners, template_ids, strict=True):
                if owner in wanted and cosine > known.get(owner, (-2.0, ""))[0]:
                    known[owner] = cosine, template_id
    return [{owner: template_id for owner, (_, template_id) in known.items()} for known in best]
