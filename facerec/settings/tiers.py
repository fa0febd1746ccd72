"""The settings of a single tier: web, worker, autoscaler, Flower with its events; and logging."""

from pathlib import Path
from typing import Literal, Self

from pydantic import AnyHttpUrl, Field, SecretStr, model_validator

from facerec.settings.values import Count, Group, LogDays, NetworkList, PositiveSeconds, RateText, on_loopback


class WebSettings(Group):
    """The web tier."""

    host: str = Field("127.0.0.1", description="Address to listen on; behind a load balancer `0.0.0.0`")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    processes: Count = Field(1, description="Web processes; several have a response queue each")
    wait_seconds: PositiveSeconds = Field(180, description="Seconds that an upload waits for its result before 504")
    max_waiting: Count = Field(
        1000,
        description="Uploads of one client that wait in a process, and a tenth more of all clients; more get 503",
    )
    shutdown_seconds: PositiveSeconds = Field(
        10, description="Seconds for which a stopping process still answers its clients"
    )
    max_upload_bytes: Count = Field(15_000_000, description="Largest upload in bytes; a larger one gets 413")
    auth: Literal["keys", "open"] = Field(
        "keys", description="`keys`: requests need an API key (`facerec keys`); `open`: they need none"
    )
    rate_limit: RateText = Field(
        "6000/minute",
        description="Requests per API key (open mode: per address) and process; more get 429; empty: no limit",
    )
    auth_failures: RateText = Field(
        "30/minute", description="Wrong API keys per client address and process; more get 429"
    )
    session_hours: float = Field(
        12, gt=0, le=720, description="Hours after which a person who signed in at the pages signs in again"
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="Proxies in front that append to `X-Forwarded-For`; 0 ignores the header",
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names that are served, a JSON list; empty: any (open mode on loopback: loopback names)",
    )
    image_buckets: tuple[str, ...] = Field(
        (), description="Buckets whose images clients of the Rekognition API may name as `S3Object`, a JSON list"
    )
    flower_url: AnyHttpUrl | None = Field(None, description="Address of Flower, for the link on the page; unset: none")


class JobSettings(Group):
    """Jobs: many files in one call."""

    window: Count = Field(100, description="Files of all jobs that one web process has in work at once")
    max_files: Count = Field(10_000, description="Most files of one job")
    max_bytes: Count = Field(256_000_000, description="Largest body of a call that creates a job, in bytes")
    max_unpacked_bytes: Count = Field(
        4_000_000_000, description="Most bytes of all files of one zip together, after unpacking"
    )
    source_buckets: tuple[str, ...] = Field(
        (), description="Buckets from which jobs may read a prefix, a JSON list; empty: none"
    )


class CallbackSettings(Group):
    """Signed messages to the web servers of clients."""

    secret: SecretStr | None = Field(
        None,
        min_length=16,
        description="What each client's secret of callbacks is made of; unset: there are no callbacks",
    )
    private_networks: NetworkList = Field(
        (), description='Networks that may be called although they are private, a JSON list like `["10.1.0.0/16"]`'
    )
    retry_hours: float = Field(24, gt=0, le=168, description="Hours for which a failed callback is tried again")


class ClientSettings(Group):
    """The commands that are clients of a web tier, such as `facerec recognise`."""

    url: AnyHttpUrl = Field(AnyHttpUrl("http://127.0.0.1:8000"), description="Address of the web tier")
    key: SecretStr | None = Field(None, min_length=1, description="API key for it; unset: none, as in open mode")


class UnknownSettings(Group):
    """Unknown people: faces without a match that get an id, until they have not been seen for some days."""

    collections: tuple[str, ...] = Field(
        (), description='Collections whose unknown people are kept, a JSON list; `["*"]`: all, empty: none'
    )
    days: float = Field(30, gt=0, le=3650, description="Days after which an unknown person is forgotten if not seen")
    min_quality: float = Field(0.5, ge=0, le=1, description="Least quality of a face that founds an id, 0 to 1")
    min_probability: float = Field(
        0.9, ge=0, le=1, description="Least detection probability of a face that founds an id, 0 to 1"
    )
    similarity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Least similarity of two faces of an id; unset: the model's, stricter than for names",
    )
    max_people: Count = Field(10_000, description="Most unknown people of a collection; then no id is founded")
    alert_url: str | None = Field(
        None, description="Address that gets a signed callback about unknown people; unset: there is none"
    )
    alert_on: Literal["new", "seen"] = Field(
        "new", description="`new`: when an id is founded; `seen`: also when it is seen again"
    )
    alert_minutes: float = Field(60, ge=1, description="Least minutes between two alerts about an id")

    def kept(self, collection: str) -> bool:
        """Whether the unknown people of a collection are kept."""
        return collection in self.collections or "*" in self.collections


