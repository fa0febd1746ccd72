"""Galleries as files: archives survive export and import, and hostile ones are refused."""

import json
import struct
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from facerec.errors import AlreadyEnrolled, ConfigurationError
from facerec.gallery.archive import InvalidArchive, Remembered, open_archive, write_archive
from facerec.gallery.cache import GalleryCache
from facerec.gallery.enrolment import template_id
from facerec.gallery.import_pt import read_pair, templates_of_pair
from facerec.gallery.names import InvalidName, valid_identity
from facerec.gallery.restoring import restore, restore_remembered, restored_id
from facerec.ports import DamagedTemplate, MergeRecord, Template
from tests.fakes.object_store import InMemoryObjectStore
from tests.fakes.person_records import InMemoryPersonRecords
from tests.fakes.templates import (
    MODEL,
    OTHER_MODEL,
    InMemoryTemplateStore,
    make_rejection,
    make_template,
    of_dimension,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BUCKET = "gallery"


def picture(colour: str = "red") -> bytes:
    """A small JPEG."""
    file = BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of two templates, the first with its photo."""
    path = tmp_path / "gallery.facerec"
    templates = [make_template(1, "Ada"), make_template(2, "Grace")]
    write_archive(path, "default", templates, [(templates[0].template_id, picture())], NOW)
    return path


def fields(template: Template) -> dict[str, Any]:
    """Everything but the photo, comparable."""
    values = {name: getattr(template, name) for name in Template.__slots__ if name != "photo"}
    return values | {"embedding": template.embedding.tobytes()}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.dictionaries(
        st.integers(0, 10_000),
        st.tuples(st.text(min_size=1, max_size=100), st.floats(0, 1), st.datetimes(timezones=st.just(UTC))),
        max_size=5,
    )
)
def test_archive_keeps_every_field_of_a_template(
    tmp_path: Path, people: dict[int, tuple[str, float, datetime]]
) -> None:
    """Whatever the names and the times of enrolment."""
    templates = []
    for number, (name, probability, enrolled_at) in people.items():
        try:
            identity = valid_identity(name)
        except InvalidName:
            continue
        template = make_template(number, identity)
        templates.append(replace(template, probability=probability, enrolled_at=enrolled_at, source=name))
    path = tmp_path / "gallery.facerec"
    write_archive(path, "staff", templates, (), NOW)
    with open_archive(path) as archive:
        assert archive.collection == "staff"
        found = [fields(template) for template in archive.templates]
    assert found == [fields(replace(template, collection="staff")) for template in templates]


def test_archive_keeps_photos(archive: Path) -> None:
    """A template without a photo in the archive has none."""
    with open_archive(archive) as opened:
        photos = [opened.photo(template.template_id) for template in opened.templates]
    assert photos == [picture(), None]


def test_archive_holds_models_of_different_dimensions(tmp_path: Path) -> None:
    """During a change of models each template keeps its own length."""
    path = tmp_path / "gallery.facerec"
    templates = [
        of_dimension(128, make_template(1, "Ada")),
        make_template(2, "Ada", model_id=OTHER_MODEL),
        of_dimension(128, make_template(3, "Grace")),
    ]
    write_archive(path, "default", templates, (), NOW)
    with open_archive(path) as archive:
        assert list(map(fields, archive.templates)) == list(map(fields, templates))
    with zipfile.ZipFile(path) as packed:
        assert len(packed.read("embeddings.bin")) == 4 * (128 + 512 + 128)


def make_merge(*numbers: int, collection: str = "default") -> MergeRecord:
    """The record of a merge of Ada's templates of these numbers into Grace."""
    return MergeRecord(
        merge_id=f"{99:032x}",
        collection=collection,
        source="Ada",
        into="Grace",
        templates={"Ada": tuple(f"{number:032x}" for number in numbers)},
        merged_at=NOW,
        by="key kiosk",
        rejections={"Ada": (f"{11:032x}",)},
    )


def test_archive_keeps_what_is_remembered(tmp_path: Path) -> None:
    """External ids, rejections of any model, merges, and people without templates; no unfinished rename."""
    path = tmp_path / "gallery.facerec"
    template = replace(make_template(1, "Grace"), external_id="badge:17")
    rejections = [make_rejection(11, "Grace"), make_rejection(12, "Ada", model_id=OTHER_MODEL)]
    unfinished = replace(make_merge(1), merge_id=f"{98:032x}", rename=True)
    remembered = Remembered(rejections, [make_merge(1), unfinished], ["Joan"])
    write_archive(path, "default", [template], (), NOW, remembered)
    with open_archive(path) as archive:
        assert list(map(fields, archive.templates)) == [fields(template)]
        found = archive.remembered
        assert archive.left_out == []
    assert (found.merges, found.names) == ([make_merge(1)], ["Joan"])
    for one, other in zip(found.rejections, rejections, strict=True):
        for name in type(other).__slots__:
            assert np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(
    ("name", "entry", "says"),
    [
        ("rejections", {"identity": "Unknown"}, "rejection 1: its identity is wrong"),
        ("rejections", {"rejection_id": "../../1"}, "rejection 1: its rejection_id is wrong"),
        ("merges", {"source": "a\nb"}, "merge 1: its source is wrong"),
        ("merges", {"templates": {"Ada": ["../1"]}}, "merge 1: its templates is wrong"),
    ],
)
def test_damaged_memory_is_left_out(tmp_path: Path, name: str, entry: dict[str, Any], says: str) -> None:
    """The templates are imported all the same."""
    path = tmp_path / "gallery.facerec"
    write_archive(path, "default", [make_template(1)], (), NOW, Remembered([make_rejection(11)], [make_merge(1)]))

    def damage(members: dict[str, bytes]) -> None:
        values = json.loads(members["manifest.json"])
        values[name][0] |= entry
        members["manifest.json"] = json.dumps(values).encode()

    with open_archive(rewritten(path, damage)) as archive:
        assert [sentence[: len(says)] for sentence in archive.left_out] == [says]
        assert len(archive.templates) == 1
        assert len(archive.remembered.rejections) + len(archive.remembered.merges) == 1


def test_memory_follows_the_templates_into_another_collection(tmp_path: Path) -> None:
    """A template with its photo gets another id there; what was not restored is left out of the merge."""
    first = replace(make_template(1, "Grace"), template_id=template_id("default", MODEL, picture()))
    templates, records = InMemoryTemplateStore(), InMemoryPersonRecords()
    ids = {first.template_id: restored_id(first, picture(), "staff")}
    merge = replace(make_merge(5), templates={"Ada": (first.template_id, f"{5:032x}")})
    gone = replace(merge, merge_id=f"{97:032x}", templates={"Ada": (f"{5:032x}",)})
    remembered = Remembered([make_rejection(11, "Grace")], [merge, gone], ["joan"])
    for _ in range(2):
        restore_remembered(remembered, "staff", ids, str.upper, templates, records)
    (found,) = records.merges("staff")
    assert (found.collection, found.into, found.source) == ("staff", "GRACE", "Ada")
    assert found.templates == {"Ada": (template_id("staff", MODEL, picture()),)}
    assert [(each.identity, each.collection) for each in templates.rejections("staff")] == [("GRACE", "staff")]
    assert records.names("staff") == ["JOAN"]


def test_faces_of_one_photo_keep_their_places() -> None:
    """Two people of one photo are two templates also in another collection."""
    photo = picture()
    for place in (0, 1, 7):
        template = replace(make_template(1), template_id=template_id("default", MODEL, photo, place))
        assert restored_id(template, photo, "staff") == template_id("staff", MODEL, photo, place)
    assert restored_id(make_template(1), photo, "staff") == template_id("staff", MODEL, photo)
    assert restored_id(make_template(1), None, "staff") == make_template(1).template_id


def test_archive_of_version_2_is_read(archive: Path) -> None:
    """It has neither rejections nor merges."""

    def older(members: dict[str, bytes]) -> None:
        values = json.loads(members["manifest.json"])
        for name in ("rejections", "merges", "names"):
            del values[name]
        for entry in values["templates"]:
            del entry["external_id"]
        members["manifest.json"] = json.dumps(values | {"version": 2}).encode()
        del members["rejections.bin"]

    with open_archive(rewritten(archive, older)) as opened:
        assert [template.identity for template in opened.templates] == ["Ada", "Grace"]
        assert opened.remembered == Remembered([], [], [])


def test_archive_of_version_1_is_read(archive: Path) -> None:
    """It has no dimensions: all were 512."""

    def older(members: dict[str, bytes]) -> None:
        values = json.loads(members["manifest.json"])
        del values["dimensions"]
        members["manifest.json"] = json.dumps(values | {"version": 1}).encode()

    with open_archive(rewritten(archive, older)) as opened:
        assert list(map(fields, opened.templates)) == [
            fields(make_template(1, "Ada")),
            fields(make_template(2, "Grace")),
        ]


def test_archive_is_readable_only_by_its_owner(archive: Path) -> None:
    """It contains biometric data."""
    assert archive.stat().st_mode & 0o077 == 0


def test_failed_export_leaves_the_old_file(archive: Path) -> None:
    """Without a temporary file beside it."""

    def failing() -> Any:
        yield make_template(1).template_id, picture()
        raise RuntimeError("the bucket is away")

    before = archive.read_bytes()
    with pytest.raises(RuntimeError, match="away"):
        write_archive(archive, "default", [make_template(1)], failing(), NOW)
    assert archive.read_bytes() == before
    assert list(archive.parent.iterdir()) == [archive]


class Destination:
    """The stores that an archive is restored into."""

    def __init__(self) -> None:
        self.templates = InMemoryTemplateStore()
        self.photos = InMemoryObjectStore()

    def people(self, collection: str) -> list[Template]:
        """The templates by name."""
        return sorted(self.templates.templates(collection), key=attrgetter("identity"))

    def restore(self, path: Path, collection: str = "default") -> list[bool]:
        """Restore everything; returns for each template whether it was new."""
        with open_archive(path) as archive:
            return [
                restore(template, archive.photo(template.template_id), collection, BUCKET, self.templates, self.photos)
                for template in archive.templates
            ]


def test_restore_is_idempotent(archive: Path) -> None:
    """The second time nothing is new, and nothing has changed."""
    destination = Destination()
    assert destination.restore(archive) == [True, True]
    version = destination.templates.version("default")
    assert destination.restore(archive) == [False, False]
    assert destination.templates.version("default") == version


def test_restore_refuses_the_photo_of_another_person(archive: Path) -> None:
    """Another spelling of the name is the same person, unless names are exact."""
    destination = Destination()
    with open_archive(archive) as opened:
        template, photo = opened.templates[0], opened.photo(opened.templates[0].template_id)
    ports = ("default", BUCKET, destination.templates, destination.photos)
    assert restore(template, photo, *ports)
    shouted = replace(template, identity=template.identity.upper())
    assert not restore(shouted, photo, *ports)
    with pytest.raises(AlreadyEnrolled):
        restore(shouted, photo, *ports, exact_names=True)
    with pytest.raises(AlreadyEnrolled):
        restore(replace(template, identity="Grace Hopper II"), photo, *ports)


def test_archive_of_names_of_earlier_versions_can_be_written(tmp_path: Path) -> None:
    """A backup is complete; such a name is refused when it is read."""
    path = tmp_path / "old.facerec"
    write_archive(path, "default", [make_template(1, "Unknown\u200d")], (), NOW)
    with pytest.raises(InvalidArchive, match="stands for no person"), open_archive(path):
        pass


def test_restored_photo_is_in_the_destination_bucket(archive: Path) -> None:
    """At the key in its template."""
    destination = Destination()
    destination.restore(archive)
    ada, grace = destination.people("default")
    assert ada.photo is not None
    assert ada.photo.bucket == BUCKET
    assert destination.photos.get(ada.photo.bucket, ada.photo.key) == picture()
    assert grace.photo is None


def test_restored_template_has_the_id_of_its_enrolled_photo(archive: Path) -> None:
    """Also in another collection."""
    destination = Destination()
    destination.restore(archive, "guests")
    ada, grace = destination.people("guests")
    assert ada.template_id == template_id("guests", MODEL, picture())
    assert grace.template_id == make_template(2).template_id


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with other members."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def manifest(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    """A change of the manifest's own values."""

    def change(members: dict[str, bytes]) -> None:
        members["manifest.json"] = json.dumps(json.loads(members["manifest.json"]) | changes).encode()

    return change


def entry(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    """A change of the second template."""

    def change(members: dict[str, bytes]) -> None:
        values = json.loads(members["manifest.json"])
        values["templates"][1] |= changes
        members["manifest.json"] = json.dumps(values).encode()

    return change


def embeddings(content: bytes) -> Callable[[dict[str, bytes]], None]:
    """Other embeddings."""
    return lambda members: members.update({"embeddings.bin": content})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda members: members.pop("manifest.json"), "lacks manifest.json"),
        (lambda members: members.pop("embeddings.bin"), "lacks embeddings.bin"),
        (lambda members: members.update({"manifest.json": b"[" * 100_000}), "manifest is wrong"),
        (lambda members: members.update({"manifest.json": b"\xff"}), "manifest is wrong"),
        (manifest(format="another"), "wrong at format"),
        (manifest(version=4), "wrong at version"),
        (manifest(dimensions={}), "the dimension of model .* is missing"),
        (manifest(dimensions={MODEL: 0}), "wrong at dimensions"),
        (manifest(dimensions={MODEL: 1_000_000_000}), "wrong at dimensions"),
        (manifest(dimensions={MODEL: 128}), "at most 1024 are expected"),
        (manifest(collection="../../etc"), "wrong at collection"),
        (manifest(collection="#collections"), "wrong at collection"),
        (manifest(templates=[]), "at most 0 are expected"),
        (entry(template_id=make_template(1).template_id), "a template twice"),
        (entry(model_id=""), "wrong at templates.1.model_id"),
        (embeddings(b""), "need 4096 bytes"),
        (embeddings(bytes(4095)), "need 4096 bytes"),
        (embeddings(bytes(50_000_000)), "at most 4096 are expected"),
        (embeddings(bytes(4096)), "all its templates are damaged; .* the length 1"),
    ],
)
def test_invalid_archive_is_refused(archive: Path, change: Callable[[dict[str, bytes]], None], says: str) -> None:
    """One sentence names the file and the fault."""
    with pytest.raises(InvalidArchive, match=says) as refused, open_archive(rewritten(archive, change)):
        pass
    assert str(archive) in str(refused.value)
    assert len(str(refused.value)) < 1000


