"""The variables that make ordinary commands the parts of a local system: the emulated AWS, and what differs here."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from facerec.errors import ConfigurationError
from facerec.processes.addresses import LOOPBACK
from facerec.settings import Settings, secret_variables
from facerec.settings import variables as known_variables
from facerec.settings.values import on_loopback

_OWN = {
    # Any value does: the emulators check no signature.
    "AWS_ACCESS_KEY_ID": "facerec-local",
    "AWS_SECRET_ACCESS_KEY": "facerec-local",
    # A command for the emulator must not use the user's real account.
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
}

_FOREIGN = (
    "AWS_DEFAULT_PROFILE",
    "AWS_ENDPOINT_URL_DYNAMODB",
    "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL_SQS",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SESSION_TOKEN",
)
"""Variables that would direct the AWS CLI, boto3 or our commands to another account or endpoint."""

_OPEN = {"FACEREC_WEB__AUTH": "open", "FACEREC_WEB__RATE_LIMIT": ""}
"""Defaults of a web tier that only this machine reaches."""

_OF_THIS_WEB = frozenset({*_OPEN, "FACEREC_WEB__SHUTDOWN_SECONDS"})
"""Only for the system's own web tier: `facerec local env` must not open another one."""


def without_aws(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that choose an AWS account or endpoint."""
    return {name: value for name, value in environ.items() if not name.startswith("AWS_")}


def export_lines(variables: Mapping[str, str]) -> str:
    """Shell commands that set the variables, and unset those of another account.

    A shell runs them: raises `ConfigurationError` for a name that no local system sets. The dummy credentials and the
    empty AWS configuration, which could name a command to run, do not come from `variables`.
    """
    ours = {*emulated_variables("", {}), *(name for name, _ in known_variables())}
    for name in variables.keys() - ours:
        raise ConfigurationError(f"a local system does not set the variable {name!r}; start it again")
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted({**variables, **_OWN}.items())]
    return "\n".join([f"unset {' '.join(_FOREIGN)}", *lines])


def emulated_variables(url: str, environ: Mapping[str, str], region: str = "us-east-1") -> dict[str, str]:
    """The variables that point a command at the emulator at `url`: dummy credentials, region, endpoint, no proxy."""
    bypass = dict.fromkeys(filter(None, [*environ.get("NO_PROXY", "").split(","), LOOPBACK, "localhost"]))
    return {
        **_OWN,
        "AWS_DEFAULT_REGION": region,
        # For the AWS CLI and boto3; our own commands have a setting.
        "AWS_ENDPOINT_URL": url,
        "FACEREC_AWS__REGION": region,
        "FACEREC_AWS__ENDPOINT_URL": url,
        "NO_PROXY": ",".join(bypass),
        "no_proxy": ",".join(bypass),
    }


def edge_variables(port: int, authorities: Path) -> dict[str, str]:
    """The variables that point devices, and commands that provision them, at the emulator's MQTT listener.

    `authorities` is a file with the certificate of who has signed the listener's.
    """
    return {
        "FACEREC_EDGE__ENDPOINT": LOOPBACK,
        "FACEREC_EDGE__PORT": str(port),
        "FACEREC_EDGE__CA_FILE": str(authorities),
    }


def system_variables(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    emulator_url: str,
    image_id: str,
    web_port: int,
    workers: int | None,
    app_tier: str,
) -> dict[str, str]:
    """The variables of all parts of the system, and of commands that are pointed at it; no secret is among them.

    The environment's own FACEREC_* variables override the defaults here. `workers` and `app_tier` are as in `Options`.
    """
    left_out = _OF_THIS_WEB | secret_variables()  # the variables are kept in a file
    own = {name: value for name, value in environ.items() if name.startswith("FACEREC_") and name not in left_out}
    # More than one worker, or instance of a function, for each core would be slower.
    at_once = str(max(2, len(os.sched_getaffinity(0))))
    defaults = {
        "FACEREC_AUTOSCALE__BOOT_PRIOR_SECONDS": "4",
        "FACEREC_AUTOSCALE__START_PRIOR_SECONDS": "4",
        "FACEREC_AUTOSCALE__MAX_INSTANCES": at_once,
        "FACEREC_SERVERLESS__MAX_CONCURRENCY": at_once,
        "FACEREC_INSTANCES__IMAGE_ID": image_id,
    }
    if workers != 1:
        defaults["FACEREC_WORKER__ENGINES"] = "1"  # several workers with one engine per core would crowd the machine
    fixed = {
        "FACEREC_APP_TIER": app_tier,
        "FACEREC_WEB__PORT": str(web_port),
        "FACEREC_MODEL__DIR": str(settings.model.dir.resolve()),
        "FACEREC_MODEL__CACHE_DIR": str(settings.model.cache_dir.resolve()),
    }
    if settings.log.level in {"warning", "error"}:
        fixed["FACEREC_LOG__LEVEL"] = "info"  # the record that a worker is ready has this level
    return defaults | own | emulated_variables(emulator_url, environ, settings.aws.region) | fixed


def web_variables(host: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of the web tier on `host` beside the system's; the defaults open it only on loopback."""
    # Together with the flush of the last replies within the web tier's grace.
    defaults = {"FACEREC_WEB__SHUTDOWN_SECONDS": "4"} | (_OPEN if on_loopback(host) else {})
    return defaults | {name: environ[name] for name in _OF_THIS_WEB & environ.keys()}