class WorkerSettings(Group):
    """The app tier."""

    engines: int = Field(
        0,
        ge=0,
        description="Engine processes of one worker; 0: one per core that it may use",
    )
    concurrency: Count = Field(16, description="Tasks that one worker holds at once")
    batch_max: Count = Field(8, description="Images of one batch")
    batch_max_megapixels: float = Field(8, gt=0, description="Megapixels of one batch; a larger picture goes alone")
    batch_window_ms: float = Field(
        5, ge=0, le=1000, description="Milliseconds that a batch waits for its next image; 0: none"
    )
    queue_max_images: Count = Field(64, description="Images that wait for an engine; then tasks wait")
    queue_max_bytes: Count = Field(64_000_000, description="Bytes of images that wait for an engine; then tasks wait")
    task_time_limit_seconds: PositiveSeconds = Field(
        20, description="Longest time in seconds for one batch of images, which may be of several tasks"
    )
    retry_seconds: float = Field(
        600,
        ge=0,
        description="Seconds of retries in one delivery while AWS is unreachable; 0: none",
    )
    startup_seconds: PositiveSeconds = Field(
        60, description="Longest time in seconds for one engine process to load the model"
    )
    instance_id: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9-]{1,64}$",
        description="EC2 instance of this worker; set: it reports to the autoscaler",
    )
    report_seconds: float = Field(1, gt=0, le=30, description="Seconds between two reports to the autoscaler")
    metadata_url: AnyHttpUrl | None = Field(
        None,
        description="EC2 metadata service with spot notices; unset: none are read",
    )
    metrics_host: str = Field("127.0.0.1", description="Address of the worker's Prometheus metrics")
    metrics_port: int = Field(
        0, ge=-1, le=65535, description="Port of the worker's Prometheus metrics; 0: a free one, -1: none"
    )


FUNCTION_RESERVE_SECONDS = 1.5
"""The end of an invocation's time: what is not done by then is reported as failed, before Lambda ends the process."""
_AROUND_THE_ENGINE_SECONDS = 3.0
"""Two restarts of the engine, each below a second, and the calls of S3 and SQS before and after it."""


class ServerlessSettings(Group):
    """The app tier as Lambda functions; `facerec serverless deploy` writes them into the stack."""

    image: str | None = Field(
        None,
        pattern=r"^[^\s@]+@sha256:[0-9a-f]{64}$",
        description="Image of both functions by its digest, as `facerec serverless push` prints it",
    )
    code: str | None = Field(
        None,
        pattern=r"^s3://[^/]+/[^\s#]+\.zip$",
        description="Instead of the image: `s3://….zip`, the code of both functions for SnapStart",
    )
    architecture: Literal["x86_64", "arm64"] = Field("x86_64", description="Processor of the functions and their image")
    detection_memory_mb: int = Field(
        1769, ge=512, le=10_240, description="Memory of the detection function in MB; 1769 MB have one core"
    )
    recognition_memory_mb: int = Field(1769, ge=512, le=10_240, description="Memory of the recognition function in MB")
    timeout_seconds: int = Field(
        15, ge=10, le=900, description="Time limit of one invocation in seconds; queues hide messages six times as long"
    )
    batch_size: int = Field(10, ge=1, le=10, description="Most messages of one invocation")
    max_concurrency: int = Field(
        15, ge=2, le=1000, description="Most invocations of each function at once for its queue"
    )
    url_auth: Literal["iam", "open"] = Field(
        "iam", description="Who may call the detection function's URL: signed requests, or everybody"
    )
    reserved_concurrency: int | None = Field(
        None,
        ge=2,
        description="Most detections at once, also by the URL; unset: the account's limit",
    )
    inbox_prefix: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_./-]*/)?$",
        description="Folder of the input bucket, like `inbox/`, whose new objects are recognised; empty: none",
    )
    alarm_topic: str | None = Field(
        None, pattern=r"^arn:[a-z-]+:sns:\S+$", description="ARN of the SNS topic that the alarms tell; unset: none"
    )
    log_days: LogDays = Field(14, description="Days that CloudWatch keeps the functions' logs")

    @model_validator(mode="after")
    def _one_code_and_room_for_the_queue(self) -> Self:
        if self.image is not None and self.code is not None:
            raise ValueError("set FACEREC_SERVERLESS__IMAGE or FACEREC_SERVERLESS__CODE, not both")
        if self.reserved_concurrency is not None and self.reserved_concurrency < self.max_concurrency:
            message = (
                f"FACEREC_SERVERLESS__RESERVED_CONCURRENCY ({self.reserved_concurrency}) must not be below "
                f"FACEREC_SERVERLESS__MAX_CONCURRENCY ({self.max_concurrency}), or refused invocations use up the "
                "deliveries of their tasks"
            )
            raise ValueError(message)
        return self

    @property
    def visibility_seconds(self) -> int:
        """How long a queue that invokes a function hides a message."""
        return 6 * self.timeout_seconds

    @property
    def engine_limit_seconds(self) -> float:
        """The longest time for one batch of images in a function.

        A picture that makes the engine hang takes it twice: in its batch, and alone. Then the engine starts again.
        All of that has to fit into one invocation, or the picture would never be found out.
        """
        return (self.timeout_seconds - FUNCTION_RESERVE_SECONDS - _AROUND_THE_ENGINE_SECONDS) / 2