def vector(embedding: Any) -> Callable[[dict[str, bytes]], None]:
    """Another embedding of the second template."""

    def change(members: dict[str, bytes]) -> None:
        members["embeddings.bin"] = members["embeddings.bin"][:2048] + np.asarray(embedding, "<f4").tobytes()

    return change


UNIT = make_template(2).embedding


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (entry(template_id="../../../../etc/passwd"), "template_id"),
        (entry(template_id=7), "template_id"),
        (entry(identity="Unknown"), "identity"),
        (entry(identity=""), "identity"),
        (entry(identity=None), "identity"),
        (entry(identity="Ada\nLovelace"), "identity"),
        (entry(identity="x" * 1_000_000), "identity"),
        (entry(source="x" * 256), "source"),
        (entry(probability=float("nan")), "probability"),
        (entry(probability="likely"), "probability"),
        (entry(enrolled_at="2026-01-01T00:00:00"), "enrolled_at"),
        (entry(enrolled_at="yesterday"), "enrolled_at"),
        (vector(np.zeros(512)), "length 1"),
        (vector(np.full(512, np.nan)), "not a number"),
    ],
)
def test_damaged_template_of_an_archive_is_left_out(
    archive: Path, change: Callable[[dict[str, bytes]], None], reason: str
) -> None:
    """The others are imported."""
    destination = Destination()
    with open_archive(rewritten(archive, change)) as opened:
        (damaged,) = opened.damaged
    assert reason in damaged.reason
    assert len(damaged.template_id) <= 32
    assert destination.restore(archive) == [True]
    assert [template.identity for template in destination.people("default")] == ["Ada"]


