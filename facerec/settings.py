"""Every setting of every tier, read from `FACEREC_*` variables once, checked together, frozen.

This module is the only reader of the environment. AWS credentials are none of its business: they come from boto3's
default chain (variables, profile, instance role).
"""

import difflib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AnyHttpUrl, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from facerec.errors import ConfigurationError

ENV_PREFIX = "FACEREC_"
_DELIMITER = "__"

PositiveSeconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facerec"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AwsSettings(_Group):
    """Where AWS is."""

    region: str = Field("us-east-1", description="AWS region of every resource")
    endpoint_url: AnyHttpUrl | None = Field(
        None, description="Endpoint of every AWS service; unset means AWS itself (`facerec local env` sets it)"
    )
    max_connections: Count = Field(64, description="HTTP connections that one process keeps open to one AWS service")


class NameSettings(_Group):
    """Names of resources; each defaults to one derived from the prefix."""

    input_bucket: str | None = Field(None, description="Bucket of uploads; default `<prefix>-in-bucket`")
    output_bucket: str | None = Field(None, description="Bucket of results; default `<prefix>-out-bucket`")
    gallery_bucket: str | None = Field(None, description="Bucket of enrolled photos; default `<prefix>-gallery-bucket`")
    model_bucket: str | None = Field(None, description="Bucket of model artefacts; default `<prefix>-model-bucket`")
    request_queue: str | None = Field(None, description="Queue of tasks; default `<prefix>-req-queue`")
    dead_letter_queue: str | None = Field(None, description="Queue of failed tasks; default `<request queue>-dlq`")
    response_queue: str | None = Field(None, description="Queue of results; default `<prefix>-resp-queue`")
    templates_table: str | None = Field(None, description="DynamoDB table of templates; default `<prefix>-templates`")
    fleet_table: str | None = Field(
        None, description="DynamoDB table of what workers report and the autoscaler remembers; default `<prefix>-fleet`"
    )
    launch_template: str | None = Field(
        None, description="EC2 launch template of the app tier's instances; default `<prefix>-worker`"
    )


class WebSettings(_Group):
    """The web tier."""

    host: str = Field("127.0.0.1", description="Address to listen on; `0.0.0.0` on an instance behind a load balancer")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one")
    processes: Count = Field(
        1, description="Web processes; with more than one each owns the response queue `<resp-queue>-<id>`"
    )
    wait_seconds: PositiveSeconds = Field(180, description="How long an upload waits for its result before 504")
    max_waiting: Count = Field(250, description="Uploads that one process holds at once; more are refused with 503")
    shutdown_seconds: PositiveSeconds = Field(10, description="How long a stopping process answers who still waits")
    max_upload_bytes: Count = Field(15_000_000, description="Largest upload in bytes; larger ones are refused with 413")


class WorkerSettings(_Group):
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
    queue_max_bytes: Count = Field(64_000_000, description="Bytes of images that wait for an engine, likewise")
    task_time_limit_seconds: PositiveSeconds = Field(
        20, description="Longest time an engine may spend on what it takes at once"
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
        description="EC2's instance metadata service, asked for spot interruption notices; unset asks nobody "
        "(the instances' user data sets `http://169.254.169.254`)",
    )


class QueueSettings(_Group):
    """Delivery of tasks."""

    visibility_timeout_seconds: int = Field(
        30, ge=1, le=43_200, description="How long a received task stays hidden before it is delivered again"
    )
    max_receives: Count = Field(4, description="Deliveries of one task before it goes to the dead-letter queue")
    wait_time_seconds: int = Field(
        10,
        ge=1,
        le=10,
        description="Long-poll time; the HTTP client gives up at 20 s. An instance's worker polls for 1 s, to drain "
        "soon when it is asked to",
    )


class RetentionSettings(_Group):
    """How long objects are kept."""

    input_days: Count = Field(1, description="Days after which uploads expire")
    result_days: Count = Field(7, description="Days after which results expire")


class GallerySettings(_Group):
    """Enrolled people."""

    refresh_seconds: PositiveSeconds = Field(2, le=5, description="How often a worker looks for changes of the gallery")
    min_face_pixels: Count = Field(16, description="Least length in pixels of the shorter side of a face to enrol")


class ModelSettings(_Group):
    """The model artefact."""

    dir: Path = Field(
        default_factory=lambda: _cache_home() / "model",
        description="Directory of the model artefact; default `model` in `$XDG_CACHE_HOME/facerec`",
    )
    cache_dir: Path = Field(
        default_factory=lambda: _cache_home() / "downloads",
        description="Downloads, compiled models, copies of galleries; default `downloads` in `$XDG_CACHE_HOME/facerec`",
    )


