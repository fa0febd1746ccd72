"""Settings of the edge that change while the component runs, such as those of a Greengrass deployment."""

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from facerec.errors import ConfigurationError
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings

FIXED = frozenset({"enabled", "thing", "state_dir"})
"""Fields that a running component does not change: whose state it has, and what is of the cloud."""


class ConfigurationSource(Protocol):
    """Where settings come from beside the environment."""

    def changes(self) -> Mapping[str, Any] | None:
        """Return the configured fields of `EdgeSettings`, or `None` if they are as at the last call; returns at once.

        The first call returns what is configured at the start. Raises `Transient` if that cannot be read now.
        """


class EnvironmentOnly:
    """The `ConfigurationSource` of a component without Greengrass: nothing is configured elsewhere."""

    def changes(self) -> Mapping[str, Any] | None:
        """Nothing."""
        return None


def configured(settings: Settings, fields: Mapping[str, Any]) -> Settings:
    """Return the settings with these fields of the edge, as JSON has them, in place of the environment's.

    Fields in `FIXED` are ignored. Raises `ConfigurationError` with each field that is wrong.
    """
    wanted = {name: value for name, value in fields.items() if name not in FIXED}
    try:
        edge = EdgeSettings.model_validate(settings.edge.model_dump(exclude_unset=True) | wanted)
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'edge'}: {error['msg']}" for error in exc.errors())
        raise ConfigurationError(f"the component's configuration is wrong: {wrong}") from exc
    return settings.changed(edge=edge)
