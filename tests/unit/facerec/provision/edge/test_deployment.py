"""Deployments by Greengrass, held against the model of its API: neither emulator has the service.

botocore's `Stubber` checks names and types of each request and answer; the order of calls is checked, too.
"""

import json
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from facerec.aws.clients import Clients
from facerec.errors import FacerecError
from facerec.provision.edge import deployment
from facerec.provision.edge.deployment import ResourceLimits, deploy, device_state
from facerec.provision.iam_edge import COMPONENT
from facerec.settings import Settings
from model.artefact import file_sha256
from tests.fakes.object_store import InMemoryObjectStore

THING = "arn:aws:iot:eu-central-1:123456789012:thing/gate-1"
COMPONENT_ARN = f"arn:aws:greengrass:eu-central-1:123456789012:components:{COMPONENT}:versions:"
LIMITS = ResourceLimits(memory_mb=512, cpus=1.5)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
DEPLOYABLE = {"status": {"componentState": "DEPLOYABLE"}}


class Cloud:
    """The clients with stubbed answers, and a bucket in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "any")
        self.settings = Settings()
        self.clients = Clients(self.settings)
        self.iot = Stubber(self.clients.iot)
        self.greengrass = Stubber(self.clients.greengrass)
        self.store = InMemoryObjectStore()
        monkeypatch.setattr(deployment, "S3ObjectStore", lambda _: self.store)
        self.iot.add_response("describe_thing", {"thingArn": THING}, {"thingName": "gate-1"})

    def deploy(self, *archives: Path) -> deployment.Deployed:
        return deploy(self.clients, self.settings, "gate-1", archives, LIMITS, poll_seconds=0)

    def version_exists(self) -> None:
        self.greengrass.add_response("describe_component", DEPLOYABLE, {"arn": ANY})

    def version_is_created(self, *states: dict[str, Any]) -> None:
        self.greengrass.add_client_error("describe_component", "ResourceNotFoundException", http_status_code=404)
        answer = {"componentName": COMPONENT, "componentVersion": "1", "creationTimestamp": NOW, "status": {}}
        answer["status"] = {"componentState": "REQUESTED"}
        self.greengrass.add_response("create_component_version", answer, {"inlineRecipe": ANY})
        for state in states or (DEPLOYABLE,):
            self.greengrass.add_response("describe_component", state, {"arn": ANY})

    def deployed_before(self, **latest: Any) -> None:
        wanted = {"targetArn": THING, "historyFilter": "LATEST_ONLY"}
        found = [{"deploymentId": "d-1"}] if latest else []
        self.greengrass.add_response("list_deployments", {"deployments": found}, wanted)
        if latest:
            answer = {"deploymentId": "d-1", "deploymentStatus": "COMPLETED", **latest}
            self.greengrass.add_response("get_deployment", answer, {"deploymentId": "d-1"})

    def is_deployed(self, **wanted: Any) -> None:
        self.greengrass.add_response(
            "create_deployment",
            {"deploymentId": "d-2"},
            {"targetArn": THING, "components": ANY, "deploymentName": ANY, **wanted},
        )


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """It checks at the end that nothing was left out."""
    made = Cloud(monkeypatch)
    with made.iot, made.greengrass:
        yield made
        made.iot.assert_no_pending_responses()
        made.greengrass.assert_no_pending_responses()


@pytest.fixture
def sent(cloud: Cloud) -> dict[str, dict[str, Any]]:
    """The parameters of the calls that were made, by operation."""
    found: dict[str, dict[str, Any]] = {}

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        found[model.name] = params

    cloud.clients.greengrass.meta.events.register("provide-client-params.*.*", note)
    return found


def _archive(folder: Path, architecture: str = "x86_64", *, model: str | None = "open-1", content: str = "") -> Path:
    described: dict[str, Any] = {
        "facerec": "0.1.0",
        "architecture": architecture,
        "pythons": ["3.13"],
        "model": model,
        "files": {},
    }
    archive = folder / f"facerec-edge-{architecture}{content}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("artefact.json"), json.dumps(described) + content)
    return archive


def test_component_is_uploaded_created_and_deployed(
    cloud: Cloud, sent: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe names the archive by its hash; the deployment has the settings, the topics and the limits."""
    monkeypatch.setenv("FACEREC_EDGE__SOURCE", "camera")
    cloud.settings = Settings()
    archive = _archive(tmp_path)
    cloud.version_is_created({"status": {"componentState": "INITIATED"}}, DEPLOYABLE)
    cloud.deployed_before()
    cloud.is_deployed()
    made = cloud.deploy(archive)
    assert (made.changed, made.deployment_id) == (True, "d-2")

    key = f"components/{file_sha256(archive)}/facerec-edge.zip"
    assert cloud.store.get("facerec-model-bucket", key) == archive.read_bytes()
    recipe = json.loads(sent["CreateComponentVersion"]["inlineRecipe"])
    assert recipe["ComponentVersion"] == made.version
    assert recipe["Manifests"][0]["Artifacts"][0]["Uri"] == f"s3://facerec-model-bucket/{key}"
    assert sent["DescribeComponent"]["arn"] == f"{COMPONENT_ARN}{made.version}"

    component = sent["CreateDeployment"]["components"][COMPONENT]
    assert component["componentVersion"] == made.version
    assert component["runWith"] == {"systemResourceLimits": {"memory": 512 * 1024, "cpus": 1.5}}
    assert component["configurationUpdate"]["reset"] == [""]
    merged = json.loads(component["configurationUpdate"]["merge"])
    assert merged["edge"] == {"source": "camera"}
    assert "facerec/gate-1/faces" in json.dumps(merged["accessControl"])