class AutoscaleSettings(_Group):
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
    interval_seconds: float = Field(1, gt=0, le=60, description="How often queue and fleet are looked at")
    boot_prior_seconds: PositiveSeconds = Field(
        60, description="Assumed time from launch to first task, until it has been measured"
    )
    start_prior_seconds: PositiveSeconds = Field(30, description="The same for a stopped instance of the warm pool")
    service_prior_seconds: PositiveSeconds = Field(
        0.1, description="Assumed time of one busy instance for one task, until it has been measured"
    )
    boot_limit_seconds: PositiveSeconds = Field(
        300, description="An instance that has not reported so long after its launch or start is replaced"
    )
    silence_limit_seconds: PositiveSeconds = Field(
        60, description="An instance whose worker has not reported for so long is replaced"
    )
    drain_limit_seconds: PositiveSeconds = Field(
        120, description="An instance that has not drained so long after it was asked to is terminated"
    )
    warm_pool_max: int = Field(
        4, ge=0, description="Stopped instances kept to be started again; they cost their disks. 0 terminates instead"
    )
    warm_pool_max_age_seconds: PositiveSeconds = Field(
        86_400, description="How long an instance may stay stopped before it is terminated"
    )
    lease_seconds: float = Field(
        15, ge=3, description="How soon a waiting autoscaler takes over from one that has fallen silent"
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


class InstancesSettings(_Group):
    """The app tier's EC2 instances, as `facerec provision` writes them into the launch template."""

    image_id: str | None = Field(
        None,
        description="AMI to launch; unset leaves the launch template alone, so nothing can be launched without one",
    )
    types: tuple[str, ...] = Field(
        ("c7i.large", "c7a.large", "m7i.large"),
        min_length=1,
        description="Instance types as a JSON list, the first preferred; the others when EC2 has none of it",
    )
    subnet_ids: tuple[str, ...] = Field((), description="Subnets as a JSON list; none means the default VPC's")
    security_group_ids: tuple[str, ...] = Field((), description="Security groups as a JSON list")
    profile: str | None = Field(None, description="Name of the IAM instance profile")
    key_name: str | None = Field(None, description="EC2 key pair for SSH; unset means no SSH")
    purchase: Literal["on-demand", "spot"] = Field("on-demand", description="How instances are bought")
    volume_gb: Count = Field(16, description="Size of the root volume in GB")
    package: str | None = Field(
        None,
        pattern=r"^s3://[^/]+/\S+\.whl$",
        description="`s3://…` address of the facerec wheel that instances install, with `constraints.txt` beside it; "
        "unset: the AMI has it",
    )


class LogSettings(_Group):
    """Logging."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged")
    format: Literal["auto", "json", "console"] = Field("auto", description="`auto`: console on a terminal, else JSON")


class Settings(BaseSettings):
    """The effective settings; `Settings.load()` is how a process gets them."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter=_DELIMITER, frozen=True, extra="forbid", case_sensitive=False
    )

    prefix: str = Field("facerec", pattern=r"^[a-z0-9][a-z0-9-]{1,30}$", description="First part of every name")
    engine: Literal["auto", "openvino", "onnxruntime", "torch"] = Field(
        "auto", description="Recognition engine; `auto` takes OpenVINO where installed, else ONNX Runtime"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Numbers of the embedder; `auto` takes bf16 where OpenVINO offers it and it is faster here"
    )
    reply_style: Literal["sentence", "name"] = Field(
        "sentence", description="`sentence`: `a.jpg: face detected - Jane`; `name`: `a:Jane`"
    )
    key_style: Literal["request", "filename"] = Field(
        "request", description="`filename` adds copies of input and bare result under the file's own name"
    )
    max_megapixels: float = Field(50, gt=0, le=200, description="Largest picture in megapixels; larger ones get 415")
    aws: AwsSettings = AwsSettings()
    names: NameSettings = NameSettings()
    web: WebSettings = WebSettings()
    worker: WorkerSettings = WorkerSettings()
    queue: QueueSettings = QueueSettings()
    retention: RetentionSettings = RetentionSettings()
    gallery: GallerySettings = GallerySettings()
    model: ModelSettings = ModelSettings()
    autoscale: AutoscaleSettings = AutoscaleSettings()
    instances: InstancesSettings = InstancesSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only arguments and the environment: no file is read behind the operator's back."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment; raises `ConfigurationError` naming every wrong variable."""
        known = {variable for variable, _ in variables()}
        problems = [
            _unknown_variable(name, known)
            for name in sorted(os.environ)
            # Also in lower case, which would be read but looks like something else.
            if name.upper().startswith(ENV_PREFIX) and name not in known
        ]
        try:
            settings = cls()
        except SettingsError as exc:
            problems.append(f'{exc}: a list is written as JSON, like \'["a", "b"]\'')
        except ValidationError as exc:
            problems += [_problem(error) for error in exc.errors() if error["type"] != "extra_forbidden"]
        else:
            if not problems:
                return settings
        raise ConfigurationError("wrong settings:\n" + "\n".join(f"  {problem}" for problem in problems))

    @model_validator(mode="after")
    def _timings_fit(self) -> Self:
        """A redelivery after a worker's loss must still answer the waiting client (the contract's check)."""
        needed = (
            self.autoscale.boot_prior_seconds
            + self.queue.visibility_timeout_seconds
            + self.worker.task_time_limit_seconds
        )
        if self.web.wait_seconds <= needed:
            message = (
                f"FACEREC_WEB__WAIT_SECONDS ({self.web.wait_seconds:g}) must exceed boot time + visibility timeout + "
                f"task time limit ({needed:g} s)"
            )
            raise ValueError(message)
        if self.queue.visibility_timeout_seconds <= self.worker.task_time_limit_seconds:
            message = (
                f"FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS ({self.queue.visibility_timeout_seconds}) must exceed "
                f"FACEREC_WORKER__TASK_TIME_LIMIT_SECONDS ({self.worker.task_time_limit_seconds:g}), or a slow task "
                "is delivered twice"
            )
            raise ValueError(message)
        return self

    @property
    def input_bucket(self) -> str:
        """Bucket of uploads."""
        return self.names.input_bucket or f"{self.prefix}-in-bucket"

    @property
    def output_bucket(self) -> str:
        """Bucket of results."""
        return self.names.output_bucket or f"{self.prefix}-out-bucket"

    @property
    def gallery_bucket(self) -> str:
        """Bucket of enrolled photos."""
        return self.names.gallery_bucket or f"{self.prefix}-gallery-bucket"

    @property
    def model_bucket(self) -> str:
        """Bucket of model artefacts."""
        return self.names.model_bucket or f"{self.prefix}-model-bucket"

    @property
    def request_queue(self) -> str:
        """Queue of tasks."""
        return self.names.request_queue or f"{self.prefix}-req-queue"

    @property
    def dead_letter_queue(self) -> str:
        """Queue of failed tasks."""
        return self.names.dead_letter_queue or f"{self.request_queue}-dlq"

    @property
    def response_queue(self) -> str:
        """Queue of results."""
        return self.names.response_queue or f"{self.prefix}-resp-queue"

    @property
    def templates_table(self) -> str:
        """DynamoDB table of templates."""
        return self.names.templates_table or f"{self.prefix}-templates"

    @property
    def fleet_table(self) -> str:
        """DynamoDB table of what workers report and the autoscaler remembers."""
        return self.names.fleet_table or f"{self.prefix}-fleet"

    @property
    def launch_template(self) -> str:
        """EC2 launch template of the app tier's instances."""
        return self.names.launch_template or f"{self.prefix}-worker"

    @property
    def endpoint_url(self) -> str | None:
        """The AWS endpoint without a trailing slash, or nothing for AWS itself."""
        return str(self.aws.endpoint_url).rstrip("/") if self.aws.endpoint_url else None


