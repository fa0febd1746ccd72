"""The settings of the edge: the device component, and the cloud that recognises its faces."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from facerec.errors import ConfigurationError
from facerec.settings.values import Count, Group, PositiveSeconds

IOT_MESSAGE_BYTES = 128 * 1024
"""The largest message that AWS IoT Core takes."""
THING_NAME = r"^[A-Za-z0-9_-]{1,100}$"
"""IoT Core also takes colons, which file names and client ids had better not have."""
ThingName = Annotated[str, Field(pattern=THING_NAME)]

_NUCLEUS_VARIABLES = ("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "SVCUID")
"""AWS's client of the nucleus reads them itself."""


def missing_nucleus_variables() -> list[str]:
    """Return which variables are not set that the Greengrass nucleus sets for its components."""
    return [name for name in _NUCLEUS_VARIABLES if not os.environ.get(name)]


_NUCLEUS_THING = "AWS_IOT_THING_NAME"
"""Greengrass sets this variable for its components."""


class EdgeSettings(Group):
    """The edge: `enabled` is for the cloud; the rest is for `facerec edge run` on the device."""

    enabled: bool = Field(
        default=False,
        description="Cloud: workers on EC2 also take the faces that devices send, and the autoscaler counts them",
    )
    thing: ThingName | None = Field(
        None, description="Name of this device in AWS IoT; unset: AWS_IOT_THING_NAME, which Greengrass sets"
    )
    link: Literal["mqtt", "ipc"] = Field(
        "mqtt", description="`mqtt`: a connection of its own to AWS IoT Core; `ipc`: through the Greengrass nucleus"
    )
    endpoint: str | None = Field(
        None, description="AWS IoT endpoint, as `facerec edge provision` writes it into `edge.env`"
    )
    port: int = Field(8883, ge=1, le=65535, description="Port of the AWS IoT endpoint")
    certificate_file: Path | None = Field(None, description="Certificate of this device, PEM")
    key_file: Path | None = Field(None, description="Private key of this device, PEM; only its owner may read it")
    ca_file: Path | None = Field(
        None, description="Certificate authorities of the endpoint, PEM; unset: those of this system"
    )
    state_dir: Path = Field(
        Path("edge-state"), description="Folder of the spool and the client id; one process uses it at a time"
    )
    source: Literal["folder", "camera", "topic"] = Field(
        "topic", description="Where frames come from: files in a folder, a camera, or the MQTT topic `clients/<thing>`"
    )
    folder: Path = Field(Path("frames"), description="Folder whose new pictures are frames; each is removed when sent")
    camera: str = Field("0", description="Number, device file or URL of the camera, as OpenCV takes it")
    max_frames_per_second: float = Field(
        30, gt=0, le=1000, description="Frames of the camera that are looked at per second; it drops the others"
    )
    queue_frames: Count = Field(
        32,
        description="Frames that wait for the detector, at most two of a camera; the oldest is dropped for a new one",
    )
    tracking: bool = Field(
        default=True, description="Camera: send a person who stays in view once, not with each frame"
    )
    resend_seconds: PositiveSeconds = Field(30, description="Seconds after which a tracked person is sent again")
    jpeg_quality: int = Field(95, ge=50, le=100, description="JPEG quality of the crops of faces")
    min_jpeg_quality: int = Field(
        90, ge=30, le=100, description="Lowest quality that makes a message fit; then it has fewer faces"
    )
    max_message_bytes: int = Field(
        IOT_MESSAGE_BYTES,
        ge=2000,
        le=IOT_MESSAGE_BYTES,
        description="Largest message in bytes; nucleus lite takes 5000",
    )
    in_flight: Count = Field(16, description="Messages that may be sent before the first of them is acknowledged")
    spool_max_bytes: int = Field(
        100_000_000,
        ge=1_000_000,
        description="Size of the spool on disk; when it is full, the oldest message is dropped",
    )
    spool_sync: Literal["full", "normal"] = Field(
        "full",
        description="`full`: a spooled message survives a power cut; `normal`: it survives a crash of the process",
    )
    status_seconds: PositiveSeconds = Field(60, description="Seconds between two messages on the status topic")
    results: bool = Field(
        default=False, description="Whether the cloud sends results to this device, topic `facerec/<thing>/results`"
    )

    @model_validator(mode="after")
    def _lowest_below_first(self) -> Self:
        if self.min_jpeg_quality > self.jpeg_quality:
            message = (
                f"FACEREC_EDGE__MIN_JPEG_QUALITY ({self.min_jpeg_quality}) must not exceed "
                f"FACEREC_EDGE__JPEG_QUALITY ({self.jpeg_quality})"
            )
            raise ValueError(message)
        return self


def thing_name(settings: EdgeSettings) -> str:
    """Return the name of this device in AWS IoT; raises `ConfigurationError` if none is set."""
    name = settings.thing or os.environ.get(_NUCLEUS_THING)
    if not name:
        raise ConfigurationError("set FACEREC_EDGE__THING to the name of this device in AWS IoT")
    try:
        return TypeAdapter(ThingName).validate_python(name)
    except ValidationError as exc:
        raise ConfigurationError(
            f"{_NUCLEUS_THING} is {name!r}, and a name has letters, digits, - and _ here, at most 100"
        ) from exc
