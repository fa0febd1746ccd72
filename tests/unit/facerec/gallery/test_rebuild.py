"""Rebuilding a collection with in-memory ports: the outcome for each old template, and a second run."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from facerec.errors import Transient
from facerec.gallery.enrolment import WhichFace, store_template, template_id
from facerec.gallery.rebuild import CollectionRebuild, RebuildReport, RebuildStatus
from facerec.gallery.removal import photo_key
from facerec.message_base import ObjectRef
from facerec.ports import Template
from model.faces import Box, EmbeddedFace, ImageAnalysis, Quality
from model.header import InvalidImage
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.templates import MODEL, OTHER_MODEL, InMemoryTemplateStore, make_template, of_dimension

BUCKET = "gallery"
NEW = "open-0123456789abcdef"
AXES = np.eye(128, dtype=np.float32)


def picture(colour: str) -> bytes:
    """A small picture; another colour makes another file."""
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "JPEG")
    return file.getvalue()


def face(size: float = 100, axis: int = 0) -> EmbeddedFace:
    """A face of this size, as the new model embeds it."""
    return EmbeddedFace(Box(5, 5, 5 + size, 5 + size), 0.98, (), AXES[axis], Quality(0.1, ("blurred",)))


class World:
    """A gallery enrolled with old models; `faces` are the new model's results by photo."""

    def __init__(self) -> None:
        self.templates = InMemoryTemplateStore()
        self.photos = InMemoryObjectStore()
        self.faces: dict[bytes, tuple[EmbeddedFace, ...]] = {}
        self.refused: set[bytes] = set()
        self.looked_at: list[bytes] = []

    def enrolled(self, number: int, identity: str, colour: str, model_id: str = MODEL) -> Template:
        """Enrol a photo with an old model."""
        photo = picture(colour)
        identifier = template_id("default", model_id, photo)
        reference = ObjectRef(bucket=BUCKET, key=photo_key("default", identifier, f"{colour}.jpg"), size=len(photo))
        made = of_dimension(128 if model_id == NEW else 512, make_template(number, identity, model_id=model_id))
        template = replace(made, template_id=identifier, photo=reference, source=f"{colour}.jpg")
        store_template(self.templates, self.photos, template, photo)
        return template

    def analyse(self, photo: bytes) -> ImageAnalysis:
        """Find one face unless the test prepared another result."""
        self.looked_at.append(photo)
        if photo in self.refused:
            raise InvalidImage("the file is damaged")
        return ImageAnalysis(640, 480, self.faces.get(photo, (face(),)), {})

    def work(self, which: WhichFace = WhichFace.DOMINANT) -> CollectionRebuild:
        """A run of the command."""
        return CollectionRebuild(
            "default",
            analyse=self.analyse,
            templates=self.templates,
            photos=self.photos,
            gallery_bucket=BUCKET,
            model_id=NEW,
            dimension=128,
            which=which,
        )

    def run(self, which: WhichFace = WhichFace.DOMINANT, *, remove_old: bool = False) -> list[RebuildReport]:
        """Rebuild everything."""
        work = self.work(which)
        reports = [work.rebuild(old) for old in work.old]
        if remove_old:
            work.remove_old()
        return reports

    def models(self) -> list[tuple[str, str]]:
        """Who is enrolled with which model."""
        return sorted((template.identity, template.model_id) for template in self.templates.templates("default"))


@pytest.fixture
def world() -> World:
    """An empty gallery."""
    return World()


def test_rebuild_embeds_every_photo(world: World) -> None:
    """With the old name, photo and date, at the new dimension; the old templates stay."""
    old = world.enrolled(1, "Ada", "red")
    world.enrolled(2, "Grace", "blue")
    reports = world.run()
    assert [(report.identity, report.status) for report in reports] == [
        ("Ada", RebuildStatus.REBUILT),
        ("Grace", RebuildStatus.REBUILT),
    ]
    assert world.models() == [("Ada", MODEL), ("Ada", NEW), ("Grace", MODEL), ("Grace", NEW)]
    (new,) = [t for t in world.templates.templates("default") if t.template_id == reports[0].template_id]
    assert new.template_id == template_id("default", NEW, picture("red"))
    assert new.embedding.shape == (128,)
    assert (new.source, new.enrolled_at, new.probability) == (old.source, old.enrolled_at, 0.98)
    assert new.photo is not None
    assert world.photos.get(new.photo.bucket, new.photo.key) == picture("red")


