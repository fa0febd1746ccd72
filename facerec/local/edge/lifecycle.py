"""A component as a nucleus reads it from its recipe: manifest, configuration, variables and steps. Pure.

The rules are those of the classic nucleus, as AWS' reference of recipes has them. What our recipe does not use is
refused: a local test must not pass by leaving a step out.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from facerec.errors import FacerecError

_VARIABLE = re.compile(r"\{([a-zA-Z]+):([^{}\s]+)\}")
_STEPS = {"install", "run"}
_DEFAULT_SECONDS = {"install": 120.0, "run": None}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "aarch64", "arm64": "aarch64"}
"""Greengrass' names of the processors, by those of the kernel."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the lifecycle: a script for `sh`, with variables of its own."""

    script: str
    environ: Mapping[str, str]
    timeout_seconds: float | None
    """None: it may run for ever."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """A component for one processor; its scripts still have recipe variables."""

    name: str
    version: str
    default_configuration: Mapping[str, Any]
    uri: str
    """Of its only artefact, a ZIP archive."""
    steps: Mapping[str, Step]

    @classmethod
    def read(cls, recipe: Mapping[str, Any], machine: str) -> Self:
        """Choose the manifest for a processor; raises `FacerecError` if none fits, or for a step not known here."""
        keys = _small_keys(recipe)
        manifest = _manifest(keys, _ARCHITECTURES.get(machine, machine))
        lifecycle = dict(manifest["lifecycle"])
        shared = lifecycle.pop("setenv", {})
        if unknown := set(lifecycle) - _STEPS:
            raise FacerecError(f"the local nucleus runs no {', '.join(sorted(unknown))}")
        [artefact] = manifest["artifacts"]
        if artefact.get("unarchive", "NONE").upper() != "ZIP":
            raise FacerecError("the local nucleus takes ZIP archives that are unpacked, and nothing else")
        return cls(
            name=keys["componentname"],
            version=keys["componentversion"],
            default_configuration=recipe["ComponentConfiguration"]["DefaultConfiguration"],
            uri=artefact["uri"],
            steps={name: _step(name, step, shared) for name, step in lifecycle.items()},
        )

    @property
    def folder(self) -> str:
        """The folder of the unpacked artefact, named as the archive without its extension."""
        return self.uri.rpartition("/")[2].removesuffix(".zip")


def merged(configuration: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with the changes of a deployment: objects are merged, all else is replaced."""
    found = dict(configuration)
    for name, value in changes.items():
        former = found.get(name)
        both = isinstance(value, Mapping) and isinstance(former, Mapping)
        found[name] = merged(former, value) if both else value  # type: ignore[arg-type] # both are objects
    return found


def interpolated(text: str, variables: Mapping[str, str], configuration: Mapping[str, Any]) -> str:
    """Return the text with its recipe variables replaced; what is no variable, or has no value, stays as it is."""

    def value(found: re.Match[str]) -> str:
        if found[1] == "configuration":
            return _pointed(configuration, found[2], found[0])
        return variables.get(f"{found[1]}:{found[2]}", found[0])

    return _VARIABLE.sub(value, text)


def _pointed(configuration: Any, pointer: str, otherwise: str) -> str:
    for key in pointer.removeprefix("/").split("/"):
        if not isinstance(configuration, Mapping) or key not in configuration:
            return otherwise
        configuration = configuration[key]
    return configuration if isinstance(configuration, str) else json.dumps(configuration)


def _manifest(recipe: Mapping[str, Any], architecture: str) -> Mapping[str, Any]:
    here = {"os": "linux", "architecture": architecture, "runtime": "aws_nucleus_classic"}
    for manifest in recipe["manifests"]:
        if all(wanted in {"*", here.get(name)} for name, wanted in manifest.get("platform", {}).items()):
            found: Mapping[str, Any] = manifest
            return found
    raise FacerecError(f"the recipe has no manifest for linux on {architecture}")


def _step(name: str, step: str | Mapping[str, Any], shared: Mapping[str, str]) -> Step:
    if isinstance(step, str):
        step = {"script": step}
    if step.get("requiresprivilege"):
        raise FacerecError(f"the step {name} asks for privileges")
    if "skipif" in step:
        raise FacerecError(f"the step {name} has a Skipif, which the local nucleus does not know")
    limit = step.get("timeout", _DEFAULT_SECONDS[name])
    return Step(step["script"], {**shared, **step.get("setenv", {})}, None if limit is None else float(limit))


def _small_keys(value: Any) -> Any:
    """The classic nucleus does not tell keys by case, but for variables and the configuration."""
    if isinstance(value, Mapping):
        names = {name: name.lower() for name in value}
        return {
            small: each if small in {"setenv", "defaultconfiguration"} else _small_keys(each)
            for small, each in ((names[name], each) for name, each in value.items())
        }
    return [_small_keys(each) for each in value] if isinstance(value, list) else value
