"""The model that a worker serves: it changes between two tasks, and the other model's engine is open while needed."""

import threading
from collections.abc import Collection
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from facerec.engine import registry
from facerec.engine.migration import Migration, begun, write_migration
from facerec.errors import Transient
from facerec.settings import Settings
from facerec.settings.resources import ModelSettings
from model.artefact import Artefact
from tasks.served_models import ModelShelf, OtherEngine, ServedModel, ServedModels
from tests.fakes.object_store import InMemoryObjectStore
from tests.support.artefacts import write_artefact

NOW = datetime(2026, 12, 1, tzinfo=UTC)


class World:
    """A machine with one model, and a model bucket with both models of a migration."""

    def __init__(self, folder: Path) -> None:
        self.store, self.log = InMemoryObjectStore(), list[str]()
        self.old = write_artefact(folder / "model", seed="old")
        self.new = write_artefact(folder / "new", seed="new")
        self.settings = Settings(model=ModelSettings(dir=folder / "model", cache_dir=folder / "cache"))
        for artefact in (self.old, self.new):
            registry.push(self.store, self.settings.model_bucket, artefact, current=False)
        self.migration = begun(None, self.old.model_id, self.new.model_id, NOW)
        self.write(self.migration)
        self.shelf = ModelShelf(self.settings, self.store)
        self.clock = 0.0
        self.other = OtherEngine(self.shelf, self.engine, now=lambda: self.clock)
        self.models = ServedModels(self.shelf, self.open(self.old, ["default"]), self.open, self.other, poll_seconds=5)

    def write(self, migration: Migration) -> None:
        """Change the record."""
        write_migration(self.store, self.settings.model_bucket, migration)

    def engine(self, artefact: Artefact) -> Any:
        """An engine of which only the model matters."""
        self.log.append(f"engine {artefact.model_id}")
        close = lambda: self.log.append(f"ended {artefact.model_id}")  # noqa: E731 - a method of the namespace
        return SimpleNamespace(model_id=artefact.model_id, ended=False, close=close)

    def open(self, artefact: Artefact, collections: Collection[str]) -> ServedModel:
        """Open a model whose parts do nothing."""
        resources = ExitStack()
        resources.callback(lambda: self.log.append(f"closed {artefact.model_id}"))
        gallery: Any = SimpleNamespace(sizes=lambda: SimpleNamespace(templates=dict.fromkeys(collections, 1)))
        self.log.append(f"opened {artefact.model_id} {','.join(collections)}")
        engine: Any = SimpleNamespace(model_id=artefact.model_id)
        nothing: Any = None
        return ServedModel(engine, gallery, nothing, nothing, resources)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A fresh world for each test."""
    return World(tmp_path)


def test_task_keeps_its_model_until_its_end(world: World) -> None:
    """New tasks get the other model at once; the former one is closed after its last task."""
    old, new = world.old.model_id, world.new.model_id
    world.write(world.migration.switched(NOW))
    followed = threading.Thread(target=world.models.follow, args=(threading.Event(),))
    with world.models.hold() as first:
        followed.start()
        while world.models.current is first:
            followed.join(0.01)
        with world.models.hold() as second:
            assert (first.engine.model_id, second.engine.model_id) == (old, new)
        assert f"closed {old}" not in world.log
    followed.join()
    assert world.log == [f"opened {old} default", f"opened {new} default", f"closed {old}"]


def test_worker_starts_with_the_served_model(world: World) -> None:
    """From the bucket, if its own directory has the former one; before the switch it is its own."""
    assert world.shelf.to_serve().model_id == world.old.model_id
    world.write(world.migration.switched(NOW))
    started = world.shelf.to_serve()
    assert (started.model_id, started.directory) == (
        world.new.model_id,
        world.settings.model.cache_dir / "models" / world.new.model_id,
    )


def test_worker_goes_on_with_its_model_if_the_other_cannot_be_opened(world: World) -> None:
    """And changes as soon as it can."""
    for key in world.store.keys(world.settings.model_bucket, f"models/{world.new.model_id}/"):
        world.store.delete(world.settings.model_bucket, key)
    world.write(world.migration.switched(NOW))
    assert world.shelf.to_serve().model_id == world.old.model_id
    world.models.follow(threading.Event())
    assert world.models.current.engine.model_id == world.old.model_id
    registry.push(world.store, world.settings.model_bucket, world.new, current=False)
    world.models.follow(threading.Event())
    assert world.models.current.engine.model_id == world.new.model_id


def test_engine_of_the_other_model_is_opened_once_and_closed_when_idle(world: World) -> None:
    """Only for a model of the migration."""
    new = world.new.model_id
    first = world.other.engine(new)
    assert world.other.engine(new) is first
    assert world.other.engine("another-1") is None
    world.clock = 119
    world.other.engine(new)
    world.clock = 200
    world.models.follow(threading.Event())
    assert world.log[1:] == [f"engine {new}"]
    world.clock = 240
    world.models.follow(threading.Event())
    assert world.log[1:] == [f"engine {new}", f"ended {new}"]


def test_task_is_delivered_again_if_the_other_model_cannot_be_opened(world: World) -> None:
    """A damaged object of the bucket ends no worker."""
    for key in world.store.keys(world.settings.model_bucket, f"models/{world.new.model_id}/"):
        world.store.put(world.settings.model_bucket, key, b"damaged", "application/json")
    with pytest.raises(Transient, match="cannot be opened"):
        world.other.engine(world.new.model_id)