def test_rebuild_reports_a_low_quality(world: World) -> None:
    """An enrolled person stays enrolled: the limit is for new photos."""
    world.enrolled(1, "Ada", "red")
    (report,) = world.run()
    assert (report.status, report.detail) == (RebuildStatus.REBUILT, "quality 0.10 (blurred)")
    assert report.quality == Quality(0.1, ("blurred",))


def test_interrupted_rebuild_is_continued(world: World) -> None:
    """Finished templates are not computed again."""
    for number, colour in enumerate(("red", "green", "blue")):
        world.enrolled(number, f"person {number}", colour)
    first = world.work()
    first.rebuild(first.old[0])
    world.templates.outage = Transient("the table is away")
    with pytest.raises(Transient):
        first.rebuild(first.old[1])
    world.templates.outage = None
    world.looked_at.clear()
    reports = world.run()
    assert [report.status for report in reports] == [
        RebuildStatus.PRESENT,
        RebuildStatus.REBUILT,
        RebuildStatus.REBUILT,
    ]
    assert world.looked_at == [picture("green"), picture("blue")]
    assert len([model for _, model in world.models() if model == NEW]) == 3


def test_second_rebuild_changes_nothing(world: World) -> None:
    """The version stays, and the engine is not used."""
    world.enrolled(1, "Ada", "red")
    world.run()
    version = world.templates.version("default")
    world.looked_at.clear()
    (report,) = world.run()
    assert report.status is RebuildStatus.PRESENT
    assert report.template_id == template_id("default", NEW, picture("red"))
    assert (world.templates.version("default"), world.looked_at) == (version, [])


def test_photo_of_two_old_models_is_embedded_once(world: World) -> None:
    """Photo of two old models is embedded once."""
    world.enrolled(1, "Ada", "red")
    world.enrolled(2, "Ada", "red", OTHER_MODEL)
    assert sorted(report.status for report in world.run(remove_old=True)) == ["present", "rebuilt"]
    assert world.looked_at == [picture("red")]
    assert world.models() == [("Ada", NEW)]


def test_old_templates_are_removed_only_after_a_rebuild(world: World) -> None:
    """With their copy of the photo; the new template keeps its own."""
    world.enrolled(1, "Ada", "red")
    failed = world.enrolled(2, "Grace", "blue")
    world.faces[picture("blue")] = ()
    reports = world.run(remove_old=True)
    assert [report.status for report in reports] == [RebuildStatus.REBUILT, RebuildStatus.NO_FACE]
    assert world.models() == [("Ada", NEW), ("Grace", MODEL)]
    assert failed.photo is not None
    assert world.photos.keys(BUCKET) == sorted(
        [photo_key("default", str(reports[0].template_id), "red.jpg"), failed.photo.key]
    )


def test_old_templates_can_be_removed_in_a_later_run(world: World) -> None:
    """Old templates can be removed in a later run."""
    world.enrolled(1, "Ada", "red")
    world.run()
    world.run(remove_old=True)
    assert world.models() == [("Ada", NEW)]


@pytest.mark.parametrize(
    ("faces", "status"),
    [((), RebuildStatus.NO_FACE), ((face(), face(60, axis=1)), RebuildStatus.SEVERAL_FACES)],
)
def test_photo_that_fails_is_listed(world: World, faces: tuple[EmbeddedFace, ...], status: RebuildStatus) -> None:
    """With what the new detector found, and where."""
    world.enrolled(1, "Ada", "red")
    world.faces[picture("red")] = faces
    (report,) = world.run(remove_old=True)
    assert (report.status, report.status.failed, report.template_id) == (status, True, None)
    assert report.faces == tuple(face.box for face in faces)
    assert world.models() == [("Ada", MODEL)]


def test_rebuild_takes_the_primary_face_on_request(world: World) -> None:
    """As `enrol --face primary`."""
    world.enrolled(1, "Ada", "red")
    world.faces[picture("red")] = (face(60, axis=1), face(70))
    (report,) = world.run(WhichFace.PRIMARY)
    assert report.status is RebuildStatus.REBUILT
    assert "the primary one of 2 faces" in report.detail
    (new,) = [t for t in world.templates.templates("default") if t.model_id == NEW]
    assert (new.embedding == AXES[1]).all()


