"""Deploys the component to a device by AWS IoT Greengrass, and reads what the device says about it."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import facerec
from facerec.aws.clients import Clients, translated
from facerec.aws.object_store import S3ObjectStore
from facerec.errors import FacerecError
from facerec.provision.edge.artefact import EdgeArtefact
from facerec.provision.edge.recipe import (
    Architecture,
    artefact_key,
    deployed_configuration,
    recipe,
)
from facerec.provision.iam_edge import COMPONENT
from facerec.settings import Settings
from model.artefact import file_sha256

if TYPE_CHECKING:
    from mypy_boto3_greengrassv2.type_defs import ComponentDeploymentSpecificationUnionTypeDef

_ZIP = "application/zip"
_DIGITS = 12
"""Of the content's hash in a version: 48 bits."""
_CREATE_SECONDS = 120.0
_KEPT = ("deploymentName", "iotJobConfiguration", "deploymentPolicies")
"""What a new deployment takes over from the last one of the same device."""


class _Missing(FacerecError):
    """Greengrass has no version, device or deployment of this name."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What the component may use on the device; the nucleus enforces it."""

    memory_mb: int
    cpus: float


@dataclass(frozen=True, slots=True)
class Deployed:
    """What `deploy` did."""

    version: str
    deployment_id: str
    changed: bool
    """Whether the device was not deployed so already."""


@dataclass(frozen=True, slots=True)
class InstalledComponent:
    """A component on the device, as its nucleus reported it."""

    name: str
    version: str
    state: str
    details: str
    reported_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeviceState:
    """All that `facerec edge status` shows."""

    thing: str
    status: str
    """HEALTHY, UNHEALTHY, or that it is no core device yet."""
    nucleus: str = ""
    platform: str = ""
    reported_at: datetime | None = None
    components: tuple[InstalledComponent, ...] = ()
    deployments: tuple[tuple[str, str, str], ...] = ()
    """Id, status and reason of each deployment that the device has."""


def deploy(
    clients: Clients,
    settings: Settings,
    thing: str,
    archives: Sequence[Path],
    limits: ResourceLimits,
    *,
    poll_seconds: float = 1.0,
    report: Callable[[str], None] = lambda _: None,
) -> Deployed:
    """Upload the archives, create the component's version, and deploy it to the thing; what exists is kept.

    Equal archives and recipes have equal versions, and an equal deployment is not made again. The other components
    that were deployed to this thing stay. Raises `FacerecError` for archives that do not fit together, a thing that
    does not exist, and a version that Greengrass refuses.
    """
    thing_arn = _thing_arn(clients, thing)
    uris, with_model = _upload(clients, settings, archives, report)
    # Without the version, which is made of it.
    document = recipe(settings, "", uris, with_model=with_model)
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    version = document["ComponentVersion"] = f"{facerec.__version__}-c{digest[:_DIGITS]}"
    _create_version(clients, thing_arn, document, poll_seconds, report)
    specification: ComponentDeploymentSpecificationUnionTypeDef = {
        "componentVersion": version,
        "configurationUpdate": {
            # First back to the defaults of the recipe: what was set by an earlier deployment alone must go.
            "reset": [""],
            "merge": json.dumps(deployed_configuration(settings, thing), sort_keys=True),
        },
        "runWith": {"systemResourceLimits": {"memory": limits.memory_mb * 1024, "cpus": limits.cpus}},
    }
    deployment_id, changed = _create_deployment(clients, thing_arn, specification)
    return Deployed(version, deployment_id, changed)


def _thing_arn(clients: Clients, thing: str) -> str:
    missing = FacerecError(f"there is no thing {thing!r}: make it with `facerec edge provision {thing}`")
    with translated(f"look for thing {thing!r}", ResourceNotFoundException=lambda: missing):
        return clients.iot.describe_thing(thingName=thing)["thingArn"]


def _upload(
    clients: Clients, settings: Settings, archives: Sequence[Path], report: Callable[[str], None]
) -> tuple[dict[Architecture, str], bool]:
    """Send the archives that the bucket lacks; return their URIs, and whether they have the model."""
    store, bucket = S3ObjectStore(clients), settings.model_bucket
    uris: dict[Architecture, str] = {}
    models = set()
    for archive in archives:
        described = EdgeArtefact.read(archive)
        if described.architecture in uris:
            raise FacerecError(f"{archive} is a second archive for {described.architecture}")
        models.add(described.model)
        key = artefact_key(file_sha256(archive))
        uris[described.architecture] = f"s3://{bucket}/{key}"
        if store.exists(bucket, key):
            report(f"{archive.name} is in {bucket} already")
            continue
        report(f"sending {archive.name} ({archive.stat().st_size / 1e6:.0f} MB) to {bucket}")
        with archive.open("rb") as file:
            store.upload(bucket, key, file, _ZIP)
    if len(models) != 1:
        raise FacerecError("the archives have different models: package them again, all with the same one")
    return uris, models != {None}


