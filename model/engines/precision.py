"""Which numbers the embedder computes in: bfloat16 where that is faster, float32 elsewhere. See ADR 4.

The detector always computes in float32: its results are exact, and a box that moves by a pixel moves the embedding.
"""

from collections.abc import Callable, Collection

from model.engines import EngineUnavailable

LEAST_SPEEDUP = 1.2
"""What bfloat16 must gain over float32 before `auto` takes it; where it is emulated it gains nothing, or loses."""


def choose(wanted: str, capabilities: Collection[str], speedup: Callable[[], float]) -> str:
    """Return `fp32` or `bf16` for what is wanted: one of these or `auto`.

    `capabilities` are the runtime's own report on this CPU, with `BF16` where it offers bfloat16. `speedup` measures
    how many times faster than float32 it is; only `auto` asks, and only where it is offered.

    Raises `EngineUnavailable`.
    """
    if wanted not in {"auto", "fp32", "bf16"}:
        raise EngineUnavailable(f"there is no precision {wanted!r}: choose auto, fp32 or bf16")
    if wanted == "fp32":
        return "fp32"
    if "BF16" not in capabilities:
        if wanted == "auto":
            return "fp32"
        raise EngineUnavailable(
            "this CPU does not compute in bf16, which takes AMX or AVX512-BF16: choose the precision auto or fp32"
        )
    return "bf16" if wanted == "bf16" or speedup() >= LEAST_SPEEDUP else "fp32"


def require_fp32(wanted: str, engine: str) -> None:
    """Raise `EngineUnavailable` where another precision is demanded of an engine that has float32 alone."""
    if wanted not in {"auto", "fp32"}:
        raise EngineUnavailable(
            f"the engine {engine} computes in fp32 only, not in {wanted}: choose the precision auto or fp32, "
            "or the engine openvino"
        )
