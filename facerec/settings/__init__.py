"""Every setting of every tier: read from `FACEREC_*` variables once, checked together, frozen.

This package is the only reader of the environment. AWS credentials come from boto3's default chain (variables, profile,
instance role).
"""

import difflib
import json
import os
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self, get_args

from pydantic import AnyHttpUrl, BaseModel, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from facerec.errors import WrongSettings
from facerec.settings.edge import EdgeSettings
from facerec.settings.resources import (
    AwsSettings,
    ErasureSettings,
    GallerySettings,
    InstancesSettings,
    ModelSettings,
    NameSettings,
    QueueSettings,
    RetentionSettings,
)
from facerec.settings.tiers import (
    AutoscaleSettings,
    CallbackSettings,
    ClientSettings,
    EventsSettings,
    FlowerSettings,
    JobSettings,
    LogSettings,
    ServerlessSettings,
    UnknownSettings,
    WebSettings,
    WorkerSettings,
)
from facerec.settings.values import Group

ENV_PREFIX = "FACEREC_"
MASK = "**********"
"""Replaces a secret in printed settings, like pydantic's own mask."""
_DELIMITER = "__"
AppTier = Literal["ec2", "serverless", "both"]


class ResourceName:
    """An attribute of `Settings`: the name of the same field in `NameSettings`, with its placeholders replaced."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the attribute's name."""
        self._name = name

    def __get__(self, settings: "Settings", owner: type) -> str:
        """Return the resource's name."""
        text: str = getattr(settings.names, self._name) or NameSettings.model_fields[self._name].default
        text = text.replace("<prefix>", settings.prefix)
        for queue in ("request_queue", "faces_queue"):
            if f"<{queue}>" in text:
                text = text.replace(f"<{queue}>", getattr(settings, queue))
        return text