@pytest.mark.parametrize("factor", [0.9989, 0.999, 1.0009999, 1.00099995, 1.001, 1.0011])
def test_every_template_that_an_archive_takes_is_searched(archive: Path, factor: float) -> None:
    """Import and index have the same limit, also at its edge."""
    destination = Destination()
    destination.restore(rewritten(archive, vector(UNIT.astype(np.float64) * factor)))
    cache = GalleryCache(destination.templates, MODEL, 3600, dimension=512)
    assert len(cache.index("default")) == len(destination.people("default"))


def test_export_leaves_out_what_an_import_would(tmp_path: Path) -> None:
    """A damaged template in the collection does not spoil the backup."""
    path = tmp_path / "gallery.facerec"
    good = make_template(1, "Ada")
    bad = [
        make_template(2, "x" * 1000),
        of_dimension(128, make_template(3, "Grace")),
        replace(make_template(4, "Alan"), embedding=np.full(512, np.nan, np.float32)),
        replace(make_template(5, "Edsger"), enrolled_at=NOW.replace(tzinfo=None)),
    ]
    photos = [(template.template_id, picture()) for template in [good, *bad]]
    left_out = write_archive(path, "default", [*bad, good, make_template(6, "Barbara")], photos, NOW)
    assert sorted(found.identity for found in left_out) == ["Alan", "Edsger", "Grace", "x" * 1000]
    with open_archive(path) as opened:
        assert [template.identity for template in opened.templates] == ["Ada", "Barbara"]
        assert opened.damaged == []
        assert opened.photo(bad[0].template_id) is None


