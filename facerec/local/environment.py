"""The environment that points an ordinary command at the emulated AWS."""

import shlex
from collections.abc import Mapping

from facerec.local.addresses import LOOPBACK

_OWN = {
    # Any value does: the emulators check no signature.
    "AWS_ACCESS_KEY_ID": "facerec-local",
    "AWS_SECRET_ACCESS_KEY": "facerec-local",
    # Nothing of the user's real account may reach a command that is meant for the emulator.
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
"""What would lead the AWS CLI, boto3 or ourselves elsewhere."""


def without_aws(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that choose an AWS account or endpoint."""
    return {name: value for name, value in environ.items() if not name.startswith("AWS_")}


def export_lines(variables: Mapping[str, str]) -> str:
    """Shell commands that set the variables, and unset those that would lead to a real account."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())]
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
