"""Shared by measurements on one core: pinning, a pack's artefact, timing in turns, and counting arithmetic."""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.artefact import Artefact
from model.packs.build import build
from model.packs.catalogue import DEFAULT, PACKS
from tests.support.processes import CHECKOUT

if TYPE_CHECKING:
    from model.engines import Engine

PROC_STAT = Path("/proc/stat")
_BUSY_WINDOW_SECONDS = 0.5
SINGLE_THREADED = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def pin() -> int:
    """Keep this process on the least busy of its cores, with one thread in every library; return the core.

    Call it before numpy or an engine is imported: their pools of threads read the variables then.
    """
    os.environ.update(dict.fromkeys(SINGLE_THREADED, "1"))
    core = least_busy_core()
    os.sched_setaffinity(0, {core})
    return core


def least_busy_core() -> int:
    """Return the core of this process's that is busy for the least time within half a second."""
    before = _busy_ticks()
    time.sleep(_BUSY_WINDOW_SECONDS)
    after = _busy_ticks()
    return min(os.sched_getaffinity(0), key=lambda number: after[number] - before[number])


def _busy_ticks() -> dict[int, int]:
    """Ticks that each core has spent on anything but idling (proc(5): the fourth and fifth field)."""
    ticks = {}
    for line in PROC_STAT.read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks[int(name[3:])] = sum(map(int, fields)) - int(fields[3]) - int(fields[4])
    return ticks


def model_dir() -> Path:
    """Return where the model is: where the settings say, else in the checkout's cache if the tests have built one."""
    from facerec.settings import Settings  # noqa: PLC0415 - imported after the process has been pinned

    built = CHECKOUT / ".cache" / "model"
    return built if "FACEREC_MODEL__DIR" not in os.environ and built.exists() else Settings.load().model.dir


def add_pack_option(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the option `--pack`."""
    parser.add_argument("--pack", choices=list(PACKS), default=DEFAULT, help="pack to measure (default: %(default)s)")


def pack_artefact(pack: str) -> Artefact:
    """Return the artefact of a pack, built in the checkout's cache unless it is there; progress goes to stderr.

    Research licences allow a measurement, so the setting for them is not checked. Raises
    `BuildFailed`.
    """
    from facerec.settings import Settings  # noqa: PLC0415 - as above

    last = ""

    def report(step: str, _share: float | None) -> None:
        nonlocal last
        if step != last:
            print(f"{pack}: {step}", file=sys.stderr)
        last = step

    return build(
        PACKS[pack],
        output=CHECKOUT / ".cache" / "packs" / pack,
        cache=Settings.load().model.cache_dir,
        on_progress=report,
    )


def default_engine() -> "Engine":
    """The default pack's engine: it cuts out the photos for the measurement of every pack."""
    from model.engines import open_engine  # noqa: PLC0415 - imported after the process has been pinned

    return open_engine(pack_artefact(DEFAULT))


def machine() -> dict[str, Any]:
    """Return the CPU, its bfloat16 instructions (AMX or not), and its load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", "").split())
    return {
        "cpu": fields.get("model name", "unknown"),
        "bf16": sorted(flags & {"amx_bf16", "avx512_bf16"}),
        "amx": "amx_tile" in flags,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int, warm_ups: int = 2) -> dict[str, list[float]]:
    """Return the seconds of every call in each round, taken in turn so that what disturbs one disturbs all alike.

    They are CPU seconds of all threads of this process. On one pinned thread that is the wall-clock time without the
    time that other processes took.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(-warm_ups, rounds):
        for name, call in calls.items():
            started = time.process_time()
            call()
            if number >= 0:
                seconds[name].append(time.process_time() - started)
    return seconds


def median_ms(seconds: list[float], count: int = 1) -> float:
    """Return the median in milliseconds for one of `count` things done at once."""
    return statistics.median(seconds) * 1000 / count


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return how many times faster one is: the median over rounds that ran side by side."""
    return statistics.median(one / other for one, other in zip(slow, fast, strict=True))


def gflop(network: Path, shape: tuple[int, int, int, int]) -> float:
    """Return the arithmetic of a graph's convolutions and matrix products on one input, two operations a product."""
    import openvino  # noqa: PLC0415 - imported after the process has been pinned

    model = openvino.Core().read_model(network)
    model.reshape(list(shape))
    total = 0
    for node in model.get_ops():
        kind = node.get_type_name()
        if kind not in {"Convolution", "GroupConvolution", "MatMul"}:
            continue
        weights = list(node.input(1).get_shape())
        if kind == "MatMul":
            inner = [node.input(0).get_shape()[-1]]
        else:
            inner = weights[2 if kind == "GroupConvolution" else 1 :]  # without (groups and) outputs
        total += 2 * _product(list(node.output(0).get_shape())) * _product(inner)
    return total / 1e9


def peaks_gflops() -> dict[str, float]:
    """Return what one core reaches at best in 10⁹ operations a second, `fp32` and `bf16` (0 where there is none).

    Measured, not calculated: the best of three convolutions and a matrix product that fit its caches, run by OpenVINO.
    """
    import numpy as np  # noqa: PLC0415 - as above
    import openvino  # noqa: PLC0415 - as above
    from openvino import opset13 as ops  # noqa: PLC0415 - as above

    core = openvino.Core()
    hints = {"fp32": "f32"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hints["bf16"] = "bf16"
    best = {"fp32": 0.0, "bf16": 0.0}
    for channels, side in ((128, 28), (256, 28), (256, 14), (1024, 0)):
        shape = [1, channels, side, side] if side else [channels, channels]
        image = ops.parameter(shape, np.float32)
        if side:
            kernel = np.full((channels, channels, 3, 3), 1e-3, dtype=np.float32)
            layer = ops.convolution(image, kernel, [1, 1], [1, 1], [1, 1], [1, 1])
            operations = 2 * side * side * channels * channels * 9
        else:
            layer = ops.matmul(image, np.full((channels, channels), 1e-3, dtype=np.float32), False, False)
            operations = 2 * channels**3
        picture = np.ones(shape, dtype=np.float32)
        for precision, hint in hints.items():
            properties = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "ENABLE_CPU_PINNING": False}
            request = core.compile_model(openvino.Model([layer], [image]), "CPU", properties).create_infer_request()
            run = interleaved({"it": partial(request.infer, [picture])}, rounds=60)
            best[precision] = max(best[precision], operations / min(run["it"]) / 1e9)
    return best


def _product(lengths: list[int]) -> int:
    total = 1
    for length in lengths:
        total *= int(length)
    return total
