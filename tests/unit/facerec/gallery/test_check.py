"""What interrupted and concurrent commands leave in the two stores, and how the check finds it."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from io import BytesIO
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from facerec.gallery.check import Findings, GalleryCheck
from facerec.gallery.enrolment import Enroller, template_id
from facerec.gallery.rebuild import CollectionRebuild
from facerec.gallery.removal import remove_templates, thumbnail_key
from facerec.gallery.restoring import restore
from facerec.message_base import ObjectRef
from facerec.ports import ObjectStore, Template, TemplateStore
from model.faces import Box, EmbeddedFace, ImageAnalysis
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template, of_dimension

BUCKET = "gallery"
START = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Killed(BaseException):
    """Ends a command at once, as a kill does."""


@dataclass
class Moment:
    """Does something once, before or after the call number `at` to a store."""

    at: int
    after: bool
    action: Callable[[], object]
    calls: int = 0
    reached: bool = False

    def step(self, *, after: bool) -> None:
        """Count a call; its second half has the same number."""
        self.calls += not after
        if self.calls == self.at and after == self.after and not self.reached:
            self.reached = True
            self.action()


class Watched:
    """A store whose calls a `Moment` counts."""

    def __init__(self, store: object, moment: Moment) -> None:
        self._store = store
        self._moment = moment

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the store's method, counted."""
        method = getattr(self._store, name)

        def call(*arguments: Any) -> Any:
            self._moment.step(after=False)
            result = method(*arguments)
            self._moment.step(after=True)
            return result

        return call


def picture(colour: str) -> bytes:
    """A small picture; another colour makes another photo."""
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "JPEG")
    return file.getvalue()


RED, BLUE = picture("red"), picture("blue")
FACE = EmbeddedFace(Box(5, 5, 95, 95), 0.99, (), np.eye(512, dtype=np.float32)[0], thumbnail=b"small")


@dataclass
class World:
    """Both stores, and the commands on them; `moment` watches one command."""

    templates: InMemoryTemplateStore = field(default_factory=InMemoryTemplateStore)
    now: datetime = START

    def __post_init__(self) -> None:
        """Make the photos' store, which has this clock."""
        self.photos = InMemoryObjectStore(now=lambda: self.now)

    def stores(self, moment: Moment | None = None) -> tuple[TemplateStore, ObjectStore]:
        """The stores as one command sees them."""
        if moment is None:
            return self.templates, self.photos
        watched = Watched(self.templates, moment), Watched(self.photos, moment)
        return cast("tuple[TemplateStore, ObjectStore]", watched)

    def enrol(self, moment: Moment | None = None, *, file: str = "ada.jpg", photo: bytes = RED) -> None:
        """Enrol a photo of Ada."""
        templates, photos = self.stores(moment)
        Enroller(
            analyse=lambda _: ImageAnalysis(100, 100, (FACE,), {}),
            templates=templates,
            photos=photos,
            gallery_bucket=BUCKET,
            model_id=MODEL,
            min_face_pixels=1,
        ).enrol("Ada", file, photo)

    def remove(self, moment: Moment | None = None) -> None:
        """Remove Ada."""
        templates, photos = self.stores(moment)
        found = [identifier for identifier, name in templates.owners("default").items() if name == "Ada"]
        remove_templates(templates, photos, BUCKET, "default", found)

    def restore(self, moment: Moment | None = None) -> None:
        """Import an archive with two photos of Ada."""
        templates, photos = self.stores(moment)
        for number, photo in enumerate([RED, BLUE], start=1):
            template = replace(make_template(number, "Ada"), photo=None)
            restore(template, photo, "default", BUCKET, templates, photos)

    def enrol_with_another_model(self) -> None:
        """Enrol two photos of Ada with another model."""
        for number, photo in enumerate([RED, BLUE], start=1):
            template = replace(make_template(number, "Ada", model_id=OTHER_MODEL), photo=None)
            restore(template, photo, "default", BUCKET, self.templates, self.photos)

    def rebuild(self, moment: Moment | None = None) -> None:
        """Rebuild the collection, and remove the templates of other models; everything must be rebuilt at the end."""
        templates, photos = self.stores(moment)
        work = CollectionRebuild(
            "default",
            analyse=lambda _: ImageAnalysis(100, 100, (FACE,), {}),
            templates=templates,
            photos=photos,
            gallery_bucket=BUCKET,
            model_id=MODEL,
            dimension=512,
        )
        for old in work.old:
            report = work.rebuild(old)
            assert not report.status.failed, report
        work.remove_old()

    def check(self, moment: Moment | None = None, *, older_than: timedelta = HOUR) -> GalleryCheck:
        """The check at this time."""
        templates, photos = self.stores(moment)
        return GalleryCheck(
            templates=templates, photos=photos, bucket=BUCKET, older_than=older_than, now=lambda: self.now
        )

    def clean(self, moment: Moment | None = None) -> None:
        """`facerec gallery check --remove`."""
        check = self.check(moment)
        for leftover in check.find().leftovers:
            check.remove(leftover)

    def later(self) -> None:
        """Let all that is there grow old."""
        self.now += 2 * HOUR

    def state(self) -> tuple[list[str], list[str]]:
        """The templates' ids and the photos' keys."""
        return sorted(self.templates.owners("default")), self.photos.keys(BUCKET)

    def assert_consistent(self) -> None:
        """Every photo has a template, and every template its photo."""
        found = self.check(older_than=timedelta()).find()
        assert found == Findings([], [], [])


