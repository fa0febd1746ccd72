"""The time from a cold interpreter to the first embedding, and the memory, of each engine in new processes.

    python -m benchmarks.coldstart --pack open

- `<engine>_s`: wall-clock time from the start of Python to the first face's embedding; the median of `--runs`, with the
  files in the page cache and OpenVINO's cache filled. `<engine>_first_s` is the start that fills that cache,
  `<engine>_uncached_s` the median without it.
- `<engine>_cpu_s` and so on: the CPU time of the same, which other work on the machine hardly changes.
- `*_started_mb`: resident memory after that face. `*_rss_mb`: after an idle child has prepared itself. `*_own_mb`: the
  part of it that no other process shares.
- `worker_rss_mb`: an idle engine child and its parent, with Celery, the AWS clients and `--templates` people.
- `*_peak_mb`, `*_peak_s`: most memory and wall-clock time for one photo of 50 megapixels, by its file format;
  `*_worst_peak_mb` and `*_worst_peak_s` are the greatest of them.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measure import SINGLE_THREADED, add_pack_option, machine, pack_artefact
from model.artefact import Artefact
from tests.support.processes import CHECKOUT

if TYPE_CHECKING:
    from facerec.engine.child import EngineSpec

ENGINES = ("onnxruntime", "openvino")
FORMS = ("jpeg", "turned_jpeg", "progressive_jpeg", "rgba_png", "grey16_png", "webp")
MEGABYTE = 1e6


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pack_option(parser)
    parser.add_argument("--image", type=Path, default=CHECKOUT / "examples/probes/image_01.jpg")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--templates", type=int, default=10_000)
    parser.add_argument("--part", choices=["engine", "photo", "peak", "gallery", "worker"], help=argparse.SUPPRESS)
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    parser.add_argument("--engine", default="openvino", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--dimension", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "engine":
        first_face(options.image.read_bytes(), _spec(options))
    elif options.part == "photo":
        report(largest_photo(options.form, options.cache / options.form))
    elif options.part == "peak":
        report(peak((options.cache / options.form).read_bytes(), _spec(options)))
    elif options.part == "gallery":
        report(saved_gallery(options.templates, options.dimension, options.cache / "gallery"))
    elif options.part == "worker":
        report(idle_worker(options.dimension, options.cache / "gallery"))
    else:
        artefact = pack_artefact(options.pack)
        print(json.dumps(measure(artefact, options.image, options.runs, options.templates)))


def measure(artefact: Artefact, image: Path, runs: int, templates: int) -> dict[str, Any]:
    """Start every part in a process of its own."""
    result: dict[str, Any] = {"pack": artefact.pack}
    model = ("--model", str(artefact.directory))
    with tempfile.TemporaryDirectory(prefix="facerec-coldstart-") as cache:
        for form in FORMS:
            _, figures = start("--part", "photo", "--form", form, "--cache", cache)
        result["peak_megapixels"] = figures["megapixels"]
        for engine in ENGINES:
            arguments = ("--part", "engine", *model, "--engine", engine, "--image", str(image))
            uncached = [start(*arguments) for _ in range(runs)]
            first = start(*arguments, "--cache", cache)
            starts = [start(*arguments, "--cache", cache) for _ in range(runs)]
            for name, some in (("", starts), ("first_", [first]), ("uncached_", uncached)):
                result[f"{engine}_{name}s"] = round(statistics.median(seconds for seconds, _ in some), 2)
                result[f"{engine}_{name}cpu_s"] = round(statistics.median(figures["cpu_s"] for _, figures in some), 2)
            figures = starts[-1][1]
            result |= {
                f"{engine}_{figure}": figures[figure] for figure in ("precision", "started_mb", "rss_mb", "own_mb")
            }
            print(f"{engine}: {result[f'{engine}_s']} s, {figures['rss_mb']} MB", file=sys.stderr)
            peaks = {}
            for form in FORMS:
                _, peaks[form] = start("--part", "peak", *model, "--form", form, "--engine", engine, "--cache", cache)
                print(f"{engine}: {form}: {peaks[form]}", file=sys.stderr)
            for figure in ("peak_mb", "peak_s"):
                by_form = {form: figures[figure] for form, figures in peaks.items()}
                result |= {f"{engine}_{figure}": by_form, f"{engine}_worst_{figure}": max(by_form.values())}
        dimension = ("--dimension", str(artefact.dimension))
        start("--part", "gallery", *dimension, "--templates", str(templates), "--cache", cache)
        _, figures = start("--part", "worker", *dimension, "--cache", cache)
    result |= {"worker_process_rss_mb": figures["rss_mb"], "templates": templates}
    result |= {f"worker_rss_mb_{engine}": figures["rss_mb"] + result[f"{engine}_rss_mb"] for engine in ENGINES}
    return result | {"machine": machine()}


def start(*arguments: str) -> tuple[float, dict[str, Any]]:
    """Run this module in a new process; returns the seconds until its first report, and all reported figures."""
    started = time.perf_counter()
    with subprocess.Popen(
        (sys.executable, "-m", "benchmarks.coldstart", *arguments),
        cwd=CHECKOUT,
        env={**os.environ, **dict.fromkeys(SINGLE_THREADED, "1")},  # as an engine child has it
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        lines = [process.stdout.readline()]
        seconds = time.perf_counter() - started
        lines += process.stdout.readlines()
    if process.returncode or not lines[0]:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    figures: dict[str, Any] = {}
    for line in lines:
        figures |= json.loads(line)
    return seconds, figures


def report(figures: dict[str, Any]) -> None:
    """Print the figures and flush, because the reader stops its clock at them."""
    print(json.dumps(figures), flush=True)


def first_face(data: bytes, spec: "EngineSpec") -> None:
    """Load the engine as a child does, warm, and embed the first photo's faces; then prepare as an idle child does."""
    analyser = _analyser(spec)
    (analysis,) = analyser.analyse_batch([data])
    if not analysis.faces:
        raise SystemExit("there is no face on the photo to start with")
    report({"precision": analyser.precision, "cpu_s": time.process_time(), "started_mb": _status("VmRSS")})
    for _ in analyser.prepare():
        pass
    report(_memory())


