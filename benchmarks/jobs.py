"""A job of many files against the same number of single uploads, and the enrolment of many photos in one call.

    python -m benchmarks.jobs --files 2000
    python -m benchmarks.jobs --files 2000 --enrol 1000 --people DIR    # with a folder of photos for each person
    python -m benchmarks.jobs --files 200 --workers 2

The real local system runs with a fixed number of workers. Single uploads come from 100 clients at once. A job is one
call with a zip of the same photos under other names; its time is from the call to the end of the last file. Uploads
and jobs take turns. For `--enrol`, photos are made of those of the people by small changes of crop, size and light.
The last line is one JSON object:

- `single_per_s` and `job_per_s` are files per second, the best round of each; `ratio` is the second by the first;
- `accepted_s` is the time from the call of the job to its 202;
- `lost` counts files without a result and uploads without an answer, `wrong` those with another result than expected;
- `web_mb` is the resident memory of the web process before the first job, after the last one, and at the most;
- `enrolled` counts the photos of the enrolment by what became of them, `known_after_s` is the time from the end of the
  job until 40 uploads in a row, which all workers share, are answered with the new names.
"""

import argparse
import io
import json
import random
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from PIL import Image, ImageEnhance

from benchmarks.roundtrip import OK, Photo, await_enrolment, workload
from tests.support.load import Upload, upload_all
from tests.support.local_system import LocalSystem
from tests.support.processes import CHECKOUT

CLIENTS = 100
_POLL_SECONDS = 0.2
_LONGEST_SECONDS = 1200.0
_PROBES = 40


