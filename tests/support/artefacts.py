"""Small artefacts for tests that need the directory of an artefact, but no real networks."""

import hashlib
import json
from pathlib import Path
from typing import Any

from model.artefact import DETECTORS, EMBEDDER, HEADER, SCHEMA, Artefact
from model.packs.catalogue import CASIA, PACKS


def write_artefact(directory: Path, *, pack: str = "classic", seed: str = "one", **changes: Any) -> Artefact:
    """Write an artefact whose graphs are a few bytes that depend on the seed; `changes` replace parts of the header."""
    directory.mkdir(parents=True, exist_ok=True)
    source = PACKS[pack]
    graphs = (*DETECTORS[source.detector.kind], EMBEDDER)
    for name in graphs:
        (directory / name).write_bytes(f"{name} {seed}".encode() * 10)
    description = source.description()
    description["impostor_tail"]["calibrated"] = True
    header = {
        "schema": SCHEMA,
        "model_id": f"{pack}-{source.embedder.dimension}-{hashlib.sha256(seed.encode()).hexdigest()[:16]}",
        **description,
        "weights": {
            "name": CASIA if pack == "classic" else pack,
            "source": "a test",
            "sha256": "0" * 64,
            "licence": "none",
        },
        "check": {"engine": "a test", "least_cosine": 1.0},
        "files": {
            name: {
                "size_bytes": (directory / name).stat().st_size,
                "sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest(),
            }
            for name in graphs
        },
        "created_at": "2026-01-01T00:00:00+00:00",
        "builder": {"version": 1, "inputs_sha256": "0" * 64},
    }
    (directory / HEADER).write_text(json.dumps(header | changes), encoding="utf-8")
    return Artefact.load(directory)