class AutoscaleSettings(Group):
    """The fleet's size."""

    min_instances: int = Field(0, ge=0, description="Instances that always run")
    max_instances: Count = Field(15, description="Instances that are pending, running or draining at once")
    target_seconds: PositiveSeconds = Field(
        10, description="Seconds in which a backlog shall be cleared; less takes more instances"
    )
    cooldown_seconds: float = Field(
        60, ge=0, description="Seconds that an instance is idle or surplus before it is drained"
    )
    utilisation: float = Field(
        0.8, gt=0, le=1, description="Share of its time that an instance works under a steady flow"
    )
    interval_seconds: float = Field(1, gt=0, le=60, description="Seconds between two rounds of the autoscaler")
    boot_prior_seconds: PositiveSeconds = Field(
        60, description="Assumed seconds from launch to first task, until measured"
    )
    start_prior_seconds: PositiveSeconds = Field(30, description="The same for a stopped instance of the warm pool")
    service_prior_seconds: PositiveSeconds = Field(
        0.1, description="Assumed seconds of an instance per task; measured ones count from 0.01 to 10 times"
    )
    boot_limit_seconds: PositiveSeconds = Field(
        300, description="Seconds without a first report; then an instance is replaced"
    )
    silence_limit_seconds: PositiveSeconds = Field(
        60, description="Seconds without a report; then an instance is replaced"
    )
    drain_limit_seconds: PositiveSeconds = Field(
        120, description="Seconds that a drain may take; then the instance is terminated"
    )
    warm_pool_max: int = Field(4, ge=0, description="Stopped instances to keep; 0 terminates instead")
    warm_pool_max_age_seconds: PositiveSeconds = Field(86_400, description="Seconds that an instance may stay stopped")
    lease_seconds: float = Field(15, ge=3, description="Seconds until a waiting autoscaler takes over")
    metrics_host: str = Field("127.0.0.1", description="Address of the autoscaler's Prometheus metrics")
    metrics_port: int = Field(0, ge=-1, le=65535, description="Port of its Prometheus metrics; 0: a free one, -1: none")

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

    enabled: bool = Field(True, description="Whether web tier and workers send events for Flower")
    window_seconds: float = Field(
        1, ge=0.05, le=10, description="Seconds of events in one message; Flower lags as much"
    )
    heartbeat_seconds: float = Field(
        5,
        ge=0.5,
        le=60,
        description="Seconds between a worker's heartbeats for Flower",
    )
    max_waiting: Count = Field(
        5000, description="Events that a process keeps while it cannot send; the oldest go first"
    )
    retention_seconds: int = Field(
        300, ge=60, le=86_400, description="Seconds that events are kept while Flower does not run"
    )


class FlowerSettings(Group):
    """`facerec flower`."""

    host: str = Field("127.0.0.1", description="Address to listen on; other than loopback it needs TLS in front")
    port: int = Field(5555, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    auth: Literal["basic", "none"] = Field("basic", description="`none`: no password, no `/api`, loopback only")
    user: str = Field("facerec", pattern=r"^[A-Za-z0-9._-]+$", description="User name of the basic authentication")
    password: SecretStr | None = Field(
        None, min_length=8, description="Its password, at least 8 characters; unset: every start prints a new one"
    )
    database: Path | None = Field(
        None,
        description="Pickle file that keeps tasks over a restart; unset: none",
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
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`auto`: console on a terminal, otherwise JSON"
    )
