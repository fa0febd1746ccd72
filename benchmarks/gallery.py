"""Search, size and start of the gallery index, at ten thousand to a million templates.

The templates are synthetic, with the spreads of real faces: two of one person are 0.24 apart in cosine distance, two of
different people about 0.99, by chance. The queries are other pictures of enrolled people, and pictures of strangers.
The truth is float32 arithmetic over all templates. Its time in the same run, `numpy_ms`, is the reference, because the
machine is never quite idle.

Each size has its own processes, pinned to one core: one makes the gallery and its snapshot, another opens the snapshot
as a starting worker does, and searches. The last line is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

WITHIN = 0.24
"""Cosine distance between two pictures of one person (FaceNet, 160 px)."""
PICTURES = 2
"""Templates of one person."""
GENUINE, STRANGERS = 192, 64
"""Queries of people who are enrolled, and of others."""
CHUNK = 32_768
"""People made at a time."""
KEY = "benchmark"


def main() -> None:
    """Measure each size and print the figures."""
    parser = argparse.ArgumentParser(description="Measure the gallery index; one pinned thread, no photo is read.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="templates")
    parser.add_argument("--dimension", type=int, default=512, help="numbers in an embedding")
    parser.add_argument("--dir", type=Path, help="where to put the snapshots (2.6 kB a template); default a new one")
    parser.add_argument("--core", type=int, help="the core to run on; default the last one")
    parser.add_argument("--rounds", type=int, default=100, help="how often each search is timed")
    parser.add_argument("--step", choices=list(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(STEPS[options.step](options.sizes[0], options.dimension, options.dir, options.rounds)))
        return
    core = max(os.sched_getaffinity(0)) if options.core is None else options.core
    os.sched_setaffinity(0, {core})
    figures: dict[str, Any] = {"dimension": options.dimension, "core": core}
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        for size in options.sizes:
            steps: dict[str, Any] = {}
            for step_name in STEPS:
                say(f"{size} templates: {step_name}")
                steps |= run(step_name, size, options.dimension, directory, options.rounds)
            figures[str(size)] = steps
            say(json.dumps(steps))
    print(json.dumps(figures))


def run(step: str, size: int, dimension: int, directory: str, rounds: int) -> Any:
    """Run a step in a process of its own and return its figures."""
    command = [sys.executable, "-m", "benchmarks.gallery", "--step", step, "--sizes", str(size)]
    command += ["--dimension", str(dimension), "--dir", directory, "--rounds", str(rounds)]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(command, env=os.environ | threads, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def make(size: int, dimension: int, directory: Path, rounds: int) -> dict[str, Any]:
    """Enrol the templates chunk by chunk, search by plain arithmetic meanwhile, and write snapshot and truth."""
    import numpy as np  # noqa: PLC0415 - the parent process has no use for it

    from model.index.snapshot import write  # noqa: PLC0415 - as above
    from model.matching import GalleryIndex  # noqa: PLC0415 - as above

    random = np.random.default_rng(size)

    def unit(rows: Any) -> Any:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def pictures(people: Any) -> Any:
        noise = unit(random.standard_normal(people.shape, dtype=np.float32))
        return unit(np.float32((1 - WITHIN) ** 0.5) * people + np.float32(WITHIN**0.5) * noise)

    people = size // PICTURES
    wanted = np.sort(random.choice(people, min(GENUINE, people), replace=False))
    chunks = [np.random.default_rng([size, start]) for start in range(0, people, CHUNK)]
    lengths = [min(CHUNK, people - start) for start in range(0, people, CHUNK)]

    def centres(number: int) -> Any:
        seeded = np.random.default_rng([size, number])
        return unit(seeded.standard_normal((lengths[number], dimension), dtype=np.float32))

    queries = [
        pictures(centres(number)[wanted[wanted // CHUNK == number] % CHUNK])
        for number in range(len(chunks))
        if (wanted // CHUNK == number).any()
    ]
    strangers = unit(random.standard_normal((STRANGERS, dimension), dtype=np.float32))
    asked = np.concatenate([*queries, strangers]).astype(np.float32)

    index = GalleryIndex(np.empty((0, dimension), np.float32), [], [])
    best, truth = np.full(len(asked), -2, np.float32), [""] * len(asked)
    plain: dict[int, float] = {1: 0.0, 8: 0.0}
    adding = 0.0
    for number in range(len(chunks)):
        people_here = centres(number)
        for picture in range(PICTURES):
            rows = pictures(people_here)
            names = [f"person {number * CHUNK + i}" for i in range(len(rows))]
            template_ids = [f"{picture:08x}{number * CHUNK + i:024x}" for i in range(len(rows))]
            for batch in plain:
                times = [timed(plainly, asked[:batch], rows)[1] for _ in range(min(rounds, 3))]
                plain[batch] += median(times) / batch
            cosines = asked @ rows.T
            nearest = cosines.argmax(axis=1)
            for query, row in enumerate(nearest.tolist()):
                if cosines[query, row] > best[query]:
                    best[query], truth[query] = cosines[query, row], template_ids[row]
            adding += timed(index.add, rows, names, template_ids)[0]
    path = directory / f"{size}.idx"
    seconds, _ = timed(write, index, path, KEY, 1)
    np.savez(directory / f"{size}.npz", queries=asked, truth=np.array(truth))
    return {
        "enrol_s": round(adding, 2),
        "write_s": round(seconds, 2),
        "file_mb": round(path.stat().st_size / 1e6, 1),
        **{f"numpy_cpu_ms_batch{batch}": round(1e3 * cost, 3) for batch, cost in plain.items()},
    }


def start_cold(size: int, dimension: int, directory: Path, rounds: int) -> dict[str, Any]:
    """Open the snapshot as the first worker after a start of the machine does: from the disk."""
    import numpy as np  # noqa: PLC0415 - the parent process has no use for it

    from model.index.snapshot import open_snapshot  # noqa: PLC0415 - as above

    del rounds, dimension
    path = directory / f"{size}.idx"
    queries = np.load(directory / f"{size}.npz")["queries"]
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return {"ready_cold_s": round(timed(lambda: open_snapshot(path, KEY)[0].search(queries[:1]))[0], 2)}


def measure(size: int, dimension: int, directory: Path, rounds: int) -> dict[str, Any]:
    """Open the snapshot as the next worker does, from the page cache, search and change it."""
    import numpy as np  # noqa: PLC0415 - the parent process has no use for it

    from model.index.snapshot import open_snapshot  # noqa: PLC0415 - as above

    del dimension
    path = directory / f"{size}.idx"
    saved = np.load(directory / f"{size}.npz")
    queries, truth = saved["queries"], saved["truth"].tolist()
    with path.open("rb") as file:  # the step before has dropped it from the page cache
        while file.read(1 << 20):
            pass
    before = resident_mb()
    figures: dict[str, Any] = {}
    started = perf_counter()
    index, _ = open_snapshot(path, KEY)
    index.search(queries[:1])
    figures["ready_s"] = round(perf_counter() - started, 2)
    for limit in (1, 5):
        for batch in (1, 8):
            batches = [queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch)]
            times = [timed(index.search, some, limit) for some in batches[:rounds]]
            name = f"batch{batch}" + (f"_limit{limit}" if limit > 1 else "")
            figures[f"ms_{name}"] = round(1e3 * median(wall for wall, _ in times) / batch, 3)
            figures[f"cpu_ms_{name}"] = round(1e3 * median(cpu for _, cpu in times) / batch, 3)
    figures |= matching_figures(index, queries, rounds)
    found = [matches[0].template_id for matches in index.search(queries)]
    figures["recall_at_1"] = sum(map(str.__eq__, found, truth)) / len(truth)
    figures["mb"] = round(resident_mb() - before, 1)
    figures["mb_process"] = round(resident_mb(), 1)
    newcomers = queries[-rounds:]
    first, _ = timed(index.add, newcomers[:1], ["first newcomer"], ["first"])
    adds = [timed(index.add, row[None], [f"newcomer {i}"], [f"new {i}"])[0] for i, row in enumerate(newcomers)]
    figures["first_change_ms"] = round(1e3 * first, 3)
    figures["add_ms"] = round(1e3 * median(adds), 3)
    removals = [timed(index.remove, [gone])[0] for gone in truth[:rounds]]
    figures["remove_ms"] = round(1e3 * median(removals), 3)
    assert not {matches[0].template_id for matches in index.search(queries)} & set(truth[:rounds])  # noqa: S101
    figures["mb_after_changes"] = round(resident_mb() - before, 1)
    return figures


def matching_figures(index: Any, queries: Any, rounds: int) -> dict[str, Any]:
    """Search for pictures of one face and of eight: as before, with the rules of one photo, and by means.

    The threshold is half the similarity of two pictures of a person. The three take turns, because the machine is never
    quite idle.
    """
    from facerec.matching_rules import match_faces  # noqa: PLC0415 - the parent process has no use for it
    from model.means import PersonMeans  # noqa: PLC0415 - as above

    before, started = resident_mb(), process_time()
    means = PersonMeans(index)
    figures: dict[str, Any] = {"means_cpu_s": round(process_time() - started, 2)}
    figures["means_mb"] = round(resident_mb() - before, 1)

    def by_means(faces: Any, limit: int) -> Any:
        return means.search(index, faces, limit)

    threshold = (1 - WITHIN) / 2
    ways: dict[str, Callable[[Any], object]] = {
        "search": lambda faces: index.search(faces, 5),
        "rules": lambda faces: match_faces(faces, index.search, {}, threshold, most=5),
        "means": lambda faces: match_faces(faces, by_means, {}, threshold, most=5),
    }
    for batch in (1, 8):
        batches = [queries[start : start + batch] for start in range(0, len(queries) - batch + 1, batch)]
        times: dict[str, list[float]] = {way: [] for way in ways}
        for faces in batches[:rounds]:
            for way, work in ways.items():
                times[way].append(timed(work, faces)[1])
        for way, spent in times.items():
            figures[f"photo_cpu_ms_{way}_faces{batch}"] = round(1e3 * median(spent), 3)
    renewed = [timed(means.renew, index, [name])[1] for name in index.names[: min(rounds, 20)]]
    figures["mean_renewal_cpu_ms"] = round(1e3 * median(renewed), 3)
    return figures


def plainly(queries: Any, templates: Any) -> Any:
    """The common implementation: all products, and the greatest of each row."""
    return (queries @ templates.T).argmax(axis=1)


def timed(work: Callable[..., object], *arguments: object) -> tuple[float, float]:
    """Run the work and return its seconds and the CPU's."""
    started, cpu = perf_counter(), process_time()
    work(*arguments)
    return perf_counter() - started, process_time() - cpu


def resident_mb() -> float:
    """What this process holds in memory now, mapped files included."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def say(line: str) -> None:
    """Print the progress."""
    print(line, file=sys.stderr, flush=True)


STEPS = {"make": make, "cold": start_cold, "open": measure}
"""Each runs in a process of its own."""

if __name__ == "__main__":
    main()
