"""Which numbers the embedder computes in: bfloat16 where the CPU has it, float32 elsewhere. See ADR 4.

The detector always computes in float32: a box that moves by a pixel moves the embedding.
"""

from collections.abc import Collection
from pathlib import Path

from model.engines import EngineUnavailable

_NATIVE = frozenset({"amx_bf16", "avx512_bf16"})
"""The instructions for bfloat16, as Linux names them. Without them OpenVINO emulates it, three times slower."""

_CPU = Path("/proc/cpuinfo")


def choose(wanted: str, capabilities: Collection[str], flags: Collection[str]) -> str:
    """Return `fp32` or `bf16` for what is wanted: one of these or `auto`.

    `capabilities` are the runtime's own report on this CPU, with `BF16` where it offers bfloat16, `flags` the CPU's.
    Every engine of a machine chooses alike. Raises `EngineUnavailable`.
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
    return "bf16" if wanted == "bf16" or not _NATIVE.isdisjoint(flags) else "fp32"


def cpu_flags(path: Path = _CPU) -> frozenset[str]:
    """Return the instructions that this CPU has, by Linux's names; none where Linux does not say."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def require_fp32(wanted: str, engine: str) -> None:
    """Raise `EngineUnavailable` where another precision is demanded of an engine that has float32 alone."""
    if wanted not in {"auto", "fp32"}:
        raise EngineUnavailable(
            f"the engine {engine} computes in fp32 only, not in {wanted}: choose the precision auto or fp32, "
            "or the engine openvino"
        )
