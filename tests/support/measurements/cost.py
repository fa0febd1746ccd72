"""What a photo costs on Lambda and on EC2, and a device's frame, from published prices and measured figures. Pure.

docs/cost.md explains it. It counts what the app tier adds. Both tiers need the web tier, the upload to S3
and the message to the request queue.
"""

from dataclasses import dataclass, replace
from math import ceil

from facerec.provision.iam_edge import RULES

HOUR_SECONDS = 3600
_MB_PER_GB = 1024
_MOST_PHOTOS = 1_000_000
_IOT_UNIT_KB = 5
_RULES = len(RULES)


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars in us-east-1, without free tiers and discounts; docs/cost.md names the source of each."""

    gb_second: float = 0.0000166667
    """Lambda on x86; arm64 is a fifth cheaper. The start of a function is billed, too."""
    invocation: float = 0.20e-6
    sqs_request: float = 0.40e-6
    """Every 64 KB of a call count as one request."""
    s3_put: float = 5e-6
    s3_get: float = 0.4e-6
    read_unit: float = 0.125e-6
    """DynamoDB on demand."""
    log_gb: float = 0.50
    instance_hour: float = 0.08925
    """c7i.large on demand."""
    address_hour: float = 0.005
    """The public IPv4 address of an instance; an instance in a private network needs more expensive things."""
    iot_message: float = 1.00e-6
    """AWS IoT Core; each 5 KB of a message, in either direction, count as one."""
    iot_rule: float = 0.15e-6
    """A rule that looks at a message, and each action, by the same units."""
    iot_connection_minute: float = 0.08e-6


X86 = Prices()
ARM64 = replace(X86, gb_second=0.0000133334)
C7A = replace(X86, instance_hour=0.10264)
SPOT = replace(X86, instance_hour=0.4 * X86.instance_hour)
"""Spot instances of the fleet's types mostly cost 30 to 50 % of the price on demand."""


@dataclass(frozen=True, slots=True)
class Half:
    """One of the two functions."""

    memory_mb: int
    start_seconds: float
    """From the start of the process until the engine is ready: billed once for each new environment."""
    alone_seconds: float
    """An invocation with one photo."""
    batched_seconds: float
    """The share of one photo in an invocation with ten."""


@dataclass(frozen=True, slots=True)
class Functions:
    """The app tier on Lambda."""

    detection: Half
    recognition: Half
    batch_size: int = 10
    max_concurrency: int = 15
    kept_seconds: float = 600
    """How long Lambda keeps an idle environment; AWS does not state it."""
    faces_kb: float = 45
    """A faces message with one face."""
    log_kb: float = 1.0
    """Of an invocation: our line for one photo, and Lambda's own."""
    idle_receives_an_hour: float = 2 * 5 * HOUR_SECONDS / 20
    """Lambda polls each of two queues with five readers, for 20 s each."""


@dataclass(frozen=True, slots=True)
class Instances:
    """The app tier on EC2, scaled by the autoscaler with its default settings."""

    photos_per_second: float
    """What one instance does."""
    boot_seconds: float = 60
    cooldown_seconds: float = 60
    target_seconds: float = 10
    """In which a backlog is cleared."""
    utilisation: float = 0.8
    max_instances: int = 15
    sqs_requests: float = 1.15
    """For a photo, mostly in batches (docs/performance.md)."""
    idle_requests_an_hour: float = HOUR_SECONDS
    """The autoscaler reads the depth of the request queue every second."""


@dataclass(frozen=True, slots=True)
class Load:
    """`at_once` photos arrive together, at even intervals, `photos` in an hour."""

    photos: float
    at_once: int = 1

    @property
    def events(self) -> float:
        """How often photos arrive in an hour."""
        return self.photos / self.at_once

    @property
    def gap_seconds(self) -> float:
        """The time between two arrivals."""
        return HOUR_SECONDS / self.events


def functions_cost(load: Load, tier: Functions, prices: Prices = X86) -> float:
    """Return the dollars for 1 000 photos on Lambda."""
    batch = _batch(load, tier)
    hourly = tier.idle_receives_an_hour * prices.sqs_request
    for half, message_kb in ((tier.detection, 2.0), (tier.recognition, tier.faces_kb)):
        environments = min(tier.max_concurrency, ceil(load.at_once / batch))
        starts = load.events * environments if load.gap_seconds > tier.kept_seconds else 0
        seconds = load.photos * _seconds(half, batch, tier.batch_size) + starts * half.start_seconds
        invocations = load.photos / batch
        # Lambda receives and deletes a batch with one call each; a call that carries messages counts by their size.
        requests = invocations * (ceil(batch * message_kb / 64) + 1)
        hourly += seconds * half.memory_mb / _MB_PER_GB * prices.gb_second
        hourly += invocations * (prices.invocation + tier.log_kb / 1e6 * prices.log_gb) + requests * prices.sqs_request
    sends = 1 / batch + ceil(batch * tier.faces_kb / 64) / batch  # results, faces
    hourly += load.photos * (sends * prices.sqs_request + prices.s3_get + prices.s3_put)
    return hourly / load.photos * 1000


def _batch(load: Load, tier: Functions) -> int:
    return min(tier.batch_size, load.at_once)


