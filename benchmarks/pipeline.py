"""Drains a backlog with our worker, our worker without batches, and a naive app tier, on the same emulated AWS.

    python -m benchmarks.pipeline --pack open --images DIR   # needs `make install-reference`

DIR is as for `benchmarks.roundtrip`. `ours` is one `celery -A facerec worker` with its defaults; `batch1` is the same
with FACEREC_WORKER__BATCH_MAX=1; `naive` is two processes of `benchmarks.naive_tier`, always with MTCNN and FaceNet.
The three take turns, `--rounds` times; medians are reported.

Each side is timed when it is warm, from a number of results until the last one. Our worker starts on a complete
backlog: its engines compile what they need during the first `--warm` results. The naive tier runs its networks before
its backlog is filled, so `--naive-warm` results are enough. `benchmarks.coldstart` measures a worker's start.

CPU times are those of the tier, without the emulator. Their ratio, `cpu_ratio`, hardly depends on other work on the
machine; the ratio of requests per second, `ratio`, does. `burst_100_s` is the time until the last of 100 simultaneous
uploads through the web tier is answered. `burst_cpu_s` is the CPU time of that by process: `emulator`, `web`, `worker`,
and this process as `clients`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.backlog import Backlog, NaiveBacklog
from benchmarks.measure import add_pack_option, machine, pack_artefact
from benchmarks.roundtrip import Photo, ask, await_enrolment, workload
from facerec.settings import Settings
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT, cpu_seconds, descendants

NAIVE_PROCESSES = 2
BURST = 100
STALLED_SECONDS = 60


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pack_option(parser)
    parser.add_argument("--requests", type=int, default=600, help="backlog of ours and of batch1")
    parser.add_argument("--naive-requests", type=int, default=80, help="backlog of the slower naive tier")
    parser.add_argument("--warm", type=int, default=200, help="first results of ours and of batch1, which do not count")
    parser.add_argument(
        "--naive-warm", type=int, default=20, help="first results of the naive tier, which do not count"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side; medians are reported")
    parser.add_argument("--bursts", type=int, default=5, help="bursts of 100 uploads; the median is reported")
    parser.add_argument("--images", type=Path, default=CHECKOUT / "examples")
    parser.add_argument("--skip-naive", action="store_true", help="measure ours and batch1 only, without torch")
    options = parser.parse_args()
    classic = pack_artefact("classic").directory  # the naive tier always runs it
    os.environ["FACEREC_MODEL__DIR"] = str(pack_artefact(options.pack).directory)
    os.environ["FACEREC_MODEL__LICENCE"] = "research"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facerec-pipeline-")))
        people, photos = workload(options.images, folder / "people")
        # An engine for each core, which is a worker's default: an elastic local fleet has smaller workers.
        environ = {"FACEREC_REPLY_STYLE": "name", "FACEREC_WORKER__ENGINES": "0"}
        system = stack.enter_context(LocalSystem(folder / "state", workers=0, environ=environ))
        system.run("enrol", "--folder", str(people))
        os.environ.update({k: v for k, v in system.environ.items() if k.startswith(("AWS_", "FACEREC_"))})
        bench = Bench(system, photos, people, classic)
        turns: dict[str, list[Drained]] = {side: [] for side in ("ours", "batch1", "naive")}
        for number in range(options.rounds):
            turns["ours"].append(bench.ours(options.requests, options.warm, {}))
            turns["batch1"].append(bench.ours(options.requests, options.warm, {"FACEREC_WORKER__BATCH_MAX": "1"}))
            if not options.skip_naive:
                turns["naive"].append(bench.naive(options.naive_requests, options.naive_warm))
            for side, drained in turns.items():
                print(f"round {number + 1}: {side} {drained[-1] if drained else 'skipped'}", file=sys.stderr)
        print(
            json.dumps({"pack": options.pack} | _summary(turns) | bench.bursts(options.bursts) | {"machine": machine()})
        )


@dataclass(frozen=True, slots=True)
class Drained:
    """A tier's rate and CPU time in milliseconds per request, after its first results."""

    per_second: float
    cpu_ms: float
    emulator_cpu_ms: float
    wrong: int


