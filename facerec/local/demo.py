"""The demonstration: sample people enrolled, sample photos uploaded, the replies compared with what is expected."""

import csv
from dataclasses import dataclass
from pathlib import Path

import httpx

from facerec.errors import ConfigurationError, FacerecError
from facerec.local.progress import Progress
from facerec.local.system import LocalSystem
from facerec.processes.addresses import poll_until

_ZERO_SECONDS = 30.0
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
        """Each probe with the reply that it should get, in the order of the table; raises `ConfigurationError`."""
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


@dataclass(frozen=True, slots=True)
class Answer:
    """A photo's reply, and the one expected."""

    reply: str
    expected: str

    @property
    def right(self) -> bool:
        """Whether the two are the same."""
        return self.reply == self.expected


def set_up(system: LocalSystem, samples: Samples, progress: Progress) -> None:
    """Start the system with the sample people enrolled."""
    system.start_cloud()
    with progress.step("sample people enrolled"):
        system.run("enrol", "--folder", str(samples.gallery))
    # The workers read the gallery at their start, so they know these people from the first request on.
    system.start_tiers()
    system.announce()


def upload(samples: Samples, web_url: str, progress: Progress, wait_seconds: float) -> list[Answer]:
    """Upload every probe in turn, print its reply as the service gave it, and return all answers.

    Raises `FacerecError` where there is none within the wait.
    """
    answers = []
    # Only this machine is addressed: no proxy from the environment.
    with httpx.Client(base_url=web_url, timeout=wait_seconds, trust_env=False) as client:
        for photo, expected in samples.expected().items():
            try:
                response = client.post("/", files={"inputFile": (photo.name, photo.read_bytes(), "image/jpeg")})
            except httpx.HTTPError as exc:
                raise FacerecError(f"{photo.name} got no answer from {web_url}: {exc}") from exc
            answers.append(Answer(response.text.rstrip("\n"), expected))
            progress.line(answers[-1].reply)
    return answers


def await_zero(system: LocalSystem, progress: Progress) -> None:
    """Wait until the fleet has no instance left that is pending or running; raises `FacerecError` if it stays."""
    with progress.step("back at zero instances"):
        if not poll_until(lambda: not system.running_instances(), _ZERO_SECONDS):
            raise FacerecError(
                f"instances run on {_ZERO_SECONDS:g} s after the last reply: {system.running_instances()}"
            )


def compare(answers: list[Answer], progress: Progress) -> None:
    """Print where replies differ from the expected ones, and raise `FacerecError` if any does."""
    wrong = [answer for answer in answers if not answer.right]
    for answer in wrong:
        progress.line(f"- {answer.expected}\n+ {answer.reply}")
    if wrong:
        raise FacerecError(f"{len(wrong)} of {len(answers)} replies differ from the expected ones")