def variables(model: type[BaseModel] = Settings, prefix: str = ENV_PREFIX) -> Iterator[tuple[str, Any]]:
    """Every variable with its pydantic field, in the order of declaration."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, _Group):
            yield from variables(annotation, f"{prefix}{name.upper()}{_DELIMITER}")
        else:
            yield f"{prefix}{name.upper()}", field


def effective(settings: Settings) -> dict[str, str]:
    """Every variable with its value in force, secrets masked, as `facerec config` prints them."""
    values = dict(_values(settings, ENV_PREFIX))
    names = {
        f"{ENV_PREFIX}NAMES{_DELIMITER}{name.upper()}": getattr(settings, name) for name in NameSettings.model_fields
    }
    return values | names


def _values(model: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        variable = f"{prefix}{name.upper()}"
        if isinstance(value, _Group):
            yield from _values(value, f"{variable}{_DELIMITER}")
        elif isinstance(value, AnyHttpUrl) and value.password:
            yield variable, str(value).replace(value.password, "********")
        elif isinstance(value, tuple):
            yield variable, json.dumps(value)
        else:
            yield variable, "" if value is None else str(value)


def _unknown_variable(name: str, known: set[str]) -> str:
    close = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    hint = f"; did you mean {close[0]}?" if close else "; `facerec config` lists them all"
    return f"{name}: there is no such setting{hint}"


def _problem(error: Any) -> str:
    location = [str(part) for part in error["loc"]]
    message = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return message
    secret = isinstance(error.get("input"), SecretStr | dict)
    got = "" if secret else f" (got {error['input']!r})"
    return f"{ENV_PREFIX}{_DELIMITER.join(location).upper()}: {message}{got}"