def test_equal_content_is_the_same_version_and_is_not_deployed_again(
    cloud: Cloud, sent: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The second run only looks."""
    archive = _archive(tmp_path)
    cloud.version_is_created()
    cloud.deployed_before()
    cloud.is_deployed()
    first = cloud.deploy(archive)

    cloud.iot.add_response("describe_thing", {"thingArn": THING}, {"thingName": "gate-1"})
    cloud.version_exists()
    cloud.deployed_before(components=sent["CreateDeployment"]["components"])
    again = cloud.deploy(archive)
    assert (again.version, again.changed, again.deployment_id) == (first.version, False, "d-1")


def test_other_content_is_another_version(cloud: Cloud, tmp_path: Path) -> None:
    """A byte of the archive is enough."""
    versions = set()
    for content in ("", " "):
        cloud.version_exists()
        cloud.deployed_before()
        cloud.is_deployed()
        versions.add(cloud.deploy(_archive(tmp_path, content=content)).version)
        if not content:
            cloud.iot.add_response("describe_thing", {"thingArn": THING}, {"thingName": "gate-1"})
    assert len(versions) == 2


def test_other_components_of_the_device_stay(cloud: Cloud, sent: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """A deployment replaces the last one of the same thing as a whole."""
    others = {"aws.greengrass.Cli": {"componentVersion": "2.12.0"}, COMPONENT: {"componentVersion": "0.0.9"}}
    policies = {"failureHandlingPolicy": "DO_NOTHING"}
    cloud.version_exists()
    cloud.deployed_before(components=others, deploymentName="Gate", deploymentPolicies=policies)
    cloud.is_deployed(deploymentName="Gate", deploymentPolicies=policies)
    made = cloud.deploy(_archive(tmp_path))
    components = sent["CreateDeployment"]["components"]
    assert components["aws.greengrass.Cli"] == others["aws.greengrass.Cli"]
    assert components[COMPONENT]["componentVersion"] == made.version


def test_failed_deployment_is_made_again(cloud: Cloud, sent: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Though it is equal."""
    archive = _archive(tmp_path)
    cloud.version_exists()
    cloud.deployed_before()
    cloud.is_deployed()
    cloud.deploy(archive)
    cloud.iot.add_response("describe_thing", {"thingArn": THING}, {"thingName": "gate-1"})
    cloud.version_exists()
    cloud.deployed_before(components=sent["CreateDeployment"]["components"], deploymentStatus="FAILED")
    cloud.is_deployed()
    assert cloud.deploy(archive).changed


def test_both_processors_are_in_one_version(cloud: Cloud, sent: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """Each with its own archive."""
    cloud.version_is_created()
    cloud.deployed_before()
    cloud.is_deployed()
    cloud.deploy(_archive(tmp_path), _archive(tmp_path, "arm64"))
    manifests = json.loads(sent["CreateComponentVersion"]["inlineRecipe"])["Manifests"]
    assert [one["Platform"]["architecture"] for one in manifests] == ["aarch64", "amd64"]
    assert len({one["Artifacts"][0]["Uri"] for one in manifests}) == 2


def test_version_that_greengrass_refuses_is_named_with_its_reason(cloud: Cloud, tmp_path: Path) -> None:
    """And how to get rid of it, since a version cannot be replaced."""
    errors = {"ARTIFACT": "cannot read the artifact"}
    failed = {"status": {"componentState": "FAILED", "message": "The recipe is wrong", "errors": errors}}
    cloud.version_is_created(failed)
    with pytest.raises(FacerecError, match=r"is FAILED: The recipe is wrong; cannot read the artifact; delete it with"):
        cloud.deploy(_archive(tmp_path))


def test_archives_must_fit_together(cloud: Cloud, tmp_path: Path) -> None:
    """One per processor, with one model."""
    with pytest.raises(FacerecError, match="is a second archive for x86_64"):
        cloud.deploy(_archive(tmp_path), _archive(tmp_path, content=" "))
    cloud.iot.add_response("describe_thing", {"thingArn": THING}, {"thingName": "gate-1"})
    with pytest.raises(FacerecError, match="the archives have different models"):
        cloud.deploy(_archive(tmp_path), _archive(tmp_path, "arm64", model=None))


def test_thing_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the command that makes it."""
    cloud = Cloud(monkeypatch)
    stubbed = Stubber(cloud.clients.iot)
    stubbed.add_client_error("describe_thing", "ResourceNotFoundException", http_status_code=404)
    with stubbed, pytest.raises(FacerecError, match="no thing 'gate-1': make it with `facerec edge provision gate-1"):
        cloud.deploy(_archive(tmp_path))


def _device(cloud: Cloud) -> None:
    device = {
        "coreDeviceThingName": "gate-1",
        "coreVersion": "2.14.0",
        "runtime": "aws_nucleus_classic",
        "platform": "linux",
        "architecture": "aarch64",
        "status": "HEALTHY",
        "lastStatusUpdateTimestamp": NOW,
    }
    cloud.greengrass.add_response("get_core_device", device, {"coreDeviceThingName": "gate-1"})


def test_status_shows_what_the_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our component first."""
    cloud = Cloud(monkeypatch)
    _device(cloud)
    installed = [
        {"componentName": name, "componentVersion": "1", "lifecycleState": state}
        for name, state in (("aws.greengrass.Nucleus", "FINISHED"), (COMPONENT, "RUNNING"))
    ]
    cloud.greengrass.add_response(
        "list_installed_components",
        {"installedComponents": installed},
        {"coreDeviceThingName": "gate-1", "topologyFilter": "ALL"},
    )
    effective = {
        "deploymentId": "d-1",
        "deploymentName": "Gate",
        "targetArn": THING,
        "coreDeviceExecutionStatus": "FAILED",
        "reason": "no disk",
        "creationTimestamp": NOW,
        "modifiedTimestamp": NOW,
    }
    cloud.greengrass.add_response(
        "list_effective_deployments", {"effectiveDeployments": [effective]}, {"coreDeviceThingName": "gate-1"}
    )
    with cloud.greengrass:
        state = device_state(cloud.clients, "gate-1")
    assert (state.status, state.nucleus, state.platform) == ("HEALTHY", "2.14.0 aws_nucleus_classic", "linux aarch64")
    assert (state.components[0].name, state.components[0].state) == (COMPONENT, "RUNNING")
    assert state.deployments == (("d-1", "FAILED", "no disk"),)


def test_status_of_a_device_that_never_reported_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nucleus may not be installed yet."""
    cloud = Cloud(monkeypatch)
    cloud.greengrass.add_client_error("get_core_device", "ResourceNotFoundException", http_status_code=404)
    with cloud.greengrass:
        assert "no core device" in device_state(cloud.clients, "gate-1").status
