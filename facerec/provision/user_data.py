"""User data of the app tier's EC2 instances: cloud-init's cloud-config that makes an instance a worker. Pure.

User data can be read by everything that runs on the instance, and with the right to describe it: no secret goes in.
"""

import json
import math
import shlex
from collections.abc import Container, Iterator
from importlib import resources
from string import Template
from textwrap import indent
from typing import Any

from pydantic import AnyHttpUrl, BaseModel

from facerec.errors import ConfigurationError
from facerec.settings import ENV_PREFIX, Settings

METADATA_URL = "http://169.254.169.254"
"""EC2's instance metadata service, the same on every instance."""
MAX_BYTES = 16_384
"""EC2's limit, before the encoding in base64."""

_BELONGS_TO_OTHERS = (
    "AUTOSCALE__",
    "EDGE__",
    "EVENTS__RETENTION_SECONDS",
    "FLOWER__",
    "INSTANCES__",
    "NAMES__LAUNCH_TEMPLATE",
    "REPLY_STYLE",
    "RETENTION__",
    "SERVERLESS__",
    "WEB__",
)
"""Settings that no worker reads: their change must not make a new launch template, which replaces instances."""
_STILL_READ = (
    "AUTOSCALE__BOOT_PRIOR_SECONDS",
    "EDGE__ENABLED",
    "INSTANCES__PACKAGE",
    "SERVERLESS__TIMEOUT_SECONDS",
    "WEB__WAIT_SECONDS",
)
"""Exceptions: the worker's timings are checked with them, or they name what is installed."""
_OF_THE_MACHINE = ("MODEL__CACHE_DIR", "MODEL__DIR", "WORKER__INSTANCE_ID", "WORKER__METADATA_URL")
"""Variables that `boot.sh` sets on each instance."""


def user_data(settings: Settings) -> str:
    """The cloud-config, before base64, for workers of the deployment that the settings describe.

    Raises `ConfigurationError` for a setting that cannot or must not go in, and when it gets too long for EC2.
    """
    files = (
        ("/etc/facerec/deployment.env", "0644", deployment_environment(settings)),
        ("/opt/facerec/boot.sh", "0755", _read_packaged("boot.sh")),
        ("/etc/systemd/system/facerec-worker.service", "0644", service_unit(settings)),
    )
    text = "\n".join(
        [
            "#cloud-config",
            "write_files:",
            *(_file(*file) for file in files),
            "runcmd:",
            "  - [systemctl, daemon-reload]",
            "  - [systemctl, enable, facerec-worker.service]",
            # An AMI may have started a worker already; cloud-init must not wait for the installation.
            "  - [systemctl, restart, --no-block, facerec-worker.service]",
            "",
        ]
    )
    if len(text.encode()) > MAX_BYTES:
        raise ConfigurationError(
            f"the instances' user data has {len(text.encode())} bytes, and EC2 takes {MAX_BYTES}: shorten the settings"
        )
    return text


def app_tier_variables(settings: Settings, *, also: Container[str] = ()) -> dict[str, str]:
    """Return the settings that workers read, and `also` these, where they differ from the defaults.

    Raises `ConfigurationError` for one that holds a password or control characters.
    """
    return {
        name: _text(name, value)
        for name, value in _differing(settings, ENV_PREFIX)
        if name in also or not _left_out(name.removeprefix(ENV_PREFIX))
    }


def deployment_environment(settings: Settings) -> str:
    """Return the environment file of a worker."""
    variables = app_tier_variables(settings)
    variables[f"{ENV_PREFIX}WORKER__METADATA_URL"] = str(settings.worker.metadata_url or METADATA_URL)
    # systemd and the shell read single quotes alike.
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def service_unit(settings: Settings) -> str:
    """Return the systemd unit of the worker."""
    worker = settings.worker
    # A batch that overruns costs a new engine, and its images are then tried one at a time: the worker's longest drain.
    drain = 2 * worker.task_time_limit_seconds + worker.startup_seconds + 10
    return Template(_read_packaged("facerec-worker.service")).substitute(
        start_seconds=math.ceil(settings.autoscale.boot_limit_seconds), stop_seconds=math.ceil(drain)
    )


def _differing(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in type(model).model_fields.items():
        value, variable = getattr(model, name), f"{prefix}{name.upper()}"
        if isinstance(value, BaseModel):
            yield from _differing(value, f"{variable}__")
        elif value != field.get_default(call_default_factory=True):
            yield variable, value


def _left_out(name: str) -> bool:
    return name in _OF_THE_MACHINE or (name.startswith(_BELONGS_TO_OTHERS) and name not in _STILL_READ)


def _text(name: str, value: Any) -> str:
    """Return the value as the variable's text, which the settings can read."""
    if isinstance(value, AnyHttpUrl) and value.password:
        raise ConfigurationError(f"{name} holds a password, which everybody on an instance could read: take it out")
    text = json.dumps(value) if isinstance(value, tuple) else str(value)
    if not text.isprintable():
        raise ConfigurationError(f"{name} holds control characters, which no environment file takes: take them out")
    return text


def _read_packaged(name: str) -> str:
    return (resources.files("facerec.provision") / name).read_text(encoding="utf-8")


def _file(path: str, permissions: str, content: str) -> str:
    block = indent(content, " " * 6, lambda _: True).rstrip()
    return f'  - path: {path}\n    permissions: "{permissions}"\n    content: |\n{block}'