class Settings(BaseSettings):
    """The effective settings; a process gets them from `Settings.load()`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=_DELIMITER,
        frozen=True,
        extra="forbid",
        case_sensitive=False,
    )

    prefix: str = Field(
        "facerec", pattern=r"^[a-z0-9][a-z0-9-]{1,30}$", description="First part of every resource name"
    )
    engine: Literal["auto", "openvino", "onnxruntime", "torch"] = Field(
        "auto", description="Recognition engine; `auto` takes OpenVINO if it is installed, otherwise ONNX Runtime"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Number format of the embedder; `auto` takes bf16 if OpenVINO and the CPU have it"
    )
    app_tier: AppTier = Field(
        "ec2",
        description="What takes the tasks of the request queue: the workers on EC2, the Lambda functions, or both",
    )
    reply_style: Literal["sentence", "name"] = Field(
        "sentence", description="`sentence`: `a.jpg: face detected - Jane`; `name`: `a:Jane`"
    )
    key_style: Literal["request", "filename"] = Field(
        "request", description="`filename` also stores input and bare result under the file's own name"
    )
    # Pillow itself refuses more than 178.9.
    max_megapixels: float = Field(
        50, gt=0, le=178, description="Largest picture in megapixels, up to 178; a larger one gets 415"
    )
    aws: AwsSettings = AwsSettings()
    names: NameSettings = NameSettings()
    web: WebSettings = WebSettings()
    jobs: JobSettings = JobSettings()
    callbacks: CallbackSettings = CallbackSettings()
    client: ClientSettings = ClientSettings()
    unknown: UnknownSettings = UnknownSettings()
    worker: WorkerSettings = WorkerSettings()
    queue: QueueSettings = QueueSettings()
    retention: RetentionSettings = RetentionSettings()
    erasure: ErasureSettings = ErasureSettings()
    gallery: GallerySettings = GallerySettings()
    model: ModelSettings = ModelSettings()
    serverless: ServerlessSettings = ServerlessSettings()
    edge: EdgeSettings = EdgeSettings()
    autoscale: AutoscaleSettings = AutoscaleSettings()
    instances: InstancesSettings = InstancesSettings()
    events: EventsSettings = EventsSettings()
    flower: FlowerSettings = FlowerSettings()
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
        """Read arguments and the environment only, no files."""
        del settings_cls, dotenv_settings, file_secret_settings
        return init_settings, env_settings

    @classmethod
    def load(cls) -> Self:
        """Read the settings from the environment; raises `WrongSettings` naming every wrong variable."""
        known = {variable for variable, _ in variables()}
        problems = [
            _unknown_variable(name, known)
            for name in sorted(os.environ)
            # Pydantic would read lower case, too.
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
        raise WrongSettings("wrong settings:\n" + "\n".join(f"  {problem}" for problem in problems))

    def changed(self, **updates: Any) -> Self:
        """Return a copy with other values, checked together; raises pydantic's `ValidationError`."""
        return type(self)(**{name: getattr(self, name) for name in type(self).model_fields} | updates)

    @model_validator(mode="after")
    def _timings_fit(self) -> Self:
        """Check that a redelivery after a worker's loss can still answer the waiting client."""
        needed = (
            self.autoscale.boot_prior_seconds + self.request_visibility_seconds + self.worker.task_time_limit_seconds
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

    input_bucket: ClassVar[ResourceName] = ResourceName()
    output_bucket: ClassVar[ResourceName] = ResourceName()
    gallery_bucket: ClassVar[ResourceName] = ResourceName()
    model_bucket: ClassVar[ResourceName] = ResourceName()
    request_queue: ClassVar[ResourceName] = ResourceName()
    dead_letter_queue: ClassVar[ResourceName] = ResourceName()
    faces_queue: ClassVar[ResourceName] = ResourceName()
    faces_dead_letter_queue: ClassVar[ResourceName] = ResourceName()
    response_queue: ClassVar[ResourceName] = ResourceName()
    events_queue: ClassVar[ResourceName] = ResourceName()
    templates_table: ClassVar[ResourceName] = ResourceName()
    keys_table: ClassVar[ResourceName] = ResourceName()
    people_table: ClassVar[ResourceName] = ResourceName()
    jobs_table: ClassVar[ResourceName] = ResourceName()
    fleet_table: ClassVar[ResourceName] = ResourceName()
    launch_template: ClassVar[ResourceName] = ResourceName()

    @property
    def request_visibility_seconds(self) -> int:
        """The visibility timeout of the request queue: AWS advises six times that of a function which it invokes."""
        of_functions = 0 if self.app_tier == "ec2" else self.serverless.visibility_seconds
        return max(self.queue.visibility_timeout_seconds, of_functions)

    @property
    def worker_queues(self) -> dict[str, str]:
        """The queues that workers on EC2 take from, each with its dead-letter queue."""
        photos = {self.request_queue: self.dead_letter_queue}
        return photos | ({self.faces_queue: self.faces_dead_letter_queue} if self.edge.enabled else {})

    def of_function(self) -> Self:
        """The settings in a function: one engine, whose time limit fits into that of an invocation."""
        limit = min(self.worker.task_time_limit_seconds, self.serverless.engine_limit_seconds)
        return self.changed(worker=self.worker.model_copy(update={"engines": 1, "task_time_limit_seconds": limit}))

    @property
    def endpoint_url(self) -> str | None:
        """The AWS endpoint without a trailing slash; `None` is AWS itself."""
        return str(self.aws.endpoint_url).rstrip("/") if self.aws.endpoint_url else None


def variables(model: type[BaseModel] = Settings, prefix: str = ENV_PREFIX) -> Iterator[tuple[str, Any]]:
    """Yield every variable with its pydantic field, in the order of declaration."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Group):
            yield from variables(annotation, f"{prefix}{name.upper()}{_DELIMITER}")
        else:
            yield f"{prefix}{name.upper()}", field


def effective(settings: Settings) -> dict[str, str]:
    """Return every variable with its effective value, secrets masked, as `facerec config` prints them."""
    values = dict(_values(settings, ENV_PREFIX))
    names = {
        f"{ENV_PREFIX}NAMES{_DELIMITER}{name.upper()}": getattr(settings, name) for name in NameSettings.model_fields
    }
    return values | names


def _values(model: BaseModel, prefix: str) -> Iterator[tuple[str, str]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        variable = f"{prefix}{name.upper()}"
        if isinstance(value, Group):
            yield from _values(value, f"{variable}{_DELIMITER}")
        elif isinstance(value, AnyHttpUrl) and value.password:
            yield variable, str(value).replace(value.password, MASK)
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
    variable = f"{ENV_PREFIX}{_DELIMITER.join(location).upper()}"
    if variable in secret_variables():  # the error's input has it as plain text
        if error["type"] == "too_short":
            message = f"needs at least {error['ctx']['min_length']} characters"
        return f"{variable}: {message}"
    got = "" if isinstance(error.get("input"), dict) else f" (got {error['input']!r})"
    return f"{variable}: {message}{got}"


def secret_variables() -> set[str]:
    """Return the variables that hold a secret."""
    return {name for name, field in variables() if SecretStr in (field.annotation, *get_args(field.annotation))}
