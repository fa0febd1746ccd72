"""User data of EC2 instances: what cloud-init reads, and the settings that a worker reads out of it."""

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from pydantic import AnyHttpUrl, SecretStr

from autoscale.commands.fleet import user_data as command
from facerec.errors import ConfigurationError
from facerec.provision.user_data import MAX_BYTES, deployment_environment, service_unit, user_data
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from facerec.settings.resources import (
    AwsSettings,
    GallerySettings,
    InstancesSettings,
    ModelSettings,
    NameSettings,
    QueueSettings,
    RetentionSettings,
)
from facerec.settings.tiers import (
    AutoscaleSettings,
    EventsSettings,
    FlowerSettings,
    LogSettings,
    ServerlessSettings,
    WebSettings,
    WorkerSettings,
)

PACKAGE = f"s3://releases/facerec-1.0-py3-none-any.whl#sha256={'0123456789abcdef' * 4}"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are the defaults, also while an emulator runs for other tests."""
    for name in list(os.environ):
        if name.startswith("FACEREC_"):
            monkeypatch.delenv(name)


def read(environment: str) -> dict[str, str]:
    """The variables of an environment file, as a shell reads them."""
    return dict(line.split("=", 1) for line in shlex.split(environment))


def test_is_a_cloud_config_with_three_files() -> None:
    """Written before the commands run; the script comes out as it went in."""
    text = user_data(Settings())
    assert text.startswith("#cloud-config\n")
    config = yaml.safe_load(text)
    assert set(config) == {"write_files", "runcmd"}
    files = {file["path"]: file for file in config["write_files"]}
    assert set(files) == {
        "/etc/facerec/deployment.env",
        "/opt/facerec/boot.sh",
        "/etc/systemd/system/facerec-worker.service",
    }
    assert all(set(file) == {"path", "permissions", "content"} for file in files.values())
    script = files["/opt/facerec/boot.sh"]
    assert script["permissions"] == "0755"
    assert script["content"] == (Path(__file__).parents[4] / "facerec/provision/boot.sh").read_text()
    assert files["/etc/facerec/deployment.env"]["content"] == deployment_environment(Settings())
    assert files["/etc/systemd/system/facerec-worker.service"]["content"] == service_unit(Settings())
    assert config["runcmd"][-1] == ["systemctl", "restart", "--no-block", "facerec-worker.service"]


def test_a_worker_reads_the_settings_of_the_deployment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a worker reads comes back as it was, however odd."""
    settings = Settings(
        prefix="staging",
        engine="onnxruntime",
        app_tier="both",
        key_style="filename",
        max_megapixels=20.5,
        aws=AwsSettings(region="eu-west-3", endpoint_url=AnyHttpUrl("https://vpce-1.example:4566/"), max_connections=9),
        names=NameSettings(input_bucket='it\'s "$HOME" & `co` \\ ü'),
        worker=WorkerSettings(engines=3, batch_window_ms=0, task_time_limit_seconds=60, metadata_url="http://[fd00::]"),
        queue=QueueSettings(visibility_timeout_seconds=90),
        gallery=GallerySettings(refresh_seconds=4),
        edge=EdgeSettings(enabled=True),
        web=WebSettings(wait_seconds=900),
        autoscale=AutoscaleSettings(boot_prior_seconds=200),
        instances=InstancesSettings(package=PACKAGE),
        serverless=ServerlessSettings(timeout_seconds=20),
        log=LogSettings(level="debug"),
    )
    for name, value in read(deployment_environment(settings)).items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


def test_says_where_the_metadata_service_is() -> None:
    """The worker asks it for interruption notices; its address is the same on every instance."""
    assert read(deployment_environment(Settings())) == {"FACEREC_WORKER__METADATA_URL": "http://169.254.169.254"}


