"""A change of the model while the service runs: its record in the model bucket, which every worker follows.

`models/migration.json` names the two models and which of them the workers serve. A worker with another model, which
is not one that earlier migrations replaced either, takes no part in it.
"""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime

from facerec.errors import ConfigurationError, InvalidMessage, ObjectMissing
from facerec.message_base import Message
from facerec.operations import ModelId
from facerec.ports import ObjectStore

MIGRATION = "models/migration.json"


class Migration(Message):
    """The last migration; only the operator's commands write it."""

    version: Literal[1] = 1
    from_model: ModelId
    to_model: ModelId
    serving: ModelId
    """The one of the two that the workers serve."""
    former: tuple[ModelId, ...] = ()
    """Models that earlier migrations replaced: a worker that still has one of them follows, too."""
    started_at: AwareDatetime
    switched_at: AwareDatetime | None = None
    """When `serving` was changed for the last time."""

    @property
    def models(self) -> tuple[str, str]:
        """Both."""
        return self.from_model, self.to_model

    @property
    def other(self) -> str:
        """The one that is not served."""
        return self.from_model if self.serving == self.to_model else self.to_model

    def concerns(self, model_id: str) -> bool:
        """Whether a worker with this model takes part."""
        return model_id in self.models or model_id in self.former

    def switched(self, now: datetime) -> "Migration":
        """Return the record after a change to the other model."""
        return self.model_copy(update={"serving": self.other, "switched_at": now})


def begun(record: Migration | None, serving: str, target: str, now: datetime) -> Migration:
    """Return the record of a migration from the served model to another one; an earlier one of both goes on."""
    if record is None:
        return Migration(from_model=serving, to_model=target, serving=serving, started_at=now)
    if set(record.models) == {serving, target}:
        return record
    former = {*record.former, *record.models} - {serving, target}
    return Migration(from_model=serving, to_model=target, serving=serving, former=tuple(sorted(former)), started_at=now)


def read_migration(store: ObjectStore, bucket: str) -> Migration | None:
    """Return the record, or `None` without one; raises `ConfigurationError` if it cannot be read, and `Transient`."""
    try:
        return Migration.parse(store.get(bucket, MIGRATION))
    except ObjectMissing:
        return None
    except InvalidMessage as exc:
        raise ConfigurationError(
            f"{MIGRATION} in bucket {bucket!r} cannot be read ({exc}): delete it and migrate again"
        ) from exc


def write_migration(store: ObjectStore, bucket: str, migration: Migration) -> None:
    """Replace the record."""
    store.put(bucket, MIGRATION, migration.to_json().encode(), "application/json")


def model_to_serve(own: str, migration: Migration | None) -> str:
    """Return which model a worker with this one should serve."""
    return migration.serving if migration is not None and migration.concerns(own) else own


def check_served(store: ObjectStore, bucket: str, own: str) -> None:
    """Raise `ConfigurationError` if the workers have changed from this machine's model to another one."""
    serving = model_to_serve(own, read_migration(store, bucket))
    if serving != own:
        raise ConfigurationError(
            f"this machine has the model {own}, and the workers serve {serving} since a migration: "
            f"run `facerec model pull --model-id {serving}` first"
        )
