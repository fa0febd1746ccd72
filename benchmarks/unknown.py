"""How well unknown people are told apart: visitors in random order, one folder for each, with an empty gallery.

    flock /tmp/heavy.lock python -m benchmarks.unknown ../shared/data/people/known

Each photo is a sight, a minute after the one before; its primary face counts. The figures for each threshold are the
ids founded, those that mix people (impure), people with several ids (split) and sights without an id, as means over the
orders; `default` is the model's threshold for the number of ids. The last line is one JSON object.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import UUID

import numpy as np

from facerec.app_tier.unknown_faces import UnknownFaces
from facerec.comparison import Comparison, ModelThresholds, result_face
from facerec.engine.loading import analyser, load_artefact, open_engine
from facerec.gallery.cache import GalleryCache
from facerec.gallery.unknown_people import live_record
from facerec.message_base import ObjectRef
from facerec.messages import RecognitionRequest
from facerec.settings import Settings
from facerec.settings.tiers import UnknownSettings
from model.artefact import Artefact
from model.faces import EmbeddedFace
from tests.fakes.templates import InMemoryTemplateStore
from tests.fakes.unknown_people import InMemoryUnknownPeople
from tests.support.measurements.photos import paths

Sight = tuple[str, EmbeddedFace]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--similarity", type=float, nargs="*", default=[])
    options = parser.parse_args()
    settings = Settings.load()
    artefact = load_artefact(settings)
    analyse = analyser(settings, open_engine(settings, artefact))
    sights = [
        (path.parent.name, faces[0]) for path in paths(options.folder) if (faces := analyse(path.read_bytes()).faces)
    ]
    result: dict[str, Any] = {
        "model": artefact.model_id,
        "people": len({person for person, _ in sights}),
        "sights": len(sights),
    }
    for similarity in (None, *options.similarity):
        runs = [visited(sights, artefact, similarity, seed) for seed in range(options.orders)]
        means = {name: round(float(np.mean([run[name] for run in runs])), 3) for name in runs[0]}
        result["default" if similarity is None else str(similarity)] = means
        print(f"{similarity or 'default'}: {means}", file=sys.stderr)
    print(json.dumps(result))


def visited(sights: Sequence[Sight], artefact: Artefact, similarity: float | None, seed: int) -> dict[str, float]:
    """Let the visitors come in a random order, and count."""
    now = BEGIN
    templates, records = InMemoryTemplateStore(), InMemoryUnknownPeople()
    unknown = UnknownFaces(
        settings=UnknownSettings(collections=("*",), similarity=similarity),
        gallery=GalleryCache(templates, artefact.model_id, 5, dimension=artefact.dimension),
        templates=templates,
        records=records,
        thresholds=ModelThresholds(artefact.tail, artefact.threshold, 0.01),
        model_id=artefact.model_id,
        now=lambda: now,
    )
    given: list[tuple[str, str]] = []
    without = 0
    began = perf_counter()
    for place in np.random.default_rng(seed).permutation(len(sights)):
        person, face = sights[place]
        now += timedelta(minutes=1)
        request = RecognitionRequest(
            request_id=UUID(int=int(place)),
            input=ObjectRef(bucket="in", key="photo", size=1),
            filename="photo.jpg",
            submitted_at=now,
        )
        (shown,) = unknown.seen(request, [face], Comparison((result_face(face),))).faces
        if shown.unknown is None:
            without += 1
        else:
            given.append((person, shown.unknown.unknown_id))
    seconds = perf_counter() - began
    ids, people = defaultdict(set), defaultdict(set)
    for person, first in given:
        record = live_record(records, "default", first, now)
        final = record.unknown_id if record else first
        ids[final].add(person)
        people[person].add(final)
    return {
        "ids": len(ids),
        "ids_per_person": len(ids) / len(people),
        "impure_ids": sum(len(names) > 1 for names in ids.values()),
        "split_people": sum(len(own) > 1 for own in people.values()),
        "without_id": without,
        "ms_per_sight": seconds / len(sights) * 1e3,
    }


if __name__ == "__main__":
    main()
