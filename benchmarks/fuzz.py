"""Damaged pictures through the engine's process: it must not crash, hang or grow.

    python -m benchmarks.fuzz --inputs 20000

Seeded mutations of real photos in every supported format go to an engine child as a worker runs it, under a deadline.
Most go through decoding and detection only, `--embedded` of them through the embedder too. The last line is one JSON
object: counts by outcome, and the child's memory in MB (start is after the first tenth of the inputs, when every
code path has been taken and every buffer made; `rss_mb` is its course from there on). A picture that ends its child
is kept in `--keep` and the exit status is 1.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.mutations import mutated, seeds
from facerec.engine.process import EngineDied, EngineProcess, EngineStumbled
from facerec.engine.protocol import REAL_ANALYSER, EngineSpec
from model.artefact import Artefact
from model.engines import Engine, open_engine
from model.faces import EmbeddedFace, ImageAnalysis
from model.header import InvalidImage
from model.imaging import decode

ROOT = Path(__file__).resolve().parents[1]
DETECTION_ONLY = "benchmarks.fuzz:open_detection_only"
BATCH = 8
LOAD_SECONDS = 120
CURVE = 10  # points of the memory's course
MEGABYTE = 1 << 20
NO_EMBEDDING = np.zeros(0, dtype=np.float32)


class DetectionOnly:
    """An `Analyser` that leaves the embedder out."""

    def __init__(self, engine: Engine, max_megapixels: float) -> None:
        self.name = engine.name
        self.precision = engine.precision
        self.model_id = engine.model_id
        self._engine = engine
        self._max_megapixels = max_megapixels

    def prepare(self) -> Iterator[None]:
        """The engine's steps."""
        return self._engine.prepare()

    def analyse_batch(self, images: Sequence[bytes]) -> list[ImageAnalysis | InvalidImage]:
        """One answer per image; faces without embeddings."""
        return [self._analyse(image) for image in images]

    def _analyse(self, data: bytes) -> ImageAnalysis | InvalidImage:
        try:
            pixels = decode(data, self._max_megapixels)
        except InvalidImage as exc:
            return exc
        faces = tuple(
            EmbeddedFace(face.box, face.probability, face.landmarks, NO_EMBEDDING)
            for face in self._engine.detect(pixels)
        )
        return ImageAnalysis(pixels.shape[1], pixels.shape[0], faces, {})


def open_detection_only(spec: EngineSpec) -> DetectionOnly:
    """The factory that the child calls."""
    return DetectionOnly(open_engine(Artefact.load(spec.artefact_dir), spec.engine), spec.max_megapixels)


class Child:
    """An engine child that is replaced when a picture ends it, and what became of the pictures."""

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
        except (EngineDied, EngineStumbled) as exc:
            if isinstance(exc, EngineDied):
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

    def _note_culprit(self, image: bytes, exc: Exception) -> None:
        outcome = "raised" if isinstance(exc, EngineStumbled) else "hung" if "exceeded" in str(exc) else "crashed"
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
        settled = self.memory_mb[len(self.memory_mb) // 10 :]
        tenth = max(1, len(settled) // 10)
        slope = np.polyfit(range(len(settled)), settled, 1)[0] if len(settled) > 1 else 0.0
        return {
            "inputs": sum(self.counts.values()),
            **{name: self.counts[name] for name in ("faces", "no_face", "refused", "raised", "crashed", "hung")},
            "rss_start_mb": round(float(np.median(settled[:tenth])), 1),
            "rss_end_mb": round(float(np.median(settled[-tenth:])), 1),
            "rss_mb_per_1000": round(float(slope) * 1000 / BATCH, 3),
            "rss_mb": [round(float(np.median(part)), 1) for part in np.array_split(settled, CURVE) if part.size],
            "rss_peak_mb": round(peak, 1),
        }


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--embedded", type=float, default=0.05, help="share that goes through the embedder too")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit-seconds", type=float, default=60, help="deadline of a batch")
    parser.add_argument("--max-megapixels", type=float, default=50)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--images", type=Path, default=ROOT / "examples")
    parser.add_argument("--model", type=Path, default=ROOT / ".cache" / "model")
    parser.add_argument("--keep", type=Path, help="folder for pictures that end a child; default a temporary one")
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="facerec-fuzz-"))
    keep.mkdir(parents=True, exist_ok=True)
    figures = run(options, keep)
    if options.keep is None and not any(keep.iterdir()):
        keep.rmdir()
    print(json.dumps(figures))
    sys.exit(1 if figures["crashed"] or figures["hung"] or figures["raised"] else 0)


def run(options: argparse.Namespace, keep: Path) -> dict[str, Any]:
    """Feed all the inputs and return the figures."""
    pool, rng = seeds(options.images), random.Random(options.seed)  # noqa: S311 - repeatable, not secret
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="facerec-fuzz-cache-") as cache:
        detection, whole = (
            Child(
                EngineSpec(options.model, options.engine, options.max_megapixels, Path(cache), factory=factory),
                options.limit_seconds,
                keep,
            )
            for factory in (DETECTION_ONLY, REAL_ANALYSER)
        )
        for first in range(0, options.inputs, BATCH):
            images = [mutated(rng, pool) for _ in range(min(BATCH, options.inputs - first))]
            (whole if rng.random() < options.embedded else detection).feed(images)
            if first % 1000 < BATCH:
                print(f"{first} inputs, {time.monotonic() - started:.0f} s", file=sys.stderr)
        parts = {"detection": detection.close(), "whole": whole.close()}
    return {
        **{
            name: sum(int(part[name]) for part in parts.values())
            for name in ("inputs", "faces", "no_face", "refused", "raised", "crashed", "hung")
        },
        "seconds": round(time.monotonic() - started, 1),
        **parts,
    }


if __name__ == "__main__":
    main()
