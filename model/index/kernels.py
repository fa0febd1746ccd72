"""The inner loop of a large gallery: 8-bit codes of many templates times 8-bit codes of a few queries.

OpenVINO keeps the codes packed for the CPU's 8-bit instructions and is bound by memory alone; where it is missing, or
where its arithmetic is not the exact one, NumPy does the same in float32, some ten times slower.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Products = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Whole numbers from -127 to 127 as float32 (M, D) in; their products with the block, float32 (M, N), out."""

LARGEST_DIMENSION = (1 << 24) // 127**2
"""Up to here every partial sum is a whole number that float32 holds exactly, whatever the order of summation."""

_PIECE_ROWS = 2048
"""Rows that NumPy widens at once: 4 MB at 512 dimensions, which stay in the cache."""


class NumpyProducts:
    """`Products` anywhere: the codes are widened piece by piece."""

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
    """`Products` by a matrix product whose weights are the codes, compressed; safe for several threads.

    `codes` may be mapped from a file: they are read when the first product packs them, and not again. Raises
    ImportError without OpenVINO, and ArithmeticError when this CPU's path does not give the exact products.
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
        # Queries are whole numbers with the largest at 127: quantising a whole one to 8 bits leaves it as it is.
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
        """Compare some products with whole-number arithmetic; one query and several take different paths."""
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
    """One for the life of the process.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signals, and when the last core is gone unmaps it,
    in use as it may be: the next signal then kills the process (seen with 2026.4).
    """
    import openvino as ov  # noqa: PLC0415 - as above

    return ov.Core()


def fastest(codes: NDArray[np.int8], scales: NDArray[np.float32]) -> Products:
    """Return the fastest exact kernel of this machine for codes (N, D) with a scale (N,) each."""
    try:
        return OpenVinoProducts(codes, scales)
    except (ImportError, ArithmeticError, RuntimeError):  # the last is how OpenVINO refuses
        return NumpyProducts(codes, scales)
