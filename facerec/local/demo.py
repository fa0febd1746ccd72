"""The demonstration: enrol sample people, upload sample photos, and compare the replies with the expected ones."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from facerec.errors import ConfigurationError, FacerecError
from facerec.local.system import LocalSystem, Progress
from facerec.processes.addresses import poll_until

_ZERO_SECONDS = 30.0
_REPLY_SECONDS = 200
"""Longer than the web tier's own wait, so that its reply is shown in any case."""
_SENTENCES = {
    "match": "{file}: face detected - {name}",
    "unknown": "{file}: face not recognized",
    "no_face": "{file}: no face detected",
}


@dataclass(frozen=True, slots=True)
class Samples:
    """A folder of samples: `gallery/<person>/*.jpg`, `probes/*`, `expected.csv` with file, outcome and name."""

    folder: Path

    @property
    def gallery(self) -> Path:
        """A folder per person."""
        return self.folder / "gallery"

    def expected(self) -> dict[Path, str]:
        """Each probe with its expected reply, in the order of the table; raises `ConfigurationError`."""
        table = self.folder / "expected.csv"
        if not table.is_file() or not self.gallery.is_dir():
            raise ConfigurationError(
                f"there are no samples in {self.folder}; run from the root of the checkout, or use --examples"
            )
        with table.open(newline="", encoding="utf-8") as rows:
            return {
                self.folder / "probes" / row["file"]: _SENTENCES[row["outcome"]].format_map(row)
                for row in csv.DictReader(rows)
            }


def demonstrate(system: LocalSystem, samples: Samples, progress: Progress) -> None:
    """Enrol the sample people, upload the probes, and compare the replies with the expected ones.

    An elastic fleet is back at zero instances at the end. Raises `FacerecError` where something differs.
    """
    began = time.monotonic()
    system.start_cloud()
    with progress.step("sample people enrolled"):
        system.run("enrol", "--folder", str(samples.gallery))
    # The workers read the gallery when they start: they know these people from the first request.
    system.start_tiers()
    system.announce()
    progress.line(f"  set up in {time.monotonic() - began:.1f} s")
    progress.line()
    compare(_upload(samples, system.web_url, progress), progress)
    progress.line()
    if system.elastic:
        with progress.step("back at zero instances"):
            if not poll_until(lambda: not system.running_instances(), _ZERO_SECONDS):
                raise FacerecError(f"{system.running_instances()} still run {_ZERO_SECONDS:g} s after the last reply")


def _upload(samples: Samples, web_url: str, progress: Progress) -> list[tuple[str, str]]:
    """Upload every probe in turn, and print its reply; returns each reply with the expected one."""
    replies = []
    # The service is on this machine: the environment's proxy is not used.
    with httpx.Client(base_url=web_url, timeout=_REPLY_SECONDS, trust_env=False) as client:
        for photo, expected in samples.expected().items():
            try:
                response = client.post("/", files={"inputFile": (photo.name, photo.read_bytes(), "image/jpeg")})
            except httpx.HTTPError as exc:
                raise FacerecError(f"{photo.name} got no answer from {web_url}: {exc}") from exc
            reply = response.text.rstrip("\n")
            replies.append((reply, expected))
            progress.line(reply)
    return replies


def compare(replies: list[tuple[str, str]], progress: Progress) -> None:
    """Print where replies differ from the expected ones, and raise `FacerecError` if any does."""
    wrong = [(reply, expected) for reply, expected in replies if reply != expected]
    for reply, expected in wrong:
        progress.line(f"- {expected}")
        progress.line(f"+ {reply}")
    if wrong:
        raise FacerecError(f"{len(wrong)} of {len(replies)} replies differ from the expected ones")
