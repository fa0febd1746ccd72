"""What the process of the local device is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from facerec.errors import ConfigurationError
from facerec.local.edge.device import DeviceOptions, LocalDevice
from facerec.provision.edge.thing_folder import ThingFolder

SYSTEM = {
    "PATH": "/bin",
    "AWS_ACCESS_KEY_ID": "facerec-local",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "FACEREC_AWS__ENDPOINT_URL": "http://127.0.0.1:1",
    "FACEREC_EDGE__ENABLED": "true",
    "FACEREC_EDGE__RESULTS": "true",
    "FACEREC_EDGE__STATUS_SECONDS": "9",
    "FACEREC_MODEL__DIR": "/model",
}


def provisioned(folder: Path, archive: Path | None = None) -> LocalDevice:
    """A device whose files are there."""
    device = LocalDevice(folder, 8883, DeviceOptions(nucleus=archive is not None, archive=archive))
    files = ThingFolder(device.files)
    files.make()
    files.write_settings(device.thing, "127.0.0.1", 8883, None)
    return device


def test_device_knows_nothing_of_aws_but_its_certificate(tmp_path: Path) -> None:
    """It has the settings of a device; those of the environment override the defaults."""
    device = provisioned(tmp_path / "with space")
    environ = device.command(SYSTEM | device.cloud_variables).environ
    assert [name for name in environ if "AWS" in name] == []
    assert environ["FACEREC_EDGE__KEY_FILE"] == str(device.files / "private.key")
    assert environ["FACEREC_EDGE__THING"] == device.thing
    assert environ["FACEREC_EDGE__FOLDER"] == str(device.frames)
    assert environ["FACEREC_EDGE__RESULTS"] == "true"
    assert environ["FACEREC_EDGE__STATUS_SECONDS"] == "9"
    assert environ["FACEREC_MODEL__DIR"] == "/model"


def test_device_asks_for_results_unless_told_otherwise(tmp_path: Path) -> None:
    """Its log then shows the answers to frames."""
    device = provisioned(tmp_path)
    assert device.command({}).environ["FACEREC_EDGE__RESULTS"] == "true"
    assert device.command({"FACEREC_EDGE__RESULTS": "false"}).environ["FACEREC_EDGE__RESULTS"] == "false"


def test_packaged_component_has_its_settings_from_a_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nucleus gives them to it, with the topics of this thing alone."""
    monkeypatch.setattr("facerec.local.edge.device._LONGEST_ROOT_BYTES", 4096)  # no socket is made here
    device = provisioned(tmp_path, tmp_path / "archive.zip")
    command = device.command(SYSTEM)
    options = dict(zip(command.argv[3::2], command.argv[4::2], strict=True))
    changes: Any = json.loads(Path(options["--changes"]).read_text())
    assert changes["edge"] == {
        "folder": str(device.frames),
        "results": "true",
        "source": "folder",
        "status_seconds": "9",
    }
    assert device.thing in json.dumps(changes["accessControl"])
    assert options["--device"] == str(device.files)
    assert [name for name in command.environ if "AWS" in name] == []


def test_path_that_is_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    """With what to do instead; without a nucleus there is no socket."""
    folder = tmp_path / ("x" * 100)
    with pytest.raises(ConfigurationError, match="use a shorter --state, or --no-nucleus"):
        LocalDevice(folder, 8883, DeviceOptions())
    LocalDevice(folder, 8883, DeviceOptions(nucleus=False))
