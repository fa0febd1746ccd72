"""How bad clients affect honest ones: the real system under each attack, with a steady load of photos.

    python -m benchmarks.bad_clients
    python -m benchmarks.bad_clients --attack slow_headers --rounds 1

Quiet and attacked phases alternate. A ratio compares the two phases of one round; the row has the medians. An honest
client's reply other than 200 is a failure. The attackers are one process of low priority on the same machine. Each
attack prints one row; the last line is one JSON object with the worst figures.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.attacks import ATTACKS
from tests.support.load import percentile
from tests.support.local_system import LocalSystem
from tests.support.nginx import nginx
from tests.support.processes import CHECKOUT, cpu_seconds, descendants

OK = 200
NICENESS = 10
LEAD_SECONDS = 0.7
"""So long the attackers' process takes to start."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The replies to honest clients in one phase, and the CPU and memory of the web process."""

    p95_ms: float
    sent: int
    failed: int
    rss_peak_mb: float
    web_cpu_s: float


def main() -> None:
    """Run the attacks and print their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", choices=ATTACKS, action="append", help="run only this attack; may be repeated")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each of a quiet and an attacked phase")
    parser.add_argument("--seconds", type=float, default=15, help="length of a phase")
    parser.add_argument("--per-second", type=float, default=4, help="rate of honest uploads")
    options = parser.parse_args()
    photos = sorted((CHECKOUT / "examples" / "probes").glob("*.jpg"))
    rows = []
    with tempfile.TemporaryDirectory(prefix="facerec-bad-clients-") as folder:
        for name in options.attack or ATTACKS:
            environ = {"FACEREC_WEB__TRUSTED_PROXIES": "1"}
            if name == "wrong_keys":  # by default `facerec local` serves everyone
                environ["FACEREC_WEB__AUTH"] = "keys"
            state = Path(folder) / name
            with (
                LocalSystem(state, workers=1, environ=environ) as system,
                nginx(state / "nginx", httpx.URL(system.url).port or 0) as url,
            ):
                attack = Attack(system, url, name, photos, options.seconds, options.per_second)
                rows.append(attack.row(options.rounds))
                print(json.dumps(rows[-1]), flush=True)
    print(json.dumps(summary(rows)))


class Attack:
    """One kind of bad clients against one system."""

    def __init__(
        self, system: LocalSystem, url: str, name: str, photos: list[Path], seconds: float, per_second: float
    ) -> None:
        self._system = system
        self._url = url
        self._name = name
        self._photos = [photo.read_bytes() for photo in photos]
        self._seconds = seconds
        self._per_second = per_second
        self._web = web_process(system)
        self._headers = {}
        if name == "wrong_keys":
            made = system.run("keys", "create", "honest", "--scope", "recognise")
            self._headers["x-api-key"] = made.stdout.strip()

    def row(self, rounds: int) -> dict[str, object]:
        """Warm up, then quiet and attack in turns."""
        self._phase()
        quiet, attacked, attackers = [], [], []
        for number in range(rounds):
            quiet.append(self._phase())
            with self._attackers() as counts:
                attacked.append(self._phase())
            attackers.append(counts)
            print(f"{self._name}, round {number + 1}: {quiet[-1]} {attacked[-1]} {counts}", file=sys.stderr)
        ratios = [bad.p95_ms / good.p95_ms for good, bad in zip(quiet, attacked, strict=True)]
        sums: dict[str, float] = {}
        for counts in attackers:
            for key, value in counts.items():
                sums[key] = round(sums.get(key, 0) + value, 2)
        return {
            "attack": self._name,
            "honest_p95_ms": round(statistics.median(phase.p95_ms for phase in attacked), 1),
            "quiet_p95_ms": round(statistics.median(phase.p95_ms for phase in quiet), 1),
            "ratio": round(statistics.median(ratios), 2),
            "honest_sent": sum(phase.sent for phase in attacked),
            "honest_failed": sum(phase.failed for phase in (*quiet, *attacked)),
            "web_rss_peak_mb": max(phase.rss_peak_mb for phase in (*quiet, *attacked)),
            "web_cpu_s": round(sum(phase.web_cpu_s for phase in attacked), 1),
            "web_files": len(list(Path(f"/proc/{self._web}/fd").iterdir())),
            "survived": web_process(self._system) == self._web and self._healthy(),
            "attackers": sums,
        }

    def _healthy(self) -> bool:
        return httpx.get(f"{self._url}/healthz", timeout=10).status_code == OK

    def _phase(self) -> Phase:
        # Resets the peak of the resident set (proc(5), clear_refs).
        Path(f"/proc/{self._web}/clear_refs").write_text("5")
        cpu = cpu_seconds(self._web)
        statuses, seconds = asyncio.run(self._honest())
        return Phase(
            round(percentile(seconds, 95) * 1000, 1),
            len(statuses),
            sum(status != OK for status in statuses),
            peak_mb(self._web),
            round(cpu_seconds(self._web) - cpu, 2),
        )

    async def _honest(self) -> tuple[list[int], list[float]]:
        statuses: list[int] = []
        seconds: list[float] = []
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False, headers=self._headers) as client:

            async def upload(number: int) -> None:
                await asyncio.sleep(number / self._per_second)
                files = {"inputFile": (f"{number}.jpg", self._photos[number % len(self._photos)], "image/jpeg")}
                started = time.perf_counter()
                status = 0
                with suppress(httpx.HTTPError):
                    reply = await client.post(self._url, files=files)
                    status = reply.status_code
                    if status != OK:
                        print(f"  honest upload: {status} {reply.text}", file=sys.stderr)
                statuses.append(status)
                seconds.append(time.perf_counter() - started)

            await asyncio.gather(*(upload(number) for number in range(round(self._seconds * self._per_second))))
        return statuses, seconds

    @contextmanager
    def _attackers(self) -> Iterator[dict[str, float]]:
        """Run the attackers within the block; afterwards the list has their counts."""
        counts: dict[str, float] = {}
        port = httpx.URL(self._url).port
        words = ("-m", "benchmarks.attacks", self._name, "--port", str(port), "--seconds", str(self._seconds))
        process = subprocess.Popen((sys.executable, *words), cwd=CHECKOUT, stdout=subprocess.PIPE)
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        try:
            time.sleep(LEAD_SECONDS)
            yield counts
            output, _ = process.communicate(timeout=self._seconds + 30)
            counts |= json.loads(output.splitlines()[-1])
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def web_process(system: LocalSystem) -> int:
    """Return the id of the process that serves requests."""
    [pid] = descendants(system.pid, "facerec.cli", "web")
    return pid


def peak_mb(pid: int) -> float:
    """The peak of a process' resident set since it was reset (proc(5), VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return round(int(kilobytes) / 1000, 1)


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """Return the worst figures of all attacks."""

    def figures(name: str) -> list[float]:
        return [float(str(row[name])) for row in rows]

    return {
        "attacks": len(rows),
        "worst_ratio": max(figures("ratio")),
        "honest_failed": sum(figures("honest_failed")),
        "web_rss_peak_mb": max(figures("web_rss_peak_mb")),
        "survived": all(row["survived"] for row in rows),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
