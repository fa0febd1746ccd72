"""How the local nucleus reads recipes: by the rules of the real ones, and nothing that it does not know."""

from typing import Any

import pytest

from facerec.errors import FacerecError
from facerec.local.edge.lifecycle import Lifecycle, interpolated, merged
from facerec.provision.edge.recipe import Architecture, default_configuration, recipe
from facerec.provision.iam_edge import COMPONENT
from facerec.settings import Settings

URIS: dict[Architecture, str] = {"x86_64": "s3://b/x/facerec-edge.zip", "arm64": "s3://b/arm/facerec-edge.zip"}


@pytest.fixture
def document() -> dict[str, Any]:
    """Our recipe."""
    return recipe(Settings(), "1.2.3", URIS)


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")])
def test_manifest_is_that_of_the_processor(document: dict[str, Any], machine: str, architecture: Architecture) -> None:
    """By the kernel's name of it."""
    read = Lifecycle.read(document, machine)
    assert (read.name, read.version, read.uri) == (COMPONENT, "1.2.3", URIS[architecture])
    assert read.folder == "facerec-edge"
    assert read.default_configuration["edge"] == default_configuration()
    assert read.steps["install"].timeout_seconds == 900
    assert read.steps["run"].timeout_seconds is None
    assert read.steps["run"].environ["FACEREC_EDGE__STATE_DIR"] == "{work:path}/state"


def test_other_processor_is_refused(document: dict[str, Any]) -> None:
    """A deployment to such a device fails, too."""
    with pytest.raises(FacerecError, match="no manifest for linux on riscv64"):
        Lifecycle.read(document, "riscv64")


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"startup": {"Script": "true"}}, "runs no startup"),
        ({"run": {"Script": "true", "RequiresPrivilege": True}}, "asks for privileges"),
        ({"run": {"Script": "true", "Skipif": "onpath python3"}}, "has a Skipif"),
    ],
)
def test_step_that_it_does_not_know_is_refused(document: dict[str, Any], step: dict[str, Any], reason: str) -> None:
    """It is not left out: the component would pass here, and fail on a device."""
    for manifest in document["Manifests"]:
        manifest["Lifecycle"].update(step)
    with pytest.raises(FacerecError, match=reason):
        Lifecycle.read(document, "x86_64")


def test_keys_are_read_in_any_case_but_for_names_of_ours(document: dict[str, Any]) -> None:
    """As by the classic nucleus: variables and configuration keep theirs."""
    for manifest in document["Manifests"]:
        manifest["Lifecycle"]["Install"] = {
            "SCRIPT": "true",
            "setEnv": {"Mixed": "Case"},
        }
        del manifest["Lifecycle"]["install"]
    read = Lifecycle.read(document, "x86_64")
    assert read.steps["install"].script == "true"
    assert read.steps["install"].environ["Mixed"] == "Case"
    assert "accessControl" in read.default_configuration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{work:path}/venv", "/work/venv"),
        ("{configuration:/edge/camera}", "/dev/video0"),
        ("{configuration:/edge/port}", "8883"),
        ("{configuration:/edge}", '{"camera": "/dev/video0", "port": 8883}'),
        ("{configuration:/edge/other}", "{configuration:/edge/other}"),
        ("{unknown:name} ${HOME}", "{unknown:name} ${HOME}"),
    ],
)
def test_recipe_variables_are_replaced_if_they_have_a_value(text: str, expected: str) -> None:
    """An object is its JSON."""
    configuration = {"edge": {"camera": "/dev/video0", "port": 8883}}
    assert interpolated(text, {"work:path": "/work"}, configuration) == expected


def test_deployment_is_merged_into_the_configuration() -> None:
    """Objects key by key; a list is replaced."""
    former = {"edge": {"camera": "0", "port": 1}, "list": [1, 2]}
    assert merged(former, {"edge": {"port": 2}, "list": [3]}) == {"edge": {"camera": "0", "port": 2}, "list": [3]}
    assert former["edge"] == {"camera": "0", "port": 1}
