"""The settings of one tier each: web, worker, autoscaler, Flower with its events, and logging."""

from pathlib import Path
from typing import Literal, Self

from pydantic import AnyHttpUrl, Field, SecretStr, model_validator

from facerec.settings.values import Count, Group, PositiveSeconds, RateText, on_loopback


class WebSettings(Group):
    """The web tier."""

    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` on an instance behind a load balancer")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    processes: Count = Field(
        1, description="Web processes; with more than one each owns the response queue `<resp-queue>-<id>`"
    )
    wait_seconds: PositiveSeconds = Field(180, description="How long an upload waits for its result before 504")
    max_waiting: Count = Field(1000, description="Uploads that one process holds at once; more are refused with 503")
    shutdown_seconds: PositiveSeconds = Field(
        10, description="How long a stopping process still answers waiting clients"
    )
    max_upload_bytes: Count = Field(15_000_000, description="Largest upload in bytes; larger ones are refused with 413")
    auth: Literal["keys", "open"] = Field(
        "keys", description="Who is served: holders of an API key (`facerec keys`), or with `open` everyone"
    )
    rate_limit: RateText = Field(
        "6000/minute",
        description="Requests that each process answers one API key, or in open mode one client address; more get "
        "429. So many at once, refilled evenly; empty is no limit",
    )
    auth_failures: RateText = Field(
        "30/minute", description="Wrong API keys that each process accepts from one client address; more get 429"
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="Proxies in front, each of which adds to `X-Forwarded-For` and `-Proto`; with 0 these are ignored",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names that requests may be addressed to, as a JSON list; `.example.org` includes what is "
        "below it. None means any, but in open mode on loopback `localhost`, `127.0.0.1` and `::1`",
    )


class WorkerSettings(Group):
    """The app tier."""

    engines: int = Field(
        0,
        ge=0,
        description="Engine processes of one worker, each single-threaded; 0 means one per core that the scheduler's "
        "affinity and the control group's quota leave to it",
    )
    concurrency: Count = Field(16, description="Tasks that one worker holds at once (fetching, waiting, storing)")
    batch_max: Count = Field(8, description="Images that an engine process takes at once")
    batch_max_megapixels: float = Field(
        8, gt=0, description="Megapixels that an engine process takes at once; a larger picture goes alone"
    )
    batch_window_ms: float = Field(
        5, ge=0, le=1000, description="How long a batch waits for its next image while images stream in; 0 is never"
    )
    queue_max_images: Count = Field(64, description="Images that wait for an engine; then tasks wait to add theirs")
    queue_max_bytes: Count = Field(
        64_000_000, description="Bytes of images that wait for an engine; then tasks wait to add theirs"
    )
    task_time_limit_seconds: PositiveSeconds = Field(
        20, description="Longest time an engine may spend on what it takes at once"
    )
    retry_seconds: float = Field(
        600,
        ge=0,
        description="How long a worker keeps a task and tries again while AWS is unreachable, before it returns it "
        "and uses up one of its deliveries; 0 gives back at once",
    )
    startup_seconds: PositiveSeconds = Field(60, description="Longest time an engine process may take to load")
    instance_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="EC2 instance whose worker this is: it reports to the autoscaler, which may then ask it to drain",
    )
    report_seconds: float = Field(
        1, gt=0, le=30, description="How often an instance's worker reports, and looks whether it is to drain"
    )
    metadata_url: AnyHttpUrl | None = Field(
        None,
        description="EC2's instance metadata service, asked for spot interruption notices; unset: not asked "
        "(the instances' user data sets `http://169.254.169.254`)",
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the worker's Prometheus metrics")
    metrics_port: int = Field(
        0, ge=-1, le=65535, description="Port of the worker's Prometheus metrics; 0 takes a free one, -1 none"
    )