def test_restore_refuses_a_photo_that_is_no_picture(archive: Path) -> None:
    """Only pictures reach the gallery's bucket."""
    name = f"photos/{make_template(1).template_id}"
    rewritten(archive, lambda members: members.update({name: b"<script>alert(1)</script>"}))
    destination = Destination()
    with pytest.raises(InvalidArchive, match="not a picture"):
        destination.restore(archive)
    assert destination.photos.keys(BUCKET) == []


def test_archive_members_with_other_names_are_ignored(archive: Path, tmp_path: Path) -> None:
    """A path that leads out of the archive has no effect."""
    rewritten(archive, lambda members: members.update({"../escaped.txt": b"x", "/tmp/escaped.txt": b"x"}))  # noqa: S108 - hostile on purpose
    destination = Destination()
    assert destination.restore(archive) == [True, True]
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18), b"PK\x03\x04" + bytes(100)])
def test_other_file_is_no_archive(tmp_path: Path, content: bytes) -> None:
    """The answer is one sentence."""
    path = tmp_path / "gallery.facerec"
    path.write_bytes(content)
    with pytest.raises(InvalidArchive), open_archive(path):
        pass


def test_archive_member_unpacks_to_its_declared_size_at_most(archive: Path) -> None:
    """A bomb that declares 4096 bytes gives no more."""
    rewritten(archive, embeddings(bytes(50_000_000)))
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.index(signature)
        while content[at + offset : at + offset + 4] != struct.pack("<I", 50_000_000):
            at = content.index(signature, at + 1)
        content[at + offset : at + offset + 4] = struct.pack("<I", 4096)
    archive.write_bytes(content)
    with pytest.raises(InvalidArchive, match="damaged"), open_archive(archive):
        pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255))