def with_photo(world: World) -> None:
    """Ada has one photo."""
    world.enrol()


def with_two_photos(world: World) -> None:
    """Ada has two photos."""
    world.enrol()
    world.enrol(file="blue.jpg", photo=BLUE)


def empty(world: World) -> None:
    """Nobody is enrolled."""


def with_old_templates(world: World) -> None:
    """Ada is enrolled with another model."""
    world.enrol_with_another_model()


COMMANDS = [
    pytest.param(empty, World.enrol, id="enrol"),
    pytest.param(with_photo, lambda world, moment=None: world.enrol(moment, file="other.jpg"), id="duplicate"),
    pytest.param(empty, World.restore, id="import"),
    pytest.param(with_old_templates, World.rebuild, id="rebuild"),
    pytest.param(with_two_photos, World.remove, id="remove"),
]
Command = Callable[..., None]


def moments(world: Callable[[], World], command: Command, action: Callable[[World], object]) -> Iterator[World]:
    """Run the command in a new world for each call that it makes, and act before or after that call."""
    for after in (False, True):
        at = 1
        while True:
            made = world()
            moment = Moment(at, after, partial(action, made))
            with suppress(Killed):
                command(made, moment)
            if not moment.reached:
                assert at > 1
                break
            yield made
            at += 1


def _kill(_: World) -> None:
    raise Killed


@pytest.mark.parametrize(("given", "command"), COMMANDS)
def test_interrupted_command_leaves_nothing_that_the_check_does_not_find(
    given: Callable[[World], None], command: Command
) -> None:
    """Killed before or after any of its calls. A repeated call completes the command, with or without the check."""

    def made() -> World:
        world = World()
        given(world)
        return world

    whole = made()
    command(whole)
    for world in moments(made, command, _kill):
        world.later()
        world.clean()
        found = world.check().find()
        assert (found.leftovers, found.recent) == ([], [])
        owners = world.templates.owners("default")
        assert {key.split("/")[1] for key in world.photos.keys(BUCKET)} <= owners.keys()
        command(world)
        assert world.state() == whole.state()
        world.assert_consistent()
    for world in moments(made, command, _kill):
        command(world)
        assert world.state() == whole.state()
        world.assert_consistent()


@pytest.mark.parametrize(
    ("given", "command", "other"),
    [
        pytest.param(with_photo, World.enrol, World.remove, id="enrol-remove"),
        pytest.param(with_photo, World.remove, World.enrol, id="remove-enrol"),
        pytest.param(empty, World.enrol, World.remove, id="first-enrol-remove"),
        pytest.param(empty, World.enrol, lambda world: world.enrol(file="other.jpg"), id="enrol-twice"),
        pytest.param(empty, World.enrol, World.restore, id="enrol-import"),
        pytest.param(with_two_photos, World.remove, World.restore, id="remove-import"),
        pytest.param(with_two_photos, World.restore, World.remove, id="import-remove"),
        pytest.param(empty, World.enrol, World.clean, id="enrol-check"),
        pytest.param(with_two_photos, World.remove, World.clean, id="remove-check"),
        pytest.param(with_two_photos, World.clean, World.remove, id="check-remove"),
    ],
)
def test_concurrent_commands_leave_both_stores_consistent(
    given: Callable[[World], None], command: Command, other: Command
) -> None:
    """The other command runs whole between any two calls of the first."""

    def made() -> World:
        world = World()
        given(world)
        world.later()
        return world

    for world in moments(made, command, other):
        world.assert_consistent()


