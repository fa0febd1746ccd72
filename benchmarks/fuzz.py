"""Damaged pictures through the engine's process: it must not crash, hang or grow.

    python -m benchmarks.fuzz --pack open --inputs 20000

An engine child, as a worker runs it, gets seeded mutations of real photos in every supported format, under a deadline.
They come in batches of 1 to 8, which are decoded, detected and cropped together. A share of `--embedded` also goes
through the embedder. Pictures without a face (`tests.support.faceless`) come first; `faces_false` counts those in which
a face was found.

The last line is one JSON object: counts by outcome, and the child's memory in MB (`rss_mb`), beginning after the first
quarter of the inputs, when all cached kernels exist. `--keep` keeps each picture that ends its child. The exit status
is 1 if a picture ended a child, a child grew by more than `--growth-mb`, or `faces_false` is not 0.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import add_pack_option, machine, pack_artefact
from facerec.engine.child import DETECTOR, REAL_ANALYSER, EngineSpec
from facerec.engine.process import BatchFault, EngineProcess, FaultCause
from model.header import InvalidImage
from tests.support.faceless import seeded
from tests.support.mutations import mutated, seeds
from tests.support.processes import CHECKOUT

BATCHES = (1, 2, 8, 8)  # pictures at a time
GROWTH_MB = 48.0  # normal variation with the pictures' sizes; a leak of 3 kB a picture exceeds it
LOAD_SECONDS = 120
CURVE = 10  # points of the memory curve
MEGABYTE = 1 << 20


class Child:
    """An engine child that is replaced when a picture ends it, and the counts by outcome."""

    def __init__(self, spec: EngineSpec, limit_seconds: float, keep: Path) -> None:
        self.counts: Counter[str] = Counter()
        self.memory_mb: list[float] = []
        self._spec = spec
        self._limit_seconds = limit_seconds
        self._keep = keep
        self._process = self._start()

    def _start(self) -> EngineProcess:
        process = EngineProcess(self._spec, on_exit=lambda: None)
        process.load(LOAD_SECONDS)
        return process

    def feed(self, images: list[bytes]) -> None:
        """Have pictures analysed; when the batch fails, each again alone."""
        try:
            answers = self._process.analyse(images, self._limit_seconds)
        except BatchFault as exc:
            if exc.cause is not FaultCause.RAISED:
                self._process.close()
                self._process = self._start()
            if len(images) > 1:
                for image in images:
                    self.feed([image])
            else:
                self._note_culprit(images[0], exc)
            return
        for answer in answers:
            self.counts["refused" if isinstance(answer, InvalidImage) else "faces" if answer.faces else "no_face"] += 1
        self.memory_mb.append(self._memory("VmRSS"))

    def _note_culprit(self, image: bytes, exc: BatchFault) -> None:
        outcome = "hung" if exc.cause is FaultCause.OVERRAN else str(exc.cause)
        self.counts[outcome] += 1
        path = self._keep / f"{outcome}_{sum(self.counts.values())}"
        path.write_bytes(image)
        print(f"the engine {exc}: {path}", file=sys.stderr)

    def _memory(self, field: str) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024 / MEGABYTE

    def close(self) -> dict[str, Any]:
        """End the child and return what happened."""
        peak = self._memory("VmHWM")
        self._process.close()
        settled = self.memory_mb[len(self.memory_mb) // 4 :]
        tenth = max(1, len(settled) // 10)
        start, end = float(np.median(settled[:tenth])), float(np.median(settled[-tenth:]))
        return {
            "inputs": sum(self.counts.values()),
            **{name: self.counts[name] for name in ("faces", "no_face", "refused", "raised", "crashed", "hung")},
            "rss_start_mb": round(start, 1),
            "rss_end_mb": round(end, 1),
            "growth_mb": round(end - start, 1),
            "rss_mb": [round(float(np.median(part)), 1) for part in np.array_split(settled, CURVE) if part.size],
            "rss_peak_mb": round(peak, 1),
        }


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pack_option(parser)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument(
        "--embedded", type=float, default=0.05, help="share of pictures that also go through the embedder"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-seconds", type=float, default=60, help="deadline of a batch")
    parser.add_argument("--max-megapixels", type=float, default=50)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--faceless-seeds", type=int, default=8, help="sets of pictures without a face")
    parser.add_argument("--growth-mb", type=float, default=GROWTH_MB, help="most growth of a child")
    parser.add_argument("--keep", type=Path, help="folder for pictures that end a child; default a temporary one")
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="facerec-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    figures = run(options, keep)
    if options.keep is None and not any(keep.iterdir()):
        keep.rmdir()
    print(json.dumps(figures))
    sys.exit(1 if any(figures[fault] for fault in ("crashed", "hung", "raised", "grown", "faces_false")) else 0)


def run(options: argparse.Namespace, keep: Path) -> dict[str, Any]:
    """Feed all the inputs and return the figures."""
    pool, rng = seeds(options.images), random.Random(options.seed)  # noqa: S311 - repeatable, not secret
    model = pack_artefact(options.pack).directory
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="facerec-fuzz-cache-") as cache:
        detection, whole = (
            Child(
                EngineSpec(model, options.engine, options.max_megapixels, Path(cache), factory=factory),
                options.limit_seconds,
                keep,
            )
            for factory in (DETECTOR, REAL_ANALYSER)
        )
        faceless = [data for _, data in seeded(options.faceless_seeds)]
        for first in range(0, len(faceless), BATCHES[-1]):
            detection.feed(faceless[first : first + BATCHES[-1]])
        false = detection.counts["faces"]
        fed = 0
        while fed < options.inputs:
            images = [mutated(rng, pool) for _ in range(min(rng.choice(BATCHES), options.inputs - fed))]
            (whole if rng.random() < options.embedded else detection).feed(images)
            if fed % 1000 < len(images):
                print(f"{fed} inputs, {time.monotonic() - started:.0f} s", file=sys.stderr)
            fed += len(images)
        parts = {"detection": detection.close(), "whole": whole.close()}
    return {
        "pack": options.pack,
        "faceless": len(faceless),
        "faces_false": false,
        **{
            name: sum(int(part[name]) for part in parts.values())
            for name in ("inputs", "faces", "no_face", "refused", "raised", "crashed", "hung")
        },
        "grown": [name for name, part in parts.items() if part["growth_mb"] > options.growth_mb],
        "seconds": round(time.monotonic() - started, 1),
        **parts,
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
