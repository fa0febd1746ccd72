"""A change of the model of a large gallery under a stream of uploads: facerec model migrate, switch, switch --back.

    python -m benchmarks.migration --templates 10000 --to .cache/packs/accurate
    python -m benchmarks.migration --templates 2000 --people DIR --window 16   # DIR has a folder for each person

The real local system runs with one worker. The templates are of copies of the people's photos, each a file of its own,
and are written to the stores directly. Clients upload the samples one after the other all the time. The last line is
one JSON object:

- `uploads` are the answered ones, `failed` those without status 200, `wrong` those with another answer than expected;
- `embedded_per_s` is the rate of `migrate`, and `migrate_s`, `switch_s` and `back_s` are the times of the commands;
- `upload_ms` has the median and the 99th percentile of the uploads before, during `migrate`, and during the switches;
- `worker_mb` is the memory (PSS) of the worker with its engines: before, while embedding, and at the most;
- `agreement` is that of the comparison, and `not_done` counts templates that the new model could not use.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from benchmarks.roundtrip import OK, Photo, await_enrolment, workload
from facerec import bootstrap
from facerec.engine.loading import analyser, load_artefact, open_engine
from facerec.gallery.enrolment import store_template, template_id
from facerec.gallery.removal import photo_key
from facerec.message_base import ObjectRef
from facerec.ports import Template
from facerec.settings import Settings
from tests.support.load import percentile
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, descendants

_WRITERS = 8
_SAMPLE_SECONDS = 0.5


class Uploads:
    """Clients that upload one photo after the other, by phase."""

    def __init__(self, url: str, photos: Sequence[Photo], clients: int) -> None:
        self._url, self._photos, self._clients = url, photos, clients
        self._bodies = {photo.path: photo.path.read_bytes() for photo in photos}
        self._stopped = threading.Event()
        self.phase = "before"
        self.milliseconds: dict[str, list[float]] = {}
        self.failed = self.wrong = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Upload within the block."""
        with ThreadPoolExecutor(self._clients) as pool:
            futures = [pool.submit(self._upload) for _ in range(self._clients)]
            try:
                yield
            finally:
                self._stopped.set()
        for future in futures:
            future.result()

    def _upload(self) -> None:
        with httpx.Client(base_url=self._url, trust_env=False, timeout=120) as client:
            while not self._stopped.is_set():
                for photo in self._photos:
                    began, phase = time.perf_counter(), self.phase
                    try:
                        reply = client.post("/", files={"inputFile": (photo.path.name, self._bodies[photo.path])})
                    except httpx.HTTPError as exc:
                        print(f"failed in {phase}: {exc!r}", file=sys.stderr)
                        self.failed += 1
                        continue
                    self.milliseconds.setdefault(phase, []).append((time.perf_counter() - began) * 1000)
                    if reply.status_code != OK:
                        print(f"failed in {phase}: {reply.status_code} {reply.text}", file=sys.stderr)
                        self.failed += 1
                    elif reply.text.strip() != f"{photo.path.stem}:{photo.answer}":
                        print(f"wrong in {phase}: {reply.text.strip()}, not {photo.answer}", file=sys.stderr)
                        self.wrong += 1