def largest_photo(form: str, path: Path) -> dict[str, Any]:
    """Save a noise photo of the greatest accepted size, which gives the detector much work."""
    import numpy as np  # noqa: PLC0415 - an engine's start is measured without it
    from PIL import Image  # noqa: PLC0415 - same

    width, height = 8660, 5773
    coarse = np.random.default_rng(6).integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6  # as a phone that is held upright stores it
    if form == "rgba_png":
        photo.putalpha(photo.convert("L"))
    elif form == "grey16_png":
        photo = Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
    options: dict[str, dict[str, Any]] = {
        "jpeg": {"quality": 90},
        "turned_jpeg": {"quality": 90, "exif": turned},
        "progressive_jpeg": {"quality": 90, "subsampling": 0, "progressive": True},
        "rgba_png": {"compress_level": 1},
        "grey16_png": {"compress_level": 1},
        "webp": {"quality": 80, "method": 0},
    }
    photo.save(path, form.rpartition("_")[2], **options[form])
    return {"megapixels": round(width * height / 1e6, 1)}


def peak(data: bytes, spec: "EngineSpec") -> dict[str, Any]:
    """Analyse one photo like an idle child that has prepared itself."""
    analyser = _analyser(spec)
    for _ in analyser.prepare():
        pass
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets the peak
    started = time.perf_counter()
    analyser.analyse_batch([data])
    return {"peak_mb": _status("VmHWM"), "peak_s": round(time.perf_counter() - started, 2)}


def saved_gallery(templates: int, dimension: int, path: Path) -> dict[str, Any]:
    """Save a gallery as a machine's first worker does for later ones."""
    import numpy as np  # noqa: PLC0415 - as above

    from model.index.snapshot import write  # noqa: PLC0415 - as above
    from model.matching import GalleryIndex  # noqa: PLC0415 - as above

    rows = np.random.default_rng(7).normal(size=(templates, dimension)).astype(np.float32)
    names = [f"person {number}" for number in range(templates)]
    write(GalleryIndex(rows / np.linalg.norm(rows, axis=1, keepdims=True), names, names), path, "benchmark", 1)
    return {"templates": templates}


def idle_worker(dimension: int, gallery: Path) -> dict[str, Any]:
    """Hold what a worker's first process holds: the Celery app with its driver, the AWS clients, a gallery."""
    import numpy as np  # noqa: PLC0415 - as above

    import tasks.recognise  # noqa: PLC0415, F401 - what `celery -A facerec worker` imports
    from facerec import bootstrap  # noqa: PLC0415 - as above
    from facerec.settings import Settings  # noqa: PLC0415 - as above
    from model.index.snapshot import open_snapshot  # noqa: PLC0415 - as above

    os.environ.setdefault("AWS_ACCESS_KEY_ID", "none")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "none")
    clients = bootstrap.clients(Settings.load())
    held = [clients.s3, clients.sqs, clients.dynamodb]  # made at the first use, with the models of their services
    index, _ = open_snapshot(gallery, "benchmark")
    index.search(np.ones((1, dimension), dtype=np.float32), limit=5)
    return {"held": len(held), **_memory()}


def _spec(options: argparse.Namespace) -> "EngineSpec":
    from facerec.engine.child import EngineSpec  # noqa: PLC0415 - part of the start that is measured

    return EngineSpec(options.model, options.engine, max_megapixels=50, cache_dir=options.cache)


def _analyser(spec: "EngineSpec") -> Any:
    from facerec.engine.loading import open_analyser  # noqa: PLC0415 - as above

    return open_analyser(spec)


def _memory() -> dict[str, int]:
    return {"rss_mb": _status("VmRSS"), "own_mb": _status("RssAnon")}


def _status(field: str) -> int:
    """Return a size in megabytes from /proc/self/status, which counts in kibibytes (proc(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return round(int(line.split()[1]) * 1024 / MEGABYTE)
    return 0


if __name__ == "__main__":
    main()
