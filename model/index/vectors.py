"""Templates that can be scored against queries, with a bound on the error of every score.

An index that knows how wrong its scores can be at most needs no approximation: whatever could be among the nearest by
its score is looked at again in full, so the result is that of full precision, always.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.index.kernels import LARGEST_DIMENSION, fastest

_ROUNDING = 1e-5
"""Added to the bound of 8-bit scores for the float32 multiplications after the exact products; far above 2⁻²³."""

_PIECE_ROWS = 2048
"""Rows that are encoded at once: some 4 MB at 512 dimensions for each of the steps in between."""


class RowsDamaged(Exception):
    """A template in full precision is not the one that its code was made from: its file is damaged or gone."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries as they came and as 8-bit codes, prepared once for all blocks."""

    full: NDArray[np.float32]
    """(M, D)."""
    norms: NDArray[np.float64]
    """(M,)."""
    codes: NDArray[np.float32]
    """(M, D) whole numbers, the largest of each query at 127."""
    scales: NDArray[np.float32]
    """(M,), so that codes · scale is the query but for `errors`."""
    errors: NDArray[np.float64]
    """(M,) norms of query - codes · scale."""

    @classmethod
    def of(cls, queries: NDArray[np.float32]) -> Self:
        """Prepare queries (M, D)."""
        full = np.ascontiguousarray(queries, dtype=np.float32)
        codes, scales = quantise(full)
        wide = codes.astype(np.float32)
        return cls(full, _norms(full), wide, scales, _norms(full - wide * scales[:, None]))


class Rows(Protocol):
    """Templates in full precision, in memory or on disk."""

    def take(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """The rows (N, D) at these offsets."""


class Vectors(Rows, Protocol):
    """Templates that can be scored; immutable and safe for several threads."""

    def __len__(self) -> int:
        """How many templates there are."""

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """The approximate cosines (M, N)."""

    def errors(self, queries: Queries) -> NDArray[np.float64]:
        """For each query the most (M,) by which a score can miss the cosine."""

    def copied(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """The rows (N, D) at these offsets, to be kept; raises `RowsDamaged` where they are not what they were."""


class Float32Vectors:
    """Templates float32 (N, D) in memory, L2-normalised."""

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        self.embeddings = embeddings

    def __len__(self) -> int:
        """Return how many templates there are."""
        return len(self.embeddings)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return the cosines (M, N) as float32 arithmetic has them."""
        scores: NDArray[np.float32] = queries.full @ self.embeddings.T
        return scores

    def errors(self, queries: Queries) -> NDArray[np.float64]:
        """Return the bound of rounding in a sum of D products, in any order (Higham, Accuracy and Stability, §3.1)."""
        bound: NDArray[np.float64] = 1.1 * (queries.full.shape[1] + 8) * 2.0**-24 * queries.norms
        return bound

    def take(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the rows at these offsets."""
        return self.embeddings[offsets]

    copied = take


@dataclass(frozen=True, slots=True)
class Codes:
    """Templates as 8-bit codes: row i is codes[i] · scales[i] but for an error."""

    codes: NDArray[np.int8]
    """(N, D)."""
    scales: NDArray[np.float32]
    """(N,)."""
    largest_error: float
    """The largest norm of template - codes · scale."""
    largest_norm: float
    """The largest norm of codes · scale."""

    @classmethod
    def of(cls, embeddings: NDArray[np.float32]) -> Self:
        """Encode templates (N, D), with one scale each."""
        codes, scales = np.empty(embeddings.shape, dtype=np.int8), np.empty(len(embeddings), dtype=np.float32)
        error = norm = 0.0
        for start in range(0, len(embeddings), _PIECE_ROWS):
            piece = slice(start, start + _PIECE_ROWS)
            codes[piece], scales[piece] = quantise(embeddings[piece])
            decoded = codes[piece].astype(np.float32) * scales[piece, None]
            error = max(error, float(_norms(embeddings[piece] - decoded).max()))
            norm = max(norm, float(_norms(decoded).max()))
        return cls(codes, scales, error, norm)

    @staticmethod
    def possible(dimension: int) -> bool:
        """Whether the products of such codes are exact."""
        return dimension <= LARGEST_DIMENSION


class Int8Vectors:
    """Templates as codes in memory, a quarter of their size, and in full precision in `rows`.

    The error of a score follows from Cauchy and Schwarz: with q = q' + dq and x = x' + dx,
    |q·x - q'·x'| ≤ ‖q‖ ‖dx‖ + ‖dq‖ ‖x'‖, about 0.016 for 512 dimensions.
    """

    def __init__(self, codes: Codes, rows: Rows) -> None:
        self.codes = codes
        self._rows = rows
        self._products = fastest(codes.codes, codes.scales)

    def __len__(self) -> int:
        """Return how many templates there are."""
        return len(self.codes.scales)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return the approximate cosines (M, N)."""
        scores = self._products(queries.codes)
        scores *= queries.scales[:, None]
        return scores

    def errors(self, queries: Queries) -> NDArray[np.float64]:
        """Return the bound of the class's docstring."""
        bound: NDArray[np.float64] = (
            queries.norms * self.codes.largest_error + queries.errors * self.codes.largest_norm + _ROUNDING
        )
        return bound

    def take(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the rows at these offsets."""
        return self._rows.take(offsets)

    def copied(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the rows at these offsets, compared with their codes."""
        rows = self._rows.take(offsets)
        for start in range(0, len(offsets), _PIECE_ROWS):
            piece = slice(start, start + _PIECE_ROWS)
            decoded = self.codes.codes[offsets[piece]].astype(np.float32) * self.codes.scales[offsets[piece], None]
            if not (_norms(rows[piece] - decoded) <= self.codes.largest_error + _ROUNDING).all():
                raise RowsDamaged("a template's embedding contradicts its code")
        return rows


def quantise(vectors: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return codes int8 (N, D) and scales (N,): each vector's largest component becomes 127 or -127."""
    largest = np.abs(vectors).max(axis=1, initial=0)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(vectors / scales[:, None]).clip(-127, 127).astype(np.int8), scales


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    norms: NDArray[np.float64] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    return norms
