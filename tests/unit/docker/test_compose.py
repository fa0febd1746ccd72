"""docker/compose.yaml fits the Dockerfile, the configuration of nginx, and the rules of its own."""

import re
import shlex
from typing import Any

import pytest

from facerec.local.emulator import EmulatorKind, emulator
from tests.support.containers import COMPOSE_FILE, compose_services
from tests.support.images import DOCKERFILE
from tests.support.nginx import CONFIGURATION

SERVICES = compose_services()
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


@pytest.mark.parametrize("service", OURS.values(), ids=OURS)
def test_every_image_of_ours_is_a_target_of_the_dockerfile(service: dict[str, Any]) -> None:
    """The context is the root of the checkout."""
    build = service["build"]
    targets = re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert build["target"] in targets
    assert service["image"] == f"facerec-{build['target']}"
    assert (COMPOSE_FILE.parent / build["context"] / build["dockerfile"]).resolve() == DOCKERFILE


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_service_is_confined(service: dict[str, Any]) -> None:
    """A read-only root file system, no capability, no way to gain one, and ports on loopback only."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - inside the container
    assert not {"privileged", "cap_add", "network_mode", "pid"} & service.keys()
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_emulated_aws_is_not_published() -> None:
    """It checks no signature."""
    assert "ports" not in SERVICES["aws"]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_services_wait_for_what_can_become_ready(service: dict[str, Any]) -> None:
    """For the health of services, and for the end of those that end."""
    for name, wait in service.get("depends_on", {}).items():
        ends = "restart" not in SERVICES[name]
        assert wait["condition"] == ("service_completed_successfully" if ends else "service_healthy")


def test_file_holds_no_secret() -> None:
    """Beside the emulator's dummy credentials; Flower's password has no default."""
    text = COMPOSE_FILE.read_text()
    values = [line.split(":", 1)[1] for line in text.splitlines() if re.search(r"(PASSWORD|SECRET|_KEY\w*):", line)]
    assert [value.strip() for value in values if "${FACEREC_FLOWER__PASSWORD:?" not in value] == ["facerec-local"] * 2


def test_edit_of_nginx_configuration_finds_its_lines() -> None:
    """The shipped file passes requests to loopback; sed leaves lines unchanged that look otherwise."""
    [_, _, script] = SERVICES["nginx"]["command"]
    _, pattern, *_ = shlex.split(script)[1].split("|")
    passing = [line.strip() for line in CONFIGURATION.read_text().splitlines() if "proxy_pass " in line]
    assert passing
    assert set(passing) == {pattern}


def test_launch_template_has_an_image_of_the_emulator(tmp_path: Any) -> None:
    """`facerec autoscale` needs a launch template, also for a dry run."""
    known = emulator(EmulatorKind.MINISTACK, port=1, state=tmp_path, environ={}).image_id
    assert SERVICES["provision"]["environment"]["FACEREC_INSTANCES__IMAGE_ID"] == known