def test_check_spares_the_photo_of_an_enrolment_that_takes_up_a_leftover() -> None:
    """The same photo was left by an interrupted run long ago; the enrolment makes it young again."""

    def made() -> World:
        world = World()
        world.photos.put(BUCKET, f"default/{template_id('default', MODEL, RED)}/ada.jpg", RED, "image/jpeg")
        world.later()
        return world

    for world in moments(made, World.enrol, World.clean):
        world.assert_consistent()


def test_leftover_photo_counts_once_and_goes_with_its_thumbnail() -> None:
    """A thumbnail without its photo is a leftover of its own; that of a template is none."""
    world = World()
    world.enrol()
    left, alone = "a" * 32, "b" * 32
    world.photos.put(BUCKET, f"default/{left}/x.jpg", RED, "image/jpeg")
    for identifier in (left, alone):
        world.photos.put(BUCKET, thumbnail_key("default", identifier), b"small", "image/jpeg")
    world.later()
    found = [each.key for each in world.check().find().leftovers]
    assert found == [f"default/{left}/x.jpg", thumbnail_key("default", alone)]
    world.clean()
    assert world.check().find() == Findings([], [], [])
    identifier = template_id("default", MODEL, RED)
    assert world.photos.keys(BUCKET) == [f"default/{identifier}/ada.jpg", thumbnail_key("default", identifier)]


def test_check_finds_leftovers_of_every_collection() -> None:
    """Also of one that holds no template; a young photo may belong to a running enrolment. Other objects stay."""
    world = World()
    world.enrol()
    keys = [f"{collection}/{'a' * 32}/x.jpg" for collection in ("default", "nobody.there")]
    for key in [*keys, "readme.txt", "default/no-id/x.jpg"]:
        world.photos.put(BUCKET, key, RED, "image/jpeg")
    found = world.check().find()
    assert ([each.key for each in found.recent], found.leftovers) == (keys, [])
    world.later()
    assert [each.key for each in world.check().find().leftovers] == keys
    assert [each.key for each in world.check().find("default").leftovers] == keys[:1]
    assert world.photos.keys(BUCKET, "nobody") == keys[1:]
    world.clean()
    assert world.check().find() == Findings([], [], [])
    assert {"readme.txt", "default/no-id/x.jpg"} < set(world.photos.keys(BUCKET))


def test_check_counts_a_leftover_that_another_check_removes_as_removed() -> None:
    """It is gone, and nothing is left to do."""
    world = World()
    world.photos.put(BUCKET, f"default/{'a' * 32}/x.jpg", RED, "image/jpeg")
    world.later()
    [leftover] = world.check().find().leftovers
    assert [world.check().remove(leftover) for _ in range(2)] == [True, True]


def test_check_reports_templates_whose_photo_is_gone() -> None:
    """A template that never had a photo is none of them."""
    world = World()
    world.enrol()
    world.templates.add(replace(make_template(9, "Grace"), photo=None))
    lost: Template = replace(make_template(8, "Eve"), photo=ObjectRef(bucket=BUCKET, key="default/x", size=1))
    world.templates.add(lost)
    assert [each.identity for each in world.check().find().photo_gone] == ["Eve"]


def test_check_knows_the_dimension_of_the_model_in_use() -> None:
    """Also where every template has another one: `facerec gallery list` and the workers leave these out, too."""
    world = World()
    world.templates.add(of_dimension(128, make_template(1)))
    assert world.check().find().damaged == {}
    found = replace(world.check(), dimensions={MODEL: 512}).find()
    assert [each.template_id for each in found.damaged["default"]] == [make_template(1).template_id]