def test_damaged_archive_raises_only_invalid_archive(archive: Path, at: float, value: int) -> None:
    """Or is read without an effect of the damage."""
    content = bytearray(archive.read_bytes())
    content[int(at * len(content))] = value
    damaged = archive.with_suffix(".damaged")
    damaged.write_bytes(content)
    with suppress(InvalidArchive):
        Destination().restore(damaged)


VECTOR = np.arange(1, 513, dtype=np.float32)


def pair(vectors: list[Any], names: list[object], dimension: int = 512) -> list[Template]:
    """The templates of a saved pair."""
    return templates_of_pair(
        Path("data.pt"), vectors, names, collection="default", model_id=MODEL, dimension=dimension, now=NOW, damaged=[]
    )


def test_pair_becomes_templates() -> None:
    """Rows and columns of 512, of any length, under their names."""
    one, other = pair([VECTOR.reshape(1, 512), -VECTOR], ["George_W_Bush", "Ada"])
    assert [one.identity, other.identity] == ["George_W_Bush", "Ada"]
    assert np.allclose(one.embedding, VECTOR / np.linalg.norm(VECTOR))
    assert one.embedding.dtype == np.float32
    assert (one.embedding == -other.embedding).all()
    assert one.template_id != other.template_id
    assert (one.model_id, one.source, one.photo, one.enrolled_at) == (MODEL, "data.pt", None, NOW)