class WorkerMemory:
    """Samples the memory (PSS) of the worker and its engines, in MB."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.most = 0.0

    def now(self) -> float:
        """What all of them take together."""
        total = 0
        for pid in [self._pid, *descendants(self._pid)]:
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:  # it has just ended
                continue
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return round(total / 1024, 1)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample within the block."""
        stopped = threading.Event()

        def sample() -> None:
            while not stopped.wait(_SAMPLE_SECONDS):
                self.most = max(self.most, self.now())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=int, default=10_000, help="templates (default: %(default)s)")
    parser.add_argument("--people", type=Path, help="folder with a folder for each person (default: the examples)")
    parser.add_argument("--to", type=Path, default=CHECKOUT / ".cache" / "packs" / "accurate", help="the new model")
    parser.add_argument("--window", type=int, default=16, help="--window of migrate (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=2, help="clients that upload (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facerec-migration-") as folder:
        people, photos = workload(CHECKOUT / "examples", Path(folder) / "people")
        environ = {
            "FACEREC_REPLY_STYLE": "name",
            "FACEREC_MODEL__LICENCE": "research",
            "FACEREC_MODEL__CACHE_DIR": str(Path(folder) / "cache"),
        }
        with LocalSystem(Path(folder) / "state", workers=1, environ=environ) as system:
            system.run("enrol", "--folder", str(people))
            began = time.monotonic()
            count = write_templates(system.environ, [people, *([options.people] if options.people else [])], options)
            print(f"{count} templates written in {time.monotonic() - began:.0f} s", file=sys.stderr)
            await_enrolment(system, photos)
            summary = measure(system, photos, options)
    print(json.dumps(summary, allow_nan=False))
    sys.exit(1 if summary["failed"] or summary["wrong"] else 0)


def write_templates(environ: Mapping[str, str], folders: Sequence[Path], options: Any) -> int:
    """Write so many templates of copies of the photos, embedded once for each photo; returns how many."""
    os.environ.update({name: value for name, value in environ.items() if name.startswith(("AWS_", "FACEREC_"))})
    settings = Settings.load()
    artefact = load_artefact(settings)
    analyse = analyser(settings, open_engine(settings, artefact))
    templates, objects = bootstrap.template_store(settings), bootstrap.object_store(settings)
    sources = []
    for path in sorted(path for folder in folders for path in folder.glob("*/*") if path.suffix.lower() == ".jpg"):
        body = path.read_bytes()
        faces = analyse(body).faces
        if len(faces) == 1:
            sources.append((path, body, faces[0]))

    def copies() -> Iterator[tuple[Template, bytes]]:
        number = 0
        while True:
            for path, body, face in sources:
                number += 1
                photo = body + f"\n# copy {number}".encode()  # behind the end of the picture
                identifier = template_id("default", artefact.model_id, photo)
                key = photo_key("default", identifier, f"{number}.jpg")
                template = Template(
                    template_id=identifier,
                    collection="default",
                    identity=path.parent.name,
                    model_id=artefact.model_id,
                    embedding=face.embedding,
                    source=f"{number}.jpg",
                    photo=ObjectRef(bucket=settings.gallery_bucket, key=key, size=len(photo)),
                    probability=face.probability,
                    enrolled_at=datetime.now(UTC),
                )
                yield template, photo

    def write(made: tuple[Template, bytes]) -> None:
        store_template(templates, objects, *made)

    with ThreadPoolExecutor(_WRITERS) as pool:
        return sum(1 for _ in pool.map(write, islice(copies(), options.templates)))


def measure(system: LocalSystem, photos: Sequence[Photo], options: Any) -> dict[str, Any]:
    """Migrate, switch and return under load."""
    [worker] = system.processes("celery -A facerec worker")
    memory, uploads = WorkerMemory(worker), Uploads(system.url, photos, options.clients)
    seconds: dict[str, float] = {}

    def run(phase: str, *arguments: str) -> str:
        uploads.phase = phase
        began = time.monotonic()
        done = system.run("model", *arguments, check=False)
        seconds[phase] = round(time.monotonic() - began, 1)
        print(f"{phase}: {seconds[phase]} s, status {done.returncode} {done.stderr[-500:]}", file=sys.stderr)
        return done.stdout

    with uploads.running(), memory.watched():
        time.sleep(10)
        before = memory.now()
        report = json.loads(
            run("migrate", "migrate", "--model-dir", str(options.to), "--window", str(options.window), "--json")
        )
        embedding = memory.now()
        run("switch", "switch", "--window", str(options.window))
        run("back", "switch", "--back", "--window", str(options.window))
    (comparison,) = report["comparisons"]
    counts = report["counts"]
    return {
        "templates": options.templates,
        "counts": counts,
        "not_done": len(report["not_done"]),
        "agreement": comparison["agreement"],
        "uploads": sum(map(len, uploads.milliseconds.values())),
        "failed": uploads.failed,
        "wrong": uploads.wrong,
        "embedded_per_s": round(sum(counts.values()) / seconds["migrate"], 1),
        "migrate_s": seconds["migrate"],
        "switch_s": seconds["switch"],
        "back_s": seconds["back"],
        "upload_ms": {
            phase: {"median": round(statistics.median(times), 1), "p99": round(percentile(times, 99), 1)}
            for phase, times in uploads.milliseconds.items()
        },
        "worker_mb": {"before": before, "embedding": embedding, "most": memory.most},
    }


if __name__ == "__main__":
    main()