def _create_version(
    clients: Clients,
    thing_arn: str,
    document: Mapping[str, Any],
    poll_seconds: float,
    report: Callable[[str], None],
) -> None:
    """Create the version unless it exists, and wait until Greengrass has checked its artefacts."""
    version = document["ComponentVersion"]
    partition, _, region, account = thing_arn.split(":")[1:5]
    arn = f"arn:{partition}:greengrass:{region}:{account}:components:{COMPONENT}:versions:{version}"
    deadline = time.monotonic() + _CREATE_SECONDS
    while True:
        try:
            with translated(f"look at version {version}", ResourceNotFoundException=lambda: _Missing(version)):
                status = clients.greengrass.describe_component(arn=arn)["status"]
        except _Missing:
            report(f"creating version {version} of {COMPONENT}")
            with translated(f"create version {version} of {COMPONENT}"):
                clients.greengrass.create_component_version(inlineRecipe=json.dumps(document).encode())
            continue
        state = status["componentState"]
        if state == "DEPLOYABLE":
            return
        if state in {"FAILED", "DEPRECATED"} or time.monotonic() >= deadline:
            told = "; ".join([status.get("message", ""), *status.get("errors", {}).values()]).strip("; ")
            raise FacerecError(
                f"version {version} of {COMPONENT} is {state}: {told}; delete it with `aws greengrassv2 "
                f"delete-component --arn {arn}`, and deploy again"
            )
        time.sleep(poll_seconds)


def _create_deployment(
    clients: Clients, thing_arn: str, specification: "ComponentDeploymentSpecificationUnionTypeDef"
) -> tuple[str, bool]:
    """Deploy beside what the thing has; returns the deployment's id, and whether it is new."""
    with translated(f"read the deployments of {thing_arn}"):
        found = clients.greengrass.list_deployments(targetArn=thing_arn, historyFilter="LATEST_ONLY")["deployments"]
        latest: Mapping[str, Any] = (
            clients.greengrass.get_deployment(deploymentId=found[0]["deploymentId"]) if found else {}
        )
    components = dict(latest.get("components", {}))
    if components.get(COMPONENT) == specification and latest["deploymentStatus"] in {"ACTIVE", "COMPLETED"}:
        return str(latest["deploymentId"]), False
    kept = {name: latest[name] for name in _KEPT if latest.get(name)}
    kept.setdefault("deploymentName", f"{COMPONENT} on {thing_arn.rpartition('/')[2]}")
    with translated(f"deploy to {thing_arn}"):
        made = clients.greengrass.create_deployment(
            targetArn=thing_arn, components={**components, COMPONENT: specification}, **kept
        )
    return made["deploymentId"], True


def device_state(clients: Clients, thing: str) -> DeviceState:
    """Read what Greengrass knows of the device; one that never reported is stated, not an error."""
    client = clients.greengrass
    try:
        with translated(f"look at device {thing!r}", ResourceNotFoundException=lambda: _Missing(thing)):
            device = client.get_core_device(coreDeviceThingName=thing)
    except _Missing:
        return DeviceState(thing, "no core device: its nucleus has not reported yet")
    with translated(f"list what device {thing!r} has"):
        components = [
            one
            for page in client.get_paginator("list_installed_components").paginate(
                coreDeviceThingName=thing, topologyFilter="ALL"
            )
            for one in page["installedComponents"]
        ]
        deployments = [
            one
            for page in client.get_paginator("list_effective_deployments").paginate(coreDeviceThingName=thing)
            for one in page["effectiveDeployments"]
        ]
    return DeviceState(
        thing,
        device["status"],
        nucleus=f"{device['coreVersion']} {device.get('runtime', '')}".strip(),
        platform=f"{device['platform']} {device['architecture']}",
        reported_at=device["lastStatusUpdateTimestamp"],
        components=tuple(
            InstalledComponent(
                one["componentName"],
                one["componentVersion"],
                one["lifecycleState"],
                one.get("lifecycleStateDetails", ""),
                one.get("lastReportedTimestamp"),
            )
            for one in sorted(components, key=lambda one: (one["componentName"] != COMPONENT, one["componentName"]))
        ),
        deployments=tuple(
            (one["deploymentId"], one["coreDeviceExecutionStatus"], one.get("reason", "")) for one in deployments
        ),
    )