class Bench:
    """The sides of the comparison on one running system without workers."""

    def __init__(self, system: LocalSystem, photos: Sequence[Photo], people: Path, classic: Path) -> None:
        self._system = system
        self._photos = list(photos)
        self._people = people
        self._classic = classic
        settings = Settings.load()
        self._backlog = Backlog(settings, photos, f"{settings.response_queue}-bench")
        self._naive_backlog = NaiveBacklog(settings, photos, f"{settings.response_queue}-naive")
        [self._emulator] = descendants(system.pid, "facerec.local.ministack_server")
        self._web = min(descendants(system.pid, "facerec.cli web"))

    def ours(self, requests: int, warm: int, environ: Mapping[str, str]) -> Drained:
        """Our worker, with these settings beside its defaults."""
        self._backlog.fill(requests)
        with self._system.worker(environ) as worker:
            return self._drain(self._backlog, requests, warm, [worker])

    def naive(self, requests: int, warm: int) -> Drained:
        """The naive tier; its processes receive their first message when both are warm."""
        backlog = self._naive_backlog
        settings = backlog.settings
        options = {
            "artefact": str(self._classic),
            "people": str(self._people),
            "endpoint_url": settings.endpoint_url,
            "requests": backlog.requests,
            "responses": backlog.responses,
            "input_bucket": settings.input_bucket,
            "output_bucket": settings.output_bucket,
        }
        with ExitStack() as stack:
            tier = [stack.enter_context(_naive_process(options)) for _ in range(NAIVE_PROCESSES)]
            for process in tier:
                if process.stdout is None or process.stdout.readline() != "warm\n":
                    raise RuntimeError("the naive tier did not start; has `make install-reference` been run?")
            backlog.fill(requests)
            return self._drain(backlog, requests, warm, [process.pid for process in tier])

    def bursts(self, count: int) -> dict[str, float | int | dict[str, float]]:
        """Measure bursts of uploads through the web tier, and single uploads on the idle system."""
        with self._system.worker() as worker:
            await_enrolment(self._system, self._photos)
            ask(self._system.url, self._photos, BURST, BURST)
            parts = {"emulator": self._emulator, "web": self._web, "worker": worker}
            before, own = {part: cpu_seconds(pid) for part, pid in parts.items()}, time.process_time()
            crowds = [ask(self._system.url, self._photos, BURST, BURST) for _ in range(count)]
            used = {part: cpu_seconds(pid) - before[part] for part, pid in parts.items()}
            used["clients"] = time.process_time() - own
            single = ask(self._system.url, self._photos, 1, 40)
        seconds = [crowd.seconds for crowd in crowds]
        return {
            "burst_100_s": round(statistics.median(seconds), 2),
            "burst_cpu_s": {part: round(cpu / count, 2) for part, cpu in used.items()},
            "burst_emulator_share": round(used["emulator"] / sum(used.values()), 2),
            "burst_emulator_busy": round(used["emulator"] / sum(seconds), 2),
            "burst_wrong_or_lost": sum(BURST - crowd.answered + crowd.wrong for crowd in crowds),
            "idle_p50_ms": round(statistics.median(single.latencies_ms), 1),
        }

    def _drain(self, backlog: Backlog, requests: int, warm: int, tier: Sequence[int]) -> Drained:
        done = wrong = 0
        start: tuple[float, float, float, int] | None = None
        moved = time.perf_counter()
        while done < requests:
            came, of_them_wrong = backlog.collect()
            now = time.perf_counter()
            if came:
                moved = now
            elif now - moved > STALLED_SECONDS:
                log = (self._system.state / "bench-worker.log").read_text(errors="replace").splitlines()
                raise RuntimeError(
                    f"{requests - done} of {requests} results are missing; our worker ended with: {log[-1:]}"
                )
            done, wrong = done + came, wrong + of_them_wrong
            if start is None and done >= warm:
                start = now, cpu_seconds(*tier), cpu_seconds(self._emulator), done
        if start is None or start[3] == requests:
            raise RuntimeError("the backlog is too short to be timed")
        began, tier_began, emulator_began, before = start
        counted = requests - before
        return Drained(
            per_second=counted / (moved - began),
            cpu_ms=(cpu_seconds(*tier) - tier_began) / counted * 1000,
            emulator_cpu_ms=(cpu_seconds(self._emulator) - emulator_began) / counted * 1000,
            wrong=wrong,
        )


@contextmanager
def _naive_process(options: Mapping[str, str | None]) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.naive_tier"],
        cwd=CHECKOUT,
        # One process per core with one thread each: more threads would be slower.
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdin is not None:
            process.stdin.write(json.dumps(options))
            process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _summary(turns: Mapping[str, Sequence[Drained]]) -> dict[str, float | int | dict[str, float]]:
    def middle(side: str, figure: str, digits: int = 1) -> float:
        values: list[float] = [getattr(drained, figure) for drained in turns[side]]
        return round(statistics.median(values), digits)

    figures: dict[str, float | int | dict[str, float]] = {
        "ours_per_s": middle("ours", "per_second"),
        "batch1_per_s": middle("batch1", "per_second"),
        "cpu_ms_per_request": middle("ours", "cpu_ms"),
        "batch1_cpu_ms_per_request": middle("batch1", "cpu_ms"),
        "emulator_cpu_ms_per_request": middle("ours", "emulator_cpu_ms"),
        "wrong": sum(drained.wrong for drained in [*turns["ours"], *turns["batch1"]]),
    }
    if turns["naive"]:
        ratios = [ours.per_second / naive.per_second for ours, naive in zip(turns["ours"], turns["naive"], strict=True)]
        figures |= {
            "naive_per_s": middle("naive", "per_second", 2),
            "ratio": round(statistics.median(ratios), 2),
            "naive_cpu_ms_per_request": middle("naive", "cpu_ms"),
            "cpu_ratio": round(middle("naive", "cpu_ms") / middle("ours", "cpu_ms"), 2),
            "naive_wrong": sum(drained.wrong for drained in turns["naive"]),
        }
    return figures


if __name__ == "__main__":
    main()
