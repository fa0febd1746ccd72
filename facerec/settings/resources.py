"""The settings that all tiers share: AWS and its resources, tasks, galleries and the model."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, Field

from facerec.settings.values import Count, Group, PositiveSeconds

SQS_MESSAGE_BYTES = 256 * 1024
"""What every SQS queue takes, as one message or as a batch; only queues made after August 2025 take 1 MiB."""
_DEAD_LETTER_BYTES = 8 * 1024
"""Room for the reason of a dead letter beside its message."""
QueueName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_<>-]{0,80}$")]
"""Of a standard queue, with placeholders: no URL, no ARN, no FIFO queue, which would refuse every task."""


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facerec"


class AwsSettings(Group):
    """Where AWS is."""

    region: str = Field("us-east-1", description="AWS region of every resource")
    endpoint_url: AnyHttpUrl | None = Field(
        None, description="Endpoint of every AWS service, as `facerec local env` sets it; unset: AWS itself"
    )
    max_connections: Count = Field(64, description="HTTP connections that one process keeps open to each AWS service")


class NameSettings(Group):
    """Names of resources; an empty one is the default.

    `<prefix>` is replaced by FACEREC_PREFIX, `<request_queue>` and `<faces_queue>` by the names of these queues.
    """

    input_bucket: str = Field("<prefix>-in-bucket", description="Bucket of uploads")
    output_bucket: str = Field("<prefix>-out-bucket", description="Bucket of results")
    gallery_bucket: str = Field("<prefix>-gallery-bucket", description="Bucket of enrolled photos")
    model_bucket: str = Field("<prefix>-model-bucket", description="Bucket of model artefacts")
    request_queue: QueueName = Field("<prefix>-req-queue", description="Queue of tasks")
    dead_letter_queue: QueueName = Field("<request_queue>-dlq", description="Queue of failed tasks")
    faces_queue: QueueName = Field("<prefix>-faces-queue", description="Queue of detected faces, between the functions")
    faces_dead_letter_queue: QueueName = Field("<faces_queue>-dlq", description="Queue of faces that failed")
    response_queue: QueueName = Field("<prefix>-resp-queue", description="Queue of results")
    events_queue: QueueName = Field("<prefix>-events-queue", description="Queue of events for Flower")
    templates_table: str = Field("<prefix>-templates", description="DynamoDB table of templates")
    keys_table: str = Field("<prefix>-api-keys", description="DynamoDB table of API keys")
    people_table: str = Field(
        "<prefix>-people", description="DynamoDB table of collections, merges, unknown people, erasures, accesses"
    )
    jobs_table: str = Field("<prefix>-jobs", description="DynamoDB table of jobs and their files")
    fleet_table: str = Field(
        "<prefix>-fleet", description="DynamoDB table of workers' reports and the autoscaler's history"
    )
    launch_template: str = Field("<prefix>-worker", description="EC2 launch template of the app tier's instances")


class QueueSettings(Group):
    """Delivery of tasks."""

    visibility_timeout_seconds: int = Field(
        30, ge=1, le=43_200, description="Seconds for which a received task stays hidden; then it is redelivered"
    )
    max_receives: Count = Field(4, description="Deliveries of one task; then it goes to the dead-letter queue")
    wait_time_seconds: int = Field(
        10,
        ge=1,
        le=20,
        description="Long poll of the web tier and Flower in seconds (worker: 1 s)",
    )
    max_message_bytes: int = Field(
        SQS_MESSAGE_BYTES - _DEAD_LETTER_BYTES,
        ge=16 * 1024,
        le=SQS_MESSAGE_BYTES - _DEAD_LETTER_BYTES,
        description="Largest task or result in bytes; a result with more is sent with its first faces only",
    )


class RetentionSettings(Group):
    """How long objects are kept."""

    input_days: Count = Field(1, description="Days after which uploads expire")
    result_days: Count = Field(7, description="Days after which results expire")
    photo_days: Count | None = Field(
        None,
        description="Days after which enrolled photos expire; unset: never. A change of the model needs the photos",
    )
    access_days: Count = Field(90, description="Days for which the access log is kept")


class ErasureSettings(Group):
    """The erasure of people."""

    signing_key: Path | None = Field(
        None, description="PEM file with the Ed25519 key that signs receipts of erasures; unset: there are no receipts"
    )


class InstancesSettings(Group):
    """The app tier's EC2 instances; `facerec provision` writes them into the launch template."""

    image_id: str | None = Field(
        None,
        description="AMI to launch; unset: `facerec provision` leaves the launch template alone",
    )
    types: tuple[str, ...] = Field(
        ("c7i.large", "c7a.large", "m7i.large"),
        min_length=1,
        description="Instance types, a JSON list in order of preference",
    )
    subnet_ids: tuple[str, ...] = Field((), description="Subnets, a JSON list; empty: those of the default VPC")
    security_group_ids: tuple[str, ...] = Field((), description="Security groups, a JSON list")
    profile: str | None = Field(None, description="Name of the IAM instance profile")
    key_name: str | None = Field(None, description="EC2 key pair for SSH; unset: no SSH")
    purchase: Literal["on-demand", "spot"] = Field("on-demand", description="`on-demand` or `spot`")
    volume_gb: Count = Field(16, description="Size of the root volume in GB")
    package: str | None = Field(
        None,
        pattern=r"^s3://[^/]+/[^\s#]+\.whl#sha256=[0-9a-f]{64}$",
        description="`s3://….whl#sha256=…`, the address and hash of the wheel of `make release`; unset: the AMI has it",
    )


class GallerySettings(Group):
    """Enrolled people."""

    refresh_seconds: PositiveSeconds = Field(
        2, le=5, description="Seconds between a worker's checks for gallery changes"
    )
    min_face_pixels: Count = Field(16, description="Shortest side in pixels of a face to enrol")
    false_names: float = Field(
        0.01,
        gt=0,
        le=1,
        description="Share of strangers that may get a name; it sets the threshold",
    )
    matching: Literal["best", "mean"] = Field(
        "best",
        description="Similarity to a person: to the `best` of the person's templates, or to their `mean`",
    )
    min_probability: float = Field(
        0.5, ge=0, le=1, description="Least detection probability of a face to enrol, 0 to 1"
    )
    min_quality: float = Field(
        0.5, ge=0, le=1, description="Least quality of a face to enrol, 0 to 1; 0 takes any face"
    )


class ModelSettings(Group):
    """The model artefact, and the faces that it finds."""

    dir: Path = Field(
        default_factory=lambda: _cache_home() / "model",
        description="Folder of the model artefact; unset: `model` in `$XDG_CACHE_HOME/facerec`",
    )
    cache_dir: Path = Field(
        default_factory=lambda: _cache_home() / "downloads",
        description="Folder of downloads, compiled models, snapshots; unset: `downloads` in `$XDG_CACHE_HOME/facerec`",
    )
    licence: Literal["permissive", "research"] = Field(
        "permissive",
        description="Packs that may be used, by licence; `research` also allows research-only weights",
    )
    max_faces: Count = Field(100, description="Faces of a picture that are recognised, the largest first")
    min_face_pixels: int | None = Field(
        None,
        ge=8,
        description="Smallest face to find in pixels (not `classic`); unset: a 64th of the longer side",
    )
