"""The demonstration: enrol sample people, upload sample photos, and compare the replies with the expected ones."""

import csv
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from facerec.aws.sqs.queue import SqsQueue
from facerec.echo import echo
from facerec.errors import ConfigurationError, FacerecError
from facerec.local.ec2_host import emulated_session
from facerec.local.edge.device import LocalDevice
from facerec.local.progress import Progress
from facerec.local.system import LocalSystem
from facerec.messages import RecognitionResult
from facerec.processes.addresses import poll_until

_ZERO_SECONDS = 30.0
_STATUS_SECONDS = 10.0
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

    With a device, the probes are its frames, and the replies come from the response queue. An elastic fleet is back
    at zero instances at the end. Raises `FacerecError` where something differs.
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
    if system.device is None:
        replies = _upload(samples, system.web_url, progress)
    else:
        replies = _put_before_device(samples, system, system.device, progress)
    compare(replies, progress)
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


def _put_before_device(
    samples: Samples, system: LocalSystem, device: LocalDevice, progress: Progress
) -> list[tuple[str, str]]:
    """Move a copy of every probe into the device's folder; otherwise as `_upload`, but in the order of the table."""
    expected = samples.expected()
    for photo in expected:
        copy = device.frames / f".{photo.name}"  # hidden until it is whole
        shutil.copyfile(photo, copy)
        copy.rename(device.frames / photo.name)
    sqs = emulated_session(system.variables).client("sqs", endpoint_url=system.emulator_url)
    found = _results(SqsQueue(sqs, system.response_queue), {photo.name for photo in expected})
    replies = []
    for photo, wanted in expected.items():
        result = found[photo.name]
        reply = _SENTENCES.get(result.outcome, "{file}: {name}").format(file=result.filename, name=result.result)
        replies.append((reply, wanted))
        progress.line(reply)
    frames = sum(photo.stat().st_size for photo in expected)
    progress.line()
    progress.line(
        f"  of frames with {frames} bytes, messages with {_sent_bytes(system, len(expected))} left the device"
    )
    return replies


def _sent_bytes(system: LocalSystem, messages: int) -> int:
    """Return the size of all messages that the device has sent, once its status counts so many."""
    sent = 0

    def counted() -> bool:
        nonlocal sent
        for line in system.log("device").splitlines():
            if '"edge_status"' in line and (counts := json.loads(line)["counters"])["messages"] >= messages:
                sent = counts["bytes"]
        return sent > 0

    if not poll_until(counted, _STATUS_SECONDS):
        raise FacerecError(f"the device does not count {messages} messages; see its log")
    return sent


def _results(queue: SqsQueue, names: set[str]) -> dict[str, RecognitionResult]:
    """Wait for a result of each file; raises `FacerecError` if one is missing too long."""
    found: dict[str, RecognitionResult] = {}
    deadline = time.monotonic() + _REPLY_SECONDS
    while missing := names - found.keys():
        if time.monotonic() > deadline:
            raise FacerecError(f"{', '.join(sorted(missing))} got no answer in {_REPLY_SECONDS} s")
        messages = queue.receive(10, wait_seconds=1)
        for message in messages:
            result = RecognitionResult.parse(message["Body"])
            found[result.filename] = result
        if messages:
            queue.delete_batch([message["ReceiptHandle"] for message in messages])
    return found


def compare(replies: list[tuple[str, str]], progress: Progress) -> None:
    """Print where replies differ from the expected ones, and raise `FacerecError` if any does."""
    wrong = [(reply, expected) for reply, expected in replies if reply != expected]
    for reply, expected in wrong:
        progress.line(f"- {expected}")
        progress.line(f"+ {reply}")
    if wrong:
        raise FacerecError(f"{len(wrong)} of {len(replies)} replies differ from the expected ones")


@contextmanager
def demo_directory(state: Path | None) -> Iterator[Path]:
    """The given directory, or a temporary one that stays only after an error."""
    if state is not None:
        yield state
        return
    scratch = Path(tempfile.mkdtemp(prefix="facerec-demo-"))
    kept = False
    try:
        yield scratch
    except FacerecError:
        kept = True
        echo(f"the logs are kept in {scratch / 'logs'}", err=True)
        raise
    finally:
        if not kept:
            shutil.rmtree(scratch)