@pytest.mark.parametrize(
    "changes",
    [
        {"web": WebSettings(port=9000, max_waiting=5)},
        {"autoscale": AutoscaleSettings(max_instances=3, cooldown_seconds=5)},
        {"instances": InstancesSettings(image_id="ami-1", subnet_ids=("subnet-1",), key_name="ops")},
        {"retention": RetentionSettings(input_days=3)},
        {"edge": EdgeSettings(thing="camera-1", results=True)},
        {"names": NameSettings(launch_template="ours")},
        {"flower": FlowerSettings(password=SecretStr("correct horse"))},
        {"events": EventsSettings(retention_seconds=3600)},
        {"reply_style": "name"},
        {"serverless": ServerlessSettings(image=f"registry/facerec@sha256:{'0' * 64}", detection_memory_mb=1024)},
        {"model": ModelSettings(dir=Path("/here"), cache_dir=Path("/there"))},
        {"worker": WorkerSettings(instance_id="i-1")},
    ],
)
def test_what_no_worker_reads_is_left_out(changes: Any) -> None:
    """A change of it would make a new version of the launch template, and replace every instance for nothing."""
    assert user_data(Settings(**changes)) == user_data(Settings())


def test_the_worker_may_finish_what_it_holds() -> None:
    """A batch may run into its limit, its engine be replaced, and its pictures be tried again, before it is killed."""
    settings = Settings(worker=WorkerSettings(task_time_limit_seconds=25, startup_seconds=30.5))
    assert "\nTimeoutStopSec=91\n" in service_unit(settings)
    assert f"\nTimeoutStartSec={settings.autoscale.boot_limit_seconds:.0f}\n" in service_unit(settings)


def test_a_password_does_not_go_in() -> None:
    """User data is no place for a secret."""
    aws = AwsSettings(endpoint_url=AnyHttpUrl("http://user:hunter2@localhost:4566"))
    with pytest.raises(ConfigurationError, match="FACEREC_AWS__ENDPOINT_URL holds a password") as refused:
        user_data(Settings(aws=aws))
    assert "hunter2" not in str(refused.value)


def test_control_characters_do_not_go_in() -> None:
    """A line break would end the YAML block, or begin another variable."""
    with pytest.raises(ConfigurationError, match="FACEREC_NAMES__INPUT_BUCKET"):
        user_data(Settings(names=NameSettings(input_bucket="a\nFACEREC_PREFIX=b")))


def test_more_than_ec2_takes_is_refused() -> None:
    """The limit holds for the text before base64."""
    room = MAX_BYTES - len(user_data(Settings(instances=InstancesSettings(package=PACKAGE))).encode())
    assert room > 2_000
    longest, too_long = (PACKAGE.replace("facerec", "facerec" + "x" * length) for length in (room, room + 1))
    assert len(user_data(Settings(instances=InstancesSettings(package=longest))).encode()) == MAX_BYTES
    with pytest.raises(ConfigurationError, match="EC2 takes 16384"):
        user_data(Settings(instances=InstancesSettings(package=too_long)))


@pytest.mark.parametrize(
    "package",
    [
        f"https://example.com/facerec.tar.gz#sha256={'0' * 64}",
        "s3://releases/facerec-1.0-py3-none-any.whl",
        "s3://releases/facerec-1.0-py3-none-any.whl#sha256=0",
        f"s3://releases/facerec-1.0-py3-none-any.whl#md5={'0' * 64}",
    ],
)
def test_package_that_is_no_wheel_in_s3_with_its_hash_is_refused(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Here, and not on an instance that cannot boot: root installs what the hash names, and nothing else."""
    monkeypatch.setenv("FACEREC_INSTANCES__PACKAGE", package)
    with pytest.raises(ConfigurationError, match="FACEREC_INSTANCES__PACKAGE"):
        Settings.load()


def test_the_command_prints_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it goes into the launch template, to be read or checked with `cloud-init schema`."""
    monkeypatch.setenv("FACEREC_INSTANCES__PACKAGE", PACKAGE)
    shown = CliRunner().invoke(command)
    assert shown.exit_code == 0
    assert shown.output == user_data(Settings(instances=InstancesSettings(package=PACKAGE)))
