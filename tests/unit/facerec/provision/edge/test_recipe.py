"""The recipe of the Greengrass component, held against AWS's schema and against what the two nuclei read."""

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest

from facerec.provision.edge.recipe import (
    access_control,
    default_configuration,
    deployed_configuration,
    recipe,
    recipe_text,
)
from facerec.provision.iam_edge import COMPONENT
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.support.processes import CHECKOUT

URIS = {"x86_64": "s3://bucket/edge/1/facerec-edge.zip", "arm64": "s3://bucket/edge/2/facerec-edge.zip"}
_SCHEMA = json.loads((CHECKOUT / "tests/support/greengrass/recipe_schema.json").read_text())
_LITE_VARIABLES = {"artifacts:decompressedPath", "artifacts:path", "iot:thingName", "kernel:rootPath", "work:path"}


def _recipe(settings: Settings | None = None, **options: Any) -> dict[str, Any]:
    return recipe(settings or Settings(), "1.2.3", URIS, **options)  # type: ignore[arg-type] # its keys are literals


def _check(document: dict[str, Any]) -> None:
    """Keys are compared in small letters, as AWS's own tool does."""
    jsonschema.validate(_small_keys(document), _SCHEMA, cls=jsonschema.Draft7Validator)


def _small_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.lower(): _small_keys(each) for key, each in value.items()}
    return [_small_keys(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("with_model", [True, False])
def test_recipe_is_valid_by_the_schema_of_aws(*, with_model: bool) -> None:
    """With the model in the artefact, and with one that is pulled."""
    document = _recipe(with_model=with_model)
    _check(document)
    assert json.loads(recipe_text(document)) == document


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one.pop("ComponentVersion"),
        lambda one: one.update(RecipeFormatVersion="2025-01-01"),
        lambda one: one.update(ComponentName="com facerec"),
        lambda one: one.update(SystemResourceLimits={"memory": 1}),
        lambda one: one["Manifests"][0]["Artifacts"][0].pop("Uri"),
        lambda one: one["Manifests"][0]["Artifacts"][0].update(Unarchive="TAR"),
        lambda one: one["Manifests"][0]["Lifecycle"]["install"].pop("Script"),
        lambda one: one["Manifests"][0]["Lifecycle"]["install"].update(Timeout=1.5),
        lambda one: one["Manifests"][1]["Platform"].update(architecture=["aarch64"]),
    ],
)
def test_schema_refuses_a_wrong_recipe(spoil: Callable[[dict[str, Any]], Any]) -> None:
    """So the schema is one that can fail."""
    document = copy.deepcopy(_recipe())
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        _check(document)


def test_recipe_is_one_that_nucleus_lite_reads() -> None:
    """It compares keys by case, wants `runtime`, and takes each brace of a script for a variable that it must know."""
    for manifest in _recipe()["Manifests"]:
        assert manifest["Platform"]["runtime"] == "*"
        assert set(manifest["Lifecycle"]) == {"Setenv", "install", "run"}
        assert set(manifest["Artifacts"][0]) == {"Uri", "Unarchive", "Permission"}
        scripts = [manifest["Lifecycle"][step]["Script"] for step in ("install", "run")]
        for text in (*scripts, *manifest["Lifecycle"]["Setenv"].values()):
            assert isinstance(text, str)
            assert set(re.findall(r"\{([^}]*)\}", text)) <= _LITE_VARIABLES
            assert "{" not in re.sub(r"\{[^{}]*\}", "", text)


def test_component_never_runs_as_root() -> None:
    """No step asks for privileges."""
    for manifest in _recipe()["Manifests"]:
        steps = [manifest["Lifecycle"][step] for step in ("install", "run")]
        assert [step["RequiresPrivilege"] for step in steps] == [False, False]


def test_recipe_has_a_manifest_per_processor() -> None:
    """With Greengrass' names of the processors, each with its own artefact."""
    found = {one["Platform"]["architecture"]: one["Artifacts"][0]["Uri"] for one in _recipe()["Manifests"]}
    assert found == {"aarch64": URIS["arm64"], "amd64": URIS["x86_64"]}


def test_default_configuration_is_what_the_settings_of_the_device_read() -> None:
    """Names and values map to `EdgeSettings` one to one, also after JSON has made floats of the numbers."""
    configuration = default_configuration()
    as_floats = {
        name: float(value) if type(value) is int else value
        for name, value in json.loads(json.dumps(configuration)).items()
    }
    assert EdgeSettings(**as_floats) == EdgeSettings(link="ipc")
    assert not {"enabled", "thing", "state_dir"} & set(configuration)


def test_deployment_changes_what_is_set_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a value that equals the settings' own default, which is not the recipe's."""
    monkeypatch.setenv("FACEREC_EDGE__LINK", "mqtt")
    monkeypatch.setenv("FACEREC_EDGE__SOURCE", "camera")
    monkeypatch.setenv("FACEREC_EDGE__ENABLED", "true")
    merged = deployed_configuration(Settings.load(), "gate-1")
    assert merged["edge"] == {"link": "mqtt", "source": "camera"}
    assert merged["accessControl"] == access_control("gate-1")


@pytest.mark.parametrize("thing", ["{iot:thingName}", "gate-1"])
def test_access_is_to_the_topics_of_one_thing(thing: str) -> None:
    """Without wildcards; sending and receiving are policies of their own. Nucleus lite reads 4096 bytes of them."""
    policies = access_control(thing)
    allowed = {
        (operation.removeprefix("aws.greengrass#"), resource)
        for service in policies.values()
        for policy in service.values()
        for operation in policy["operations"]
        for resource in policy["resources"]
    }
    assert allowed == {
        ("PublishToIoTCore", f"facerec/{thing}/faces"),
        ("PublishToIoTCore", f"facerec/{thing}/status"),
        ("SubscribeToIoTCore", f"facerec/{thing}/results"),
        ("SubscribeToTopic", f"clients/{thing}"),
    }
    assert not re.search(r"[*#+]", "".join(resource for _, resource in allowed))
    assert all(name.startswith(COMPONENT) for service in policies.values() for name in service)
    assert len(json.dumps(policies)) < 4096


def test_only_a_pulled_model_needs_credentials() -> None:
    """The token exchange serves them to each component of the device."""
    assert "ComponentDependencies" not in _recipe()
    pulled = _recipe(with_model=False)
    assert set(pulled["ComponentDependencies"]) == {"aws.greengrass.TokenExchangeService"}
    environ = pulled["Manifests"][0]["Lifecycle"]["Setenv"]
    assert environ["FACEREC_NAMES__MODEL_BUCKET"] == "facerec-model-bucket"
    assert environ["FACEREC_MODEL__DIR"] == "{work:path}/model"
