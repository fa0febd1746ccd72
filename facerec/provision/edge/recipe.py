"""The recipe of the Greengrass component, and the configuration of a deployment. Pure.

Both nuclei read the recipe. Nucleus lite compares keys by case, and in the form that they have here (`install`, `run`,
`Uri`). It wants `runtime` in a platform, takes each `{` of a script for a recipe variable, and knows neither `Skipif`
nor `shutdown`. A dependency on the nucleus is not stated, because the two nuclei have different names.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from facerec.edge_messages import faces_topic, frames_topic, results_topic, status_topic
from facerec.provision.iam_edge import COMPONENT, COMPONENTS_PREFIX
from facerec.settings import ENV_PREFIX, Settings
from facerec.settings.edge import EdgeSettings

Architecture = Literal["x86_64", "arm64"]
ARTEFACT = "facerec-edge"
"""The name of the ZIP archive without its extension, and of the folder into which the nucleus unpacks it."""
THIS_THING = "{iot:thingName}"
"""Recipe variable: the name of the device."""
CONFIGURATION_KEY = "edge"
"""The key of the component's configuration whose fields are those of `EdgeSettings`."""
PLATFORMS: Mapping[Architecture, str] = {"x86_64": "amd64", "arm64": "aarch64"}
"""The processors by Greengrass' names."""

_FILES = f"{{artifacts:decompressedPath}}/{ARTEFACT}"
_WORK = "{work:path}"
_OF_THE_CLOUD = {"enabled", "thing"}
"""The first is of the cloud; the second is the nucleus'."""
_OF_THE_RECIPE = {"state_dir"}
"""Set by the recipe's own variables."""
_INSTALL_SECONDS = 900
"""The nucleus' default is 120 s; an SD card takes longer for 400 MB."""


def recipe(
    settings: Settings, version: str, uris: Mapping[Architecture, str], *, with_model: bool = True
) -> dict[str, Any]:
    """Return the recipe of a version, for the processors whose artefacts have these URIs.

    Its default configuration is that of a device which talks through its nucleus; a deployment changes it. Of the
    settings it has the licence of models, and, if the artefact has no model, the bucket to pull it from.
    """
    # Its credentials are for the pull of the model alone: the nucleus fetches artefacts with its own.
    exchange = {"VersionRequirement": ">=2.0.3 <3.0.0", "DependencyType": "HARD"}
    needs = {} if with_model else {"ComponentDependencies": {"aws.greengrass.TokenExchangeService": exchange}}
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": COMPONENT,
        "ComponentVersion": version,
        "ComponentType": "aws.greengrass.generic",
        "ComponentDescription": "Detects faces on the device and sends them to the cloud; frames stay on the device",
        "ComponentPublisher": "facerec",
        "ComponentConfiguration": {
            "DefaultConfiguration": {
                CONFIGURATION_KEY: default_configuration(),
                "accessControl": access_control(THIS_THING),
            }
        },
        **needs,
        "Manifests": [
            {
                "Platform": {"os": "linux", "architecture": PLATFORMS[architecture], "runtime": "*"},
                "Lifecycle": _lifecycle(settings, with_model=with_model),
                "Artifacts": [{"Uri": uri, "Unarchive": "ZIP", "Permission": {"Read": "OWNER", "Execute": "NONE"}}],
            }
            for architecture, uri in sorted(uris.items())
        ],
    }


def default_configuration() -> dict[str, Any]:
    """Return the settings of a device that have a default, in JSON; the names are those of `EdgeSettings`."""
    return EdgeSettings(link="ipc").model_dump(mode="json", exclude=_OF_THE_CLOUD | _OF_THE_RECIPE, exclude_none=True)


def deployed_configuration(settings: Settings, thing: str) -> dict[str, Any]:
    """Return what a deployment merges into the default configuration: each FACEREC_EDGE__* that is set here.

    The topics of the access control are stated with the thing's name: the classic nucleus replaces recipe variables
    in a configuration only if its `interpolateComponentConfiguration` is true.
    """
    return {
        CONFIGURATION_KEY: settings.edge.model_dump(
            mode="json", exclude=_OF_THE_CLOUD | _OF_THE_RECIPE, exclude_none=True, exclude_unset=True
        ),
        "accessControl": access_control(thing),
    }


def access_control(thing: str) -> dict[str, Any]:
    """Return what the nucleus lets the component do: publish and subscribe to the topics of its own thing alone."""
    return {
        "aws.greengrass.ipc.mqttproxy": {
            f"{COMPONENT}:mqttproxy:1": {
                "policyDescription": "Send faces and the status",
                "operations": ["aws.greengrass#PublishToIoTCore"],
                "resources": [faces_topic(thing), status_topic(thing)],
            },
            f"{COMPONENT}:mqttproxy:2": {
                "policyDescription": "Receive results",
                "operations": ["aws.greengrass#SubscribeToIoTCore"],
                "resources": [results_topic(thing)],
            },
        },
        "aws.greengrass.ipc.pubsub": {
            f"{COMPONENT}:pubsub:1": {
                "policyDescription": "Receive frames of other components",
                "operations": ["aws.greengrass#SubscribeToTopic"],
                "resources": [frames_topic(thing)],
            }
        },
    }


def artefact_key(sha256: str) -> str:
    """Return the key of an archive with this hash; the nucleus names the folder of its files after the last part."""
    return f"{COMPONENTS_PREFIX}{sha256}/{ARTEFACT}.zip"


def recipe_text(document: Mapping[str, Any]) -> str:
    """Return a recipe as the file of it has it."""
    return json.dumps(document, indent=2) + "\n"


def _lifecycle(settings: Settings, *, with_model: bool) -> dict[str, Any]:
    """Return the steps. There is none for the end: the nucleus sends SIGTERM, after which the component ends itself."""
    model = f"{_FILES}/model" if with_model else f"{_WORK}/model"
    pulled = (
        {}
        if with_model
        else {
            f"{ENV_PREFIX}AWS__REGION": settings.aws.region,
            f"{ENV_PREFIX}NAMES__MODEL_BUCKET": settings.model_bucket,
        }
    )
    return {
        "Setenv": {
            f"{ENV_PREFIX}MODEL__DIR": model,
            f"{ENV_PREFIX}MODEL__CACHE_DIR": f"{_WORK}/cache",
            f"{ENV_PREFIX}MODEL__LICENCE": settings.model.licence,
            f"{ENV_PREFIX}EDGE__STATE_DIR": f"{_WORK}/state",
            **pulled,
        },
        "install": {
            "Script": f'exec sh "{_FILES}/install.sh" "{_FILES}" "{_WORK}"',
            "RequiresPrivilege": False,
            "Timeout": _INSTALL_SECONDS,
        },
        "run": {
            "Script": f'exec "{_WORK}/venv/bin/python" -Iu -m facerec.cli edge run',
            "RequiresPrivilege": False,
        },
    }
