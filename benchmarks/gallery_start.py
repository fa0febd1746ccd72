"""Time from a new worker's start to its first answer over a large gallery, with its published snapshot and without.

    python -m benchmarks.gallery_start                                 # 10⁶ templates of the pack open: 128 numbers
    python -m benchmarks.gallery_start --pack accurate --rounds 1      # 512 numbers

The snapshot is published by the code of `facerec gallery snapshot`, of synthetic templates. Of the table it needs only
the version, which is put there directly: the emulator would take hours for a million items. The people of the examples
are enrolled after it by the ordinary command, so a worker reads the snapshot and then these changes. Each turn starts a
worker as on a new instance, with an empty cache folder. A request waits in the queue; `answer_s` is from the start of
the process to the result, `right` says whether the name is. `answer_cpu_s` is the CPU time of the worker and its engine
until then, `load` the machine's load average: far above the number of cores, the times on the clock say little.

Without the snapshot the worker would read the table. The emulator scans a whole partition for each page, so that time
says nothing about AWS. `table_cpu_s` is extrapolated from the CPU time of a reader of `--sample` templates, and
`table_aws_s` is computed: 0.6 read units for each 2.4 kB, at the 3 000 units a second of one partition.
The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backlog import Backlog
from benchmarks.measure import add_pack_option, pack_artefact
from benchmarks.roundtrip import workload
from facerec import bootstrap
from facerec.aws.dynamodb.template_items import template_fields
from facerec.gallery.opening import published_snapshots
from facerec.gallery.snapshots import SavedGallery
from facerec.ports import Template
from facerec.settings import Settings
from model.artefact import Artefact
from model.index.snapshot import Spool
from model.matching import Columns, GalleryIndex
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, cpu_seconds, facerec

_PIECE = 8192
_LONGEST_SECONDS = 600
_COLLECTION = "default"
_UNITS_PER_SECOND, _UNIT_BYTES, _OTHER_BYTES = 3000, 4096, 350


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--templates", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="workers started; the median is reported")
    parser.add_argument("--sample", type=int, default=1000, help="templates of which the table's reading is measured")
    add_pack_option(parser)
    options = parser.parse_args()
    artefact = pack_artefact(options.pack)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facerec-gallery-start-")))
        people, photos = workload(CHECKOUT / "examples", folder / "people")
        environ = {
            "FACEREC_REPLY_STYLE": "name",
            "FACEREC_MODEL__DIR": str(artefact.directory),
            "FACEREC_MODEL__LICENCE": "research",
            "FACEREC_WORKER__ENGINES": "1",
        }
        system = stack.enter_context(LocalSystem(folder / "state", workers=0, environ=environ))
        os.environ.update({k: v for k, v in system.environ.items() if k.startswith(("AWS_", "FACEREC_"))})
        settings = Settings.load()
        figures: dict[str, Any] = {"templates": options.templates, "dimension": artefact.dimension}
        figures |= _publish(settings, artefact, options.templates, folder)
        say(json.dumps(figures))
        system.run("enrol", "--folder", str(people))
        backlog = Backlog(settings, [photo for photo in photos if photo.answer], f"{settings.response_queue}-bench")
        turns = []
        for number in range(options.rounds):
            turns.append(_start(system, backlog, folder / f"cache{number}"))
            say(json.dumps(turns[-1]))
        figures |= {name: round(statistics.median(turn[name] for turn in turns), 2) for name in turns[0]}
        figures |= _renew(system)
        figures |= _table(settings, artefact, options.templates, options.sample)
    print(json.dumps(figures))


def _publish(settings: Settings, artefact: Artefact, count: int, folder: Path) -> dict[str, Any]:
    """Put the version of a large collection into the table, and publish its snapshot."""
    version = time.time_ns() // 1_000_000
    client = bootstrap.clients(settings).dynamodb
    for collection, item, name, value in (
        (_COLLECTION, "#version", "version", version),
        ("#collections", _COLLECTION, "templates", count),
    ):
        key = {"collection": {"S": collection}, "item": {"S": item}}
        client.put_item(TableName=settings.templates_table, Item={**key, name: {"N": str(value)}})
    say("making the templates")
    index = GalleryIndex.of_pieces(_pieces(count, artefact.dimension), Spool(folder).put_aside)
    objects = bootstrap.object_store(settings)
    snapshots = published_snapshots(settings, objects, artefact.model_id)
    say("publishing")
    began = time.perf_counter()
    found = snapshots.publish(_COLLECTION, SavedGallery(index, version, {}), bootstrap.template_store(settings))
    if found is None:
        raise RuntimeError("the snapshot was not published")
    seconds = time.perf_counter() - began
    size = objects.describe(settings.gallery_bucket, found.key).size
    return {"publish_s": round(seconds, 1), "snapshot_mb": round(size / 1e6, 1)}


def _pieces(count: int, dimension: int) -> Iterator[Columns]:
    """Random directions, two of each person."""
    for start in range(0, count, _PIECE):
        numbers = range(start, min(start + _PIECE, count))
        random = np.random.default_rng(start)
        rows = random.standard_normal((len(numbers), dimension), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        ids = [random.bytes(16).hex() for _ in numbers]
        yield rows, [f"Person {number // 2}" for number in numbers], ids


def _start(system: LocalSystem, backlog: Backlog, cache: Path) -> dict[str, float]:
    """Start a worker with an empty cache folder on one waiting request."""
    backlog.fill(1)
    log = system.state / "bench-worker.log"
    seen = log.stat().st_size if log.exists() else 0
    began = time.perf_counter()
    with system.worker({"FACEREC_MODEL__CACHE_DIR": str(cache), "FACEREC_LOG__FORMAT": "json"}) as worker:
        ready = 0.0
        came = wrong = 0
        while not came:
            came, wrong = backlog.collect()
            if time.perf_counter() - began > _LONGEST_SECONDS:
                raise RuntimeError(f"no answer; see {log}")
        answered = time.perf_counter() - began
        peak, spent = _peak_mb(worker), cpu_seconds(worker)
    for line in log.read_bytes()[seen:].splitlines():
        record = json.loads(line) if line.startswith(b"{") else {}
        if record.get("event") == "gallery_snapshot_loaded":
            say(json.dumps(record))
            ready = record["seconds"]
    return {
        "load_s": ready,
        "answer_s": round(answered, 2),
        "answer_cpu_s": round(spent, 2),
        "load": round(os.getloadavg()[0], 1),
        "right": float(not wrong),
        "peak_mb": peak,
    }


def _renew(system: LocalSystem) -> dict[str, float]:
    """The command that reads the published snapshot and the changes, and publishes the next one."""
    began = time.perf_counter()
    child = subprocess.Popen(facerec("gallery", "snapshot"), cwd=CHECKOUT, env=system.environ)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError("the snapshot could not be renewed")
    return {"renew_s": round(time.perf_counter() - began, 1), "renew_peak_mb": round(usage.ru_maxrss / 1000, 1)}


def _table(settings: Settings, artefact: Artefact, count: int, sample: int) -> dict[str, float]:
    """What reading the table would cost."""
    store, client = bootstrap.template_store(settings), bootstrap.clients(settings).dynamodb
    rows, names, ids = next(_pieces(sample, artefact.dimension))
    for row, name, template_id in zip(rows, names, ids, strict=False):
        template = Template(
            template_id=template_id,
            collection="sample",
            identity=name,
            model_id=artefact.model_id,
            embedding=row.astype(np.float32),
            source="photo.jpg",
            photo=None,
            probability=0.99,
            enrolled_at=datetime.now(UTC),
        )
        key = {"collection": {"S": "sample"}, "item": {"S": f"template#{template_id}"}}
        client.put_item(TableName=settings.templates_table, Item=key | template_fields(template))
    began = time.process_time()
    read = sum(1 for _ in store.templates("sample"))
    cpu = time.process_time() - began
    units = count * (artefact.dimension * 4 + _OTHER_BYTES) / _UNIT_BYTES
    return {"table_cpu_s": round(cpu / read * count, 1), "table_aws_s": round(units / _UNITS_PER_SECOND, 1)}


def _peak_mb(process: int) -> float:
    """The most memory that a process has held."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000, 1)


def say(line: str) -> None:
    """Print the progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
