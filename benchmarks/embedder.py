"""The embedding network of a pack alone: each engine and precision, in batches, against the reference and the peak.

    python -m benchmarks.embedder --pack open
    python -m benchmarks.embedder --pack accurate --images DIR

One pinned thread; the engines take turns in each round.

- `ms`: milliseconds per crop, by engine and batch size.
- `reference`: facenet-pytorch in float32 for classic if it is installed, otherwise ONNX Runtime.
- `cos_min`: the least cosine to the reference; `cos_p1`: its first percentile; `faces_below`: how many are below 0.999
  (usually faces cut by the edge, dark, or out of focus).
- `decisions_differing`: pairs of faces for which an engine decides differently from the reference at the threshold.
- `share_of_peak`: the arithmetic per second, as a share of what one core reaches in that precision.

The last line is one JSON object. The exit status is 1 if a cosine is below 0.999.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import (
    add_pack_option,
    gflop,
    interleaved,
    machine,
    median_ms,
    pack_artefact,
    peaks_gflops,
    pin,
)
from model.artefact import EMBEDDER, Artefact
from tests.support.measurements import photos
from tests.support.processes import CHECKOUT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from model.engines import Engine

BATCHES = (1, 4, 8, 16)
MIN_COSINE = 0.999
CANDIDATES = (("torch", "fp32"), ("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pack_option(parser)
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--limit", type=int, default=400, help="most photos to read")
    options = parser.parse_args()
    pin()
    artefact = pack_artefact(options.pack)
    engines = open_all(artefact)
    crops = face_crops(engines, options.images, options.limit)
    print(f"{len(crops)} faces", file=sys.stderr)
    arithmetic = gflop(artefact.path(EMBEDDER), (1, 3, artefact.crop.image_size, artefact.crop.image_size))
    peaks = peaks_gflops()
    result: dict[str, Any] = {
        "pack": options.pack,
        "gflop": round(arithmetic, 3),
        "peak_gflops": {precision: round(peak) for precision, peak in peaks.items()},
        "limit_ms": {precision: round(1000 * arithmetic / peak, 2) for precision, peak in peaks.items() if peak},
        "faces": len(crops),
        "auto": chosen(artefact),
    }
    result |= fidelity(engines, crops, artefact.threshold)
    result |= speed(engines, crops, options.rounds, arithmetic, peaks)
    print(json.dumps(result | {"machine": machine()}))
    sys.exit(1 if min(result["cos_min"].values()) < MIN_COSINE else 0)


def open_all(artefact: Artefact) -> "dict[str, Engine]":
    """Return every engine and precision that is installed and that this CPU has, the best reference first."""
    from model.engines import EngineUnavailable, open_engine  # noqa: PLC0415 - imported after the process is pinned

    engines = {}
    for name, precision in CANDIDATES:
        try:
            engines[f"{name} {precision}"] = open_engine(artefact, name, precision=precision)
        except EngineUnavailable as exc:
            print(f"left out: {exc}", file=sys.stderr)
    return engines


def chosen(artefact: Artefact) -> str:
    """Return the engine and precision that a worker chooses here by default."""
    from model.engines import open_engine  # noqa: PLC0415 - as above

    engine = open_engine(artefact)
    return f"{engine.name} {engine.precision}"


def face_crops(engines: "dict[str, Engine]", folder: Path, limit: int) -> "NDArray[np.uint8]":
    """Return the crops of every face in the folder's photos, uint8 (N, S, S, 3), as the worker cuts them."""
    import numpy as np  # noqa: PLC0415 - as above

    from model.imaging import decode  # noqa: PLC0415 - as above

    engine = next(engine for name, engine in reversed(engines.items()) if not name.startswith("torch"))
    paths = photos.paths(folder)[:limit]
    images = [decode(path.read_bytes()) for path in paths]
    crops = [engine.cropper.crop(image, face) for image in images for face in engine.detect(image)]
    if not crops:
        raise SystemExit(f"there are no faces in the photos of {folder}")
    return np.stack(crops)


def fidelity(engines: "dict[str, Engine]", crops: "NDArray[np.uint8]", threshold: float) -> dict[str, Any]:
    """Compare each engine's embeddings, and its decision on every pair, with the first engine's."""
    import numpy as np  # noqa: PLC0415 - as above

    steps = range(0, len(crops), BATCHES[-1])
    embedded = {
        name: np.concatenate([engine.embed(crops[first : first + BATCHES[-1]]).vectors for first in steps])
        for name, engine in engines.items()
    }
    reference, *others = embedded
    known = embedded[reference]
    decisions = np.triu(known @ known.T >= threshold, k=1)
    cosines = {name: (embedded[name] * known).sum(axis=1) for name in others}
    return {
        "reference": reference,
        "cos_min": {name: round(float(values.min()), 6) for name, values in cosines.items()},
        "cos_p1": {name: round(float(np.percentile(values, 1)), 6) for name, values in cosines.items()},
        "faces_below": {name: int((values < MIN_COSINE).sum()) for name, values in cosines.items()},
        "pairs": len(crops) * (len(crops) - 1) // 2,
        "pairs_matching": int(decisions.sum()),
        "decisions_differing": {
            name: int((np.triu(embedded[name] @ embedded[name].T >= threshold, k=1) != decisions).sum())
            for name in others
        },
    }


def speed(
    engines: "dict[str, Engine]",
    crops: "NDArray[np.uint8]",
    rounds: int,
    arithmetic: float,
    peaks: dict[str, float],
) -> dict[str, Any]:
    """Time each engine at each size of batch."""
    import numpy as np  # noqa: PLC0415 - as above

    ms: dict[str, dict[str, float]] = {name: {} for name in engines}
    share: dict[str, dict[str, float]] = {name: {} for name in engines}
    for batch in BATCHES:
        some = np.resize(crops, (batch, *crops.shape[1:]))
        calls: dict[str, Callable[[], object]] = {name: partial(engine.embed, some) for name, engine in engines.items()}
        for name, seconds in interleaved(calls, rounds).items():
            each = median_ms(seconds, batch)
            ms[name][str(batch)] = round(each, 2)
            peak = peaks[engines[name].precision]
            share[name][str(batch)] = round(arithmetic / (each / 1000) / peak, 3)
            print(f"batch {batch}: {name} {each:.2f} ms a crop", file=sys.stderr)
    return {"ms": ms, "share_of_peak": share}


if __name__ == "__main__":
    main()