class Memory:
    """Samples the resident memory of a process ten times a second, in MB."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.most = 0.0

    def now(self) -> float:
        """The resident memory."""
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmRSS"))
        return round(int(line.split()[1]) / 1024, 1)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample within the block."""
        stopped = threading.Event()

        def sample() -> None:
            while not stopped.wait(0.1):
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
    parser.add_argument("--files", type=int, default=2000, help="files of a job (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of uploads and a job (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="workers (default: %(default)s)")
    parser.add_argument("--enrol", type=int, default=0, help="photos to enrol in one job (default: none)")
    parser.add_argument("--people", type=Path, help="folder with a folder of photos for each person to enrol")
    parser.add_argument(
        "--images", type=Path, default=CHECKOUT / "examples", help="folder of photos, as for benchmarks.roundtrip"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="facerec-jobs-") as folder:
        people, photos = workload(options.images, Path(folder) / "people")
        environ = {"FACEREC_REPLY_STYLE": "name", "FACEREC_WEB__MAX_WAITING": "1000"}
        with LocalSystem(Path(folder) / "state", workers=options.workers, environ=environ) as system:
            system.run("enrol", "--folder", str(people))
            await_enrolment(system, photos)
            summary = compare(system, photos, options.files, options.rounds)
            if options.enrol:
                summary |= enrol(system, options.people or people, options.enrol)
    amiss = bool(summary["lost"] or summary["wrong"])
    print(json.dumps(summary, allow_nan=False))
    sys.exit(1 if amiss else 0)


def compare(system: LocalSystem, photos: Sequence[Photo], files: int, rounds: int) -> dict[str, Any]:
    """Take turns with single uploads and jobs of the same photos."""
    chosen = [photos[index % len(photos)] for index in range(files)]
    bodies = {photo.path: photo.path.read_bytes() for photo in photos}
    uploads = [Upload(f"{i:05d}_{photo.path.name}", bodies[photo.path]) for i, photo in enumerate(chosen)]
    upload_all(system.url, uploads[:CLIENTS], CLIENTS)  # warm
    [web] = system.processes("facerec.cli web")
    memory = Memory(web)
    single, job, accepted, lost, wrong = 0.0, 0.0, 0.0, 0, 0
    before = 0.0
    for number in range(rounds):
        began = time.monotonic()
        replies = upload_all(system.url, uploads, CLIENTS)
        single = max(single, files / (time.monotonic() - began))
        answered = [(reply, photo) for reply, photo in zip(replies, chosen, strict=True) if reply.status == OK]
        lost += files - len(answered)
        wrong += sum(r.text.strip() != f"{Path(r.filename).stem}:{photo.answer}" for r, photo in answered)
        before = before or memory.now()
        with memory.watched():
            began = time.monotonic()
            created = create(system, packed((upload.filename, upload.body) for upload in uploads), "")
            accepted = max(accepted, time.monotonic() - began)
            rows = ended(system, created)
            job = max(job, files / (time.monotonic() - began))
        results = {row["file"]: row.get("result") for row in rows if row["status"] == "done"}
        lost += files - len(results)
        wrong += sum(
            results.get(upload.filename, photo.answer) != photo.answer
            for upload, photo in zip(uploads, chosen, strict=True)
        )
        print(f"round {number + 1}: single {single:.1f}/s, job {job:.1f}/s", file=sys.stderr)
    return {
        "files": files,
        "single_per_s": round(single, 1),
        "job_per_s": round(job, 1),
        "ratio": round(job / single, 2),
        "accepted_s": round(accepted, 2),
        "lost": lost,
        "wrong": wrong,
        "web_mb": {"before": before, "after": memory.now(), "most": memory.most},
    }


def enrol(system: LocalSystem, people: Path, count: int) -> dict[str, Any]:
    """Enrol so many photos of the people in one job, and wait until every worker knows them."""
    made = list(varied(people, count))
    began = time.monotonic()
    rows = ended(system, create(system, packed(made), "?operation=enrol"))
    took, done_at = time.monotonic() - began, time.monotonic()
    names = sorted({row["person"] for row in rows if row.get("outcome") == "enrolled"})
    probes = [
        Upload(f"{index}.jpg", body)
        for index, (path, body) in enumerate(made)
        if rows[index].get("outcome") == "enrolled" and path.split("/")[0] in names
    ][-_PROBES:]
    while True:
        asked = time.monotonic()
        answers = upload_all(system.url, probes, _PROBES)
        right = [
            r.text.strip() == f"{Path(r.filename).stem}:{rows[int(Path(r.filename).stem)]['person']}" for r in answers
        ]
        if all(right) or asked - done_at > _LONGEST_SECONDS:
            break
    counts = Counter(str(row.get("outcome", row["status"])) for row in rows)
    for row in rows:
        if row["status"] != "done":
            print(f"  {row['file']}: {row.get('outcome')} ({row.get('detail')})", file=sys.stderr)
    return {
        "photos": count,
        "people": len(names),
        "reported": len(rows),
        "enrolled": dict(counts),
        "enrol_per_s": round(count / took, 1),
        "known_after_s": round(asked - done_at, 2),
    }


def varied(people: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield photos of the people, `<person>/<number>.jpg`, each a little different; always the same ones."""
    chance = random.Random(1)  # noqa: S311 - no secret
    sources = sorted(path for path in people.glob("*/*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    for number in range(count):
        source = sources[number % len(sources)]
        with Image.open(source) as opened:
            photo = opened.convert("RGB")
        width, height = photo.size
        left, top, right, bottom = (chance.uniform(0, 0.06) for _ in range(4))
        photo = photo.crop(
            (round(width * left), round(height * top), round(width * (1 - right)), round(height * (1 - bottom)))
        )
        photo = ImageEnhance.Brightness(photo).enhance(chance.uniform(0.85, 1.15))
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", quality=chance.randint(80, 95))
        yield f"{source.parent.name}/{number:04d}.jpg", buffer.getvalue()


def packed(members: Any) -> bytes:
    """A zip of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in members:
            archive.writestr(name, body)
    return buffer.getvalue()


def create(system: LocalSystem, body: bytes, query: str) -> str:
    """Create a job from a zip; returns its path."""
    reply = httpx.post(
        f"{system.url}api/v1/jobs{query}",
        content=body,
        headers={"content-type": "application/zip"},
        timeout=_LONGEST_SECONDS,
        trust_env=False,
    )
    if reply.status_code != httpx.codes.ACCEPTED:
        raise RuntimeError(f"the job was refused: {reply.status_code} {reply.text}")
    return str(reply.headers["location"])[1:]


def ended(system: LocalSystem, path: str) -> list[dict[str, Any]]:
    """Wait for the end of a job; returns its report."""
    deadline = time.monotonic() + _LONGEST_SECONDS
    with httpx.Client(base_url=system.url, trust_env=False, timeout=60) as client:
        while client.get(path).json()["status"] not in {"done", "failed", "cancelled"}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the job has not ended: {client.get(path).text}")
            time.sleep(_POLL_SECONDS)
        return [json.loads(line) for line in client.get(f"{path}/results").text.splitlines()]


if __name__ == "__main__":
    main()