class AutoscaleSettings(Group):
    """The fleet's size."""

    min_instances: int = Field(0, ge=0, description="Instances that always run")
    max_instances: Count = Field(15, description="Instances that may be pending, running or draining at once")
    target_seconds: PositiveSeconds = Field(
        10, description="How soon the backlog shall be cleared once instances serve; less takes more instances"
    )
    cooldown_seconds: float = Field(
        60, ge=0, description="How long an instance must have been idle, or too many, before it is drained and stopped"
    )
    utilisation: float = Field(
        0.8, gt=0, le=1, description="Share of its time that an instance may be busy under a steady flow"
    )
    interval_seconds: float = Field(1, gt=0, le=60, description="How often the autoscaler reads queue and fleet")
    boot_prior_seconds: PositiveSeconds = Field(
        60, description="Assumed time from launch to first task, until it has been measured"
    )
    start_prior_seconds: PositiveSeconds = Field(30, description="The same for a stopped instance of the warm pool")
    service_prior_seconds: PositiveSeconds = Field(
        0.1, description="Assumed time of one busy instance for one task, until it has been measured"
    )
    boot_limit_seconds: PositiveSeconds = Field(
        300, description="An instance that has not reported this long after its launch or start is replaced"
    )
    silence_limit_seconds: PositiveSeconds = Field(
        60, description="An instance whose worker has not reported for this long is replaced"
    )
    drain_limit_seconds: PositiveSeconds = Field(
        120, description="An instance that has not drained this long after the request is terminated"
    )
    warm_pool_max: int = Field(
        4, ge=0, description="Stopped instances kept to be started again; they cost their disks. 0 terminates instead"
    )
    warm_pool_max_age_seconds: PositiveSeconds = Field(
        86_400, description="How long an instance may stay stopped before it is terminated"
    )
    lease_seconds: float = Field(
        15, ge=3, description="How soon a waiting autoscaler takes over after the active one has stopped"
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the autoscaler's Prometheus metrics")
    metrics_port: int = Field(
        0, ge=-1, le=65535, description="Port of the autoscaler's Prometheus metrics; 0 takes a free one, -1 none"
    )

    @model_validator(mode="after")
    def _least_below_most(self) -> Self:
        if self.min_instances > self.max_instances:
            message = (
                f"FACEREC_AUTOSCALE__MIN_INSTANCES ({self.min_instances}) must not exceed "
                f"FACEREC_AUTOSCALE__MAX_INSTANCES ({self.max_instances})"
            )
            raise ValueError(message)
        return self


class EventsSettings(Group):
    """Events of the tiers for Flower."""

    enabled: bool = Field(True, description="Whether web and workers send events for Flower to their queue")
    window_seconds: float = Field(
        1, ge=0.05, le=10, description="Time whose events travel in one message; Flower lags as much"
    )
    heartbeat_seconds: float = Field(
        5,
        ge=0.5,
        le=60,
        description="How often a worker shows that it lives; after twice as long Flower has it offline",
    )
    max_waiting: Count = Field(
        5000, description="Events that a process keeps while they cannot be sent; the oldest go first"
    )
    retention_seconds: int = Field(
        300, ge=60, le=86_400, description="How long events wait in their queue while Flower does not run"
    )


class FlowerSettings(Group):
    """`facerec flower`."""

    host: str = Field("127.0.0.1", description="Address to listen on; one that is not loopback needs TLS in front")
    port: int = Field(5555, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    auth: Literal["basic", "none"] = Field(
        "basic", description="`none` asks for no password and closes `/api`; on a loopback address only"
    )
    user: str = Field("facerec", pattern=r"^[A-Za-z0-9._-]+$", description="User name of the basic authentication")
    password: SecretStr | None = Field(
        None, min_length=8, description="Its password; unset makes one at every start and prints it"
    )
    database: Path | None = Field(
        None,
        description="File that keeps tasks when Flower restarts. It is a pickle: writers of it can run code as Flower; "
        "unset keeps none",
    )
    max_tasks: Count = Field(10_000, description="Tasks that Flower keeps in memory; the oldest go first")

    @model_validator(mode="after")
    def _open_to_this_machine_alone(self) -> Self:
        if self.auth == "none" and not on_loopback(self.host):
            message = f"FACEREC_FLOWER__AUTH=none needs a loopback address in FACEREC_FLOWER__HOST, not {self.host!r}"
            raise ValueError(message)
        return self


class LogSettings(Group):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")
    format: Literal["auto", "json", "console"] = Field("auto", description="`auto`: console on a terminal, else JSON")