def _seconds(half: Half, batch: int, batch_size: int) -> float:
    """Return the billed seconds of a photo, between those alone and those in a full batch."""
    share = (batch - 1) / max(1, batch_size - 1)
    return half.alone_seconds + share * (half.batched_seconds - half.alone_seconds)


def instances_cost(load: Load, tier: Instances, prices: Prices = X86) -> float:
    """Return the dollars for 1 000 photos on EC2."""
    hourly = instance_seconds(load, tier) / HOUR_SECONDS * (prices.instance_hour + prices.address_hour)
    calls = tier.sqs_requests * prices.sqs_request + prices.s3_get + prices.s3_put
    hourly += tier.idle_requests_an_hour * prices.sqs_request
    return (hourly + load.photos * calls) / load.photos * 1000


def instance_seconds(load: Load, tier: Instances) -> float:
    """Return the billed seconds of all instances in an hour.

    Each arrival starts as many instances as clear it within the target; they stay for their cooldown. Arrivals that
    follow each other faster than that find the instances running. The average load needs its share of them anyway.
    """
    wanted = ceil(load.at_once / (tier.photos_per_second * tier.target_seconds))
    count = min(tier.max_instances, max(1, wanted))
    work = load.at_once / (count * tier.photos_per_second)
    each = min(load.gap_seconds, tier.boot_seconds + work + tier.cooldown_seconds)
    steady = ceil(load.photos / HOUR_SECONDS / (tier.photos_per_second * tier.utilisation)) * HOUR_SECONDS
    return load.events * each * count if each < load.gap_seconds else max(count * HOUR_SECONDS, steady)


def crossing(at_once: int, functions: Functions, instances: Instances, prices: Prices = X86) -> float | None:
    """Return from how many photos an hour, to a tenth, EC2 is cheaper; None if it is not up to a million."""
    photos = 1.0
    while photos <= _MOST_PHOTOS:
        load = Load(photos, at_once)
        if instances_cost(load, instances, prices) < functions_cost(load, functions, prices):
            return photos
        photos *= 1.1
    return None


@dataclass(frozen=True, slots=True)
class DeviceFrame:
    """What a device sends about one frame."""

    message_kb: float
    faces: bool
    """Whether there are any; otherwise the message is the result."""
    answered: bool = False
    """Whether the device asks for the result (`FACEREC_EDGE__RESULTS`)."""


def _units(kb: float) -> int:
    return ceil(kb / _IOT_UNIT_KB)


def frame_cost(frame: DeviceFrame, prices: Prices = X86) -> float:
    """Return the dollars for 1 000 frames of a device: AWS IoT Core, both queues and the stored result."""
    # Each rule looks at each message, and is billed for at least one action.
    by_units = prices.iot_message + _RULES * 2 * prices.iot_rule
    dollars = _units(frame.message_kb) * by_units + ceil(frame.message_kb / 64) * prices.sqs_request
    if frame.faces:
        # Received and deleted alone; the result is stored, and sent to the response queue.
        dollars += 3 * prices.sqs_request + prices.s3_get + prices.s3_put
        # The cloud's publish, its delivery, and the device's acknowledgement.
        dollars += frame.answered * 3 * prices.iot_message
    return dollars * 1000


def device_month_cost(status_seconds: float, prices: Prices = X86) -> float:
    """Return the dollars for a device that is connected for 30 days and publishes its status."""
    minutes = 30 * 24 * 60
    return minutes * (prices.iot_connection_minute + 60 / status_seconds * prices.iot_message)


# Measured on this project's machine by `python -m benchmarks.serverless` and `benchmarks.pipeline`: docs/cost.md.
MEASURED = Functions(
    detection=Half(1769, start_seconds=0.80, alone_seconds=0.060, batched_seconds=0.017),
    recognition=Half(1769, start_seconds=0.90, alone_seconds=0.048, batched_seconds=0.046),
)
FLEET = Instances(photos_per_second=60)
BURST = 100
FRAMES = {
    "with a face": DeviceFrame(11.0, faces=True),
    "the same, and its result to the device": DeviceFrame(11.0, faces=True, answered=True),
    "without a face": DeviceFrame(0.7, faces=False),
}
"""Measured by `python -m benchmarks.edge`: docs/performance.md."""
LOADS = (10, 100, 1000, 10_000, 100_000, 1_000_000)


def table(at_once: int) -> list[str]:
    """Return the lines of a Markdown table: dollars for 1 000 photos against photos an hour."""
    lines = [
        "| photos an hour | functions, x86 | arm64 | EC2, c7i.large | c7a.large | spot |",
        "|---|---|---|---|---|---|",
    ]
    for photos in LOADS:
        load = Load(photos, at_once)
        dollars = [
            *(functions_cost(load, MEASURED, prices) for prices in (X86, ARM64)),
            *(instances_cost(load, FLEET, prices) for prices in (X86, C7A, SPOT)),
        ]
        cells = " | ".join(f"{one:.4f}" for one in dollars)
        lines.append(f"| {photos:,} | {cells} |".replace(",", " "))
    return lines


def device_table() -> list[str]:
    """Return the lines of a Markdown table: dollars for 1 000 frames of a device."""
    rows = [
        f"| {name} | {frame.message_kb:.1f} KB | {_units(frame.message_kb)} | {frame_cost(frame):.4f} |"
        for name, frame in FRAMES.items()
    ]
    return ["| frame | message | units of 5 KB | dollars for 1 000 |", "|---|---|---|---|", *rows]