def test_damaged_photo_is_listed(world: World) -> None:
    """With the engine's sentence."""
    world.enrolled(1, "Ada", "red")
    world.refused.add(picture("red"))
    (report,) = world.run()
    assert (report.status, report.detail) == (RebuildStatus.INVALID_IMAGE, "the file is damaged")


def test_templates_without_a_photo_are_listed(world: World) -> None:
    """Imported ones never had one, others lost it: an operator must enrol these people."""
    world.templates.add(replace(make_template(1, "Ada"), photo=None))
    gone = world.enrolled(2, "Grace", "blue")
    assert gone.photo is not None
    world.photos.delete(BUCKET, gone.photo.key)
    reports = world.run(remove_old=True)
    assert [(report.identity, report.status) for report in reports] == [
        ("Ada", RebuildStatus.NO_PHOTO),
        ("Grace", RebuildStatus.NO_PHOTO),
    ]
    assert world.models() == [("Ada", MODEL), ("Grace", MODEL)]


def test_photo_enrolled_under_another_name_is_left_to_the_operator(world: World) -> None:
    """Neither template is removed."""
    world.enrolled(1, "Ada", "red")
    world.enrolled(2, "Grace", "red", NEW)
    (report,) = world.run(remove_old=True)
    assert report.status is RebuildStatus.OTHER_NAME
    assert "'Grace'" in report.detail
    assert world.models() == [("Ada", MODEL), ("Grace", NEW)]


@pytest.mark.parametrize("damaged", [AXES[0] * np.float32("nan"), make_template(1).embedding])
def test_damaged_template_of_the_model_in_use_is_replaced(world: World, damaged: NDArray[np.float32]) -> None:
    """It is no reason to remove the old one: with it nobody would be recognised."""
    old = world.enrolled(1, "Ada", "red")
    (report,) = world.run()
    assert report.template_id is not None
    world.templates.remove("default", [report.template_id])
    world.templates.add(replace(old, template_id=report.template_id, model_id=NEW, embedding=damaged))
    work = world.work()
    assert [found.template_id for found in work.damaged] == [report.template_id]
    assert [work.rebuild(each).status for each in work.old] == [RebuildStatus.REBUILT]
    (new,) = [each for each in world.templates.templates("default") if each.model_id == NEW]
    assert (new.embedding == AXES[0]).all()


def test_photo_whose_embedding_is_unusable_is_listed(world: World) -> None:
    """Its old template stays."""
    world.enrolled(1, "Ada", "red")
    world.faces[picture("red")] = (replace(face(), embedding=np.zeros(128, np.float32)),)
    (report,) = world.run(remove_old=True)
    assert report.status is RebuildStatus.INVALID_IMAGE
    assert world.models() == [("Ada", MODEL)]


def test_photo_enrolled_meanwhile_is_no_error(world: World) -> None:
    """Two operators may rebuild at once."""
    world.enrolled(1, "Ada", "red")
    work = world.work()
    world.run()
    assert [work.rebuild(old).status for old in work.old] == [RebuildStatus.PRESENT]


def test_face_of_several_is_found_by_its_place(world: World) -> None:
    """The photo has one template for each of its faces; without the face the report says so."""
    first = world.enrolled(1, "Ada", "red")
    photo = picture("red")
    second = replace(first, identity="Grace", template_id=template_id("default", MODEL, photo, 1))
    world.templates.add(second)
    world.faces[photo] = (face(axis=3), face(50, axis=5))
    report = world.work(WhichFace.DOMINANT).rebuild(second)
    assert report.status is RebuildStatus.REBUILT
    assert report.template_id == template_id("default", NEW, photo, 1)
    new = world.templates.template("default", report.template_id)
    assert new is not None
    assert (new.identity, int(new.embedding.argmax())) == ("Grace", 5)
    world.templates.remove("default", [report.template_id])
    world.faces[photo] = (face(axis=3),)
    assert world.work(WhichFace.DOMINANT).rebuild(second).status is RebuildStatus.NO_FACE
