"""Templates that can be scored against queries, with a bound on the error of every score.

With the bound, a search is exact: every template whose score could place it among the nearest is compared again in full
precision.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Products = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Whole numbers from -127 to 127 as float32 (M, D) in; their products with the block, float32 (M, N), out."""
LARGEST_DIMENSION = (1 << 24) // 127**2
"""The largest dimension at which float32 holds every partial sum exactly, in any order of summation."""
_PIECE_ROWS = 2048  # rows that NumPy converts at once: 4 MB at 512 dimensions, which stay in the cache
_ROUNDING = 1e-5
"""Added to the bound of 8-bit scores for the float32 multiplications after the exact products; far above 2⁻²³."""


class NumpyProducts:
    """`Products` in NumPy: the codes are converted to float32 piece by piece."""

    def __init__(self, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        self._codes = codes
        self._scales = scales

    def __call__(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return queries (M, D) times codes, each column times its scale."""
        products = np.empty((len(queries), len(self._codes)), dtype=np.float32)
        for start in range(0, len(self._codes), _PIECE_ROWS):
            piece = self._codes[start : start + _PIECE_ROWS].astype(np.float32)
            np.matmul(queries, piece.T, out=products[:, start : start + _PIECE_ROWS])
        products *= self._scales
        return products


class OpenVinoProducts:
    """`Products` as a matrix product whose compressed weights are the codes; safe for several threads.

    `codes` may be mapped from a file: they are read once, when the first product packs them. Raises ImportError
    without OpenVINO, and ArithmeticError if OpenVINO's products are not exact on this CPU.
    """

    def __init__(self, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        import openvino as ov  # noqa: PLC0415 - small galleries never need it, and it costs tens of megabytes
        from openvino import opset13 as ops  # noqa: PLC0415 - as above

        self._tensor = ov.Tensor
        self._codes = codes  # shared with OpenVINO, not copied
        query = ops.parameter([-1, codes.shape[1]], ov.Type.f32)
        weights = ops.constant(codes, shared_memory=True)
        widened = ops.multiply(ops.convert(weights, "f32"), ops.constant(scales[:, None]))
        model = ov.Model([ops.matmul(query, widened, False, True)], [query])
        # Queries are whole numbers with the largest at 127: quantising them to 8 bits changes nothing.
        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": codes.shape[1],
        }
        self._compiled = _core().compile_model(model, "CPU", options)
        self._idle: list[Any] = []
        self._prove(codes, scales)

    def __call__(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return queries (M, D) times codes, each column times its scale."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        request.set_input_tensor(self._tensor(np.ascontiguousarray(queries), shared_memory=True))
        request.infer()
        products: NDArray[np.float32] = request.get_output_tensor().data.copy()
        self._idle.append(request)
        return products

    def _prove(self, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> None:
        """Compare some products with integer arithmetic; one query and several take different paths."""
        rows = np.linspace(0, len(codes) - 1, min(64, len(codes))).astype(np.intp)
        queries = np.random.default_rng(0).integers(-127, 128, (9, codes.shape[1]))
        queries[:, 0] = 127
        expected = queries @ codes[rows].T.astype(np.int64) * scales[rows].astype(np.float64)
        for count in (1, 9):
            found = self(queries[:count].astype(np.float32))[:, rows]
            if not np.allclose(found, expected[:count], rtol=1e-6, atol=0):
                raise ArithmeticError("OpenVINO's 8-bit products are not exact on this CPU")


@functools.cache
def _core() -> Any:
    """Return one core for the life of the process.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signals, and unmaps it with the last core although
    it is still in use: the next signal then kills the process (seen with 2026.4).
    """
    import openvino as ov  # noqa: PLC0415 - as above

    return ov.Core()


def fastest(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> Products:
    """Return this machine's fastest exact `Products` for codes (N, D) with one scale each (N,)."""
    if not _without_openvino:
        try:
            return OpenVinoProducts(codes, scales)
        except (ImportError, ArithmeticError) as exc:
            _without_openvino.append(str(exc))  # not the error, whose traceback keeps the model
        except RuntimeError:  # OpenVINO's error for this model
            pass
    return NumpyProducts(codes, scales)


_without_openvino: list[str] = []
"""Why this process does not use OpenVINO: found at the first block, so that no other one is compiled in vain."""


class RowsDamaged(Exception):
    """A template in full precision contradicts its code: its file is damaged or gone."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries in full precision and as 8-bit codes, prepared once for all blocks."""

    full: NDArray[np.float32]
    """(M, D)."""
    norms: NDArray[np.float64]
    """(M,)."""
    codes: NDArray[np.float32]
    """(M, D) whole numbers, the largest of each query at 127."""
    scales: NDArray[np.float32]
    """(M,)."""
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
        """Return the rows (N, D) at these offsets."""


class Vectors(Rows, Protocol):
    """Templates that can be scored; immutable and safe for several threads."""

    def __len__(self) -> int:
        """Return the number of templates."""

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return the approximate cosines (M, N)."""

    def errors(self, queries: Queries) -> NDArray[np.float64]:
        """Return for each query the largest error (M,) of a score."""

    def copied(self, offsets: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the rows (N, D) at these offsets, checked to be kept; raises `RowsDamaged`."""


class Float32Vectors:
    """Templates float32 (N, D) in memory, L2-normalised."""

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        self.embeddings = embeddings

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self.embeddings)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return the cosines (M, N) in float32 arithmetic."""
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
    """Templates as 8-bit codes: row i is codes[i] · scales[i] plus an error."""

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
    """Templates as codes in memory, a quarter of the size, and in full precision in `rows`.

    The error of a score follows from Cauchy and Schwarz: with q = q' + dq and x = x' + dx,
    |q·x - q'·x'| ≤ ‖q‖ ‖dx‖ + ‖dq‖ ‖x'‖, about 0.016 for 512 dimensions.
    """

    def __init__(self, codes: Codes, rows: Rows) -> None:
        self.codes = codes
        self._rows = rows
        self._products = fastest(codes.codes, codes.scales)

    def __len__(self) -> int:
        """Return the number of templates."""
        return len(self.codes.scales)

    def scores(self, queries: Queries) -> NDArray[np.float32]:
        """Return the approximate cosines (M, N)."""
        scores = self._products(queries.codes)
        scores *= queries.scales[:, None]
        return scores

    def errors(self, queries: Queries) -> NDArray[np.float64]:
        """Return the bound in the class's docstring."""
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
