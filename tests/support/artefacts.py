"""Small artefacts for tests that need a directory of the right form and no network in it."""

import hashlib
import json
from pathlib import Path
from typing import Any

from model.artefact import GRAPHS, HEADER, SCHEMA, Artefact
from model.packs.catalogue import CASIA, description


def write_artefact(directory: Path, *, seed: str = "one", **changes: Any) -> Artefact:
    """Write an artefact whose graphs are a few bytes that depend on the seed; `changes` replace parts of the header."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in GRAPHS:
        (directory / name).write_bytes(f"{name} {seed}".encode() * 10)
    header = {
        "schema": SCHEMA,
        "model_id": f"facenet-160-{hashlib.sha256(seed.encode()).hexdigest()[:16]}",
        "weights": {"name": CASIA, "source": "a test", "sha256": "0" * 64, "licence": "none"},
        **description(CASIA),
        "check": {"engine": "a test", "least_cosine": 1.0},
        "files": {
            name: {
                "size_bytes": (directory / name).stat().st_size,
                "sha256": hashlib.sha256((directory / name).read_bytes()).hexdigest(),
            }
            for name in GRAPHS
        },
        "created_at": "2026-01-01T00:00:00+00:00",
        "builder": {"version": 1, "inputs_sha256": "0" * 64},
    }
    (directory / HEADER).write_text(json.dumps(header | changes), encoding="utf-8")
    return Artefact.load(directory)