def test_pair_of_another_dimension_is_refused() -> None:
    """Embeddings of 512 numbers do not fit a model with 128."""
    (template,) = pair([VECTOR[:128]], ["Ada"], dimension=128)
    assert template.embedding.shape == (128,)
    with pytest.raises(InvalidArchive, match=r"shape \(512,\), and those of the model in use have \(1, 128\)"):
        pair([VECTOR], ["Ada"], dimension=128)


def test_pair_import_is_idempotent() -> None:
    """The same embedding has the same id, also at another length."""
    assert pair([VECTOR], ["Ada"])[0].template_id == pair([VECTOR.reshape(1, 512) * 2], ["Ada"])[0].template_id


@pytest.mark.parametrize(
    ("vectors", "names", "says"),
    [
        ([VECTOR], [], "1 embeddings and 0 names"),
        ([VECTOR], [7], "entry 1: its name is no text"),
        ([VECTOR], ["No-Face"], "entry 1: .*stands for no person"),
        ([VECTOR.reshape(2, 256)], ["Ada"], "entry 1: its embedding has the shape"),
        ([VECTOR * 0], ["Ada"], "no direction"),
        ([VECTOR * np.float32("nan")], ["Ada"], "no direction"),
        ([VECTOR * np.float32("inf")], ["Ada"], "no direction"),
    ],
)
def test_wrong_pair_is_refused(vectors: list[Any], names: list[object], says: str) -> None:
    """The sentence names the wrong entry."""
    with pytest.raises(InvalidArchive, match=says):
        pair(vectors, names)


def test_wrong_entries_of_a_pair_are_left_out() -> None:
    """The others become templates."""
    damaged: list[DamagedTemplate] = []
    templates = templates_of_pair(
        Path("data.pt"),
        [VECTOR, VECTOR * 0, VECTOR[:128], VECTOR, VECTOR, VECTOR * np.float32("nan")],
        ["Ada", "Grace", "Alan", 7, "", "Edsger"],
        collection="default",
        model_id=MODEL,
        dimension=512,
        now=NOW,
        damaged=damaged,
    )
    assert [template.identity for template in templates] == ["Ada"]
    assert [found.template_id for found in damaged] == [f"entry {number}" for number in (2, 3, 4, 5, 6)]


def test_pair_without_torch_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pair without torch says what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match=r"make install-reference.*\.\[export\]"):
        read_pair(tmp_path / "data.pt")
