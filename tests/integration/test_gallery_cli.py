"""`facerec enrol` and `facerec gallery` with the emulator."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageFilter

from facerec import bootstrap
from facerec.aws.clients import Clients
from facerec.cli import cli
from facerec.commands import gallery_snapshot
from facerec.errors import FacerecError
from facerec.gallery.archive import write_archive
from facerec.gallery.cache import GalleryCache
from facerec.gallery.enrolment import store_template, template_id
from facerec.gallery.removal import is_thumbnail, photo_key
from facerec.message_base import ObjectRef
from facerec.ports import Template
from facerec.processes.addresses import poll_until
from facerec.settings import Settings
from facerec.text import is_text
from model.artefact import Artefact
from tests.fakes.templates import make_template, of_dimension
from tests.support.artefacts import write_artefact
from tests.support.emulated import EmulatedAws, environ_of

EXAMPLES = Path(__file__).parents[2] / "examples"
OBAMA = EXAMPLES / "gallery" / "Barack Obama"
BIDEN = EXAMPLES / "gallery" / "Joe Biden" / "blue_room_2010.jpg"
NO_FACE = EXAMPLES / "probes" / "image_04.jpg"
GROUP = EXAMPLES / "probes" / "image_05.jpg"


@dataclass(frozen=True)
class CommandLine:
    """Runs commands on one empty installation."""

    settings: Settings
    environ: dict[str, str]

    def run(self, *arguments: str | Path, says: str = "", status: int = 0, typed: str | None = None) -> Result:
        """Run a command in this process; it must end with this status and its output hold this text."""
        result = CliRunner(env=self.environ).invoke(cli, [str(argument) for argument in arguments], input=typed)
        if isinstance(result.exception, FacerecError):
            # `facerec.cli.main` prints these; the runner stops short of it.
            assert status == 1, result.exception
            assert says in str(result.exception)
        else:
            assert result.exit_code == status, (result.output, result.exception)
            assert says in result.output
        return result

    def json(self, *arguments: str | Path, status: int = 0) -> Any:
        """What a command prints for machines."""
        return json.loads(self.run(*arguments, "--json", status=status).stdout)

    def seed(self, *people: str, model_id: str, collection: str = "default") -> None:
        """Enrol made-up templates of these people, each with a photo."""
        photo = NO_FACE.read_bytes()
        for number, name in enumerate(people, start=1):
            template = make_template(number, name, collection, model_id)
            assert template.photo is not None
            template = replace(
                template, photo=template.photo.model_copy(update={"bucket": self.settings.gallery_bucket})
            )
            store_template(
                bootstrap.template_store(self.settings), bootstrap.object_store(self.settings), template, photo
            )

    def photos(self) -> list[str]:
        """The keys of every photo in the gallery's bucket; no thumbnail is there without its photo."""
        keys = bootstrap.object_store(self.settings).keys(self.settings.gallery_bucket)
        photos = [key for key in keys if not is_thumbnail(key)]
        folders = {key.rpartition("/")[0] for key in photos}
        assert folders >= {key.removesuffix("/thumbnail/face.jpg") for key in keys if is_thumbnail(key)}
        return photos


@pytest.fixture
def line(emulator: EmulatedAws, fresh: Settings, tmp_path: Path) -> CommandLine:
    """An empty installation with a model that needs no weights."""
    directory = tmp_path / "model"
    write_artefact(directory)
    return CommandLine(fresh, environ_of(fresh, emulator.environ) | {"FACEREC_MODEL__DIR": str(directory)})


@pytest.fixture
def real(line: CommandLine, artefact_dir: Path) -> CommandLine:
    """An empty installation with the real model."""
    return replace(line, environ=line.environ | {"FACEREC_MODEL__DIR": str(artefact_dir)})


@pytest.fixture
def model_id(line: CommandLine) -> str:
    """The id of the model in use."""
    return Artefact.load(Path(line.environ["FACEREC_MODEL__DIR"])).model_id


@pytest.fixture
def old(real: CommandLine) -> Callable[[Path, str], Template]:
    """Enrols a photo as an installation with another model did."""
    numbers = itertools.count(1)

    def enrol(path: Path, identity: str) -> Template:
        photo, made = path.read_bytes(), make_template(next(numbers), identity, model_id="facenet-160-0123456789abcdef")
        # A comment behind the picture makes it another photo.
        photo += identity.encode()
        identifier = template_id("default", made.model_id, photo)
        key = photo_key("default", identifier, path.name)
        reference = ObjectRef(bucket=real.settings.gallery_bucket, key=key, size=len(photo))
        template = replace(made, template_id=identifier, source=path.name, photo=reference)
        store_template(bootstrap.template_store(real.settings), bootstrap.object_store(real.settings), template, photo)
        return template

    return enrol


def test_folder_of_people_is_enrolled_once(real: CommandLine) -> None:
    """The second run finds only duplicates and succeeds."""
    first = real.json("enrol", "--folder", EXAMPLES / "gallery")
    people = sorted({path.parent.name for path in (EXAMPLES / "gallery").glob("*/*")})
    assert sorted({file["identity"] for file in first["files"]}) == people
    assert first["counts"] == {"enrolled": len(first["files"])}
    assert [person["identity"] for person in real.json("gallery", "list")] == people
    again = real.run("enrol", "--folder", EXAMPLES / "gallery", says=f"{len(first['files'])} duplicate")
    assert "already enrolled for 'Barack Obama'" in again.output


def test_unusable_photos_are_reported_one_by_one(real: CommandLine, tmp_path: Path) -> None:
    """With an exit status for scripts."""
    text = tmp_path / "notes.jpg"
    text.write_text("no picture")
    report = real.json("enrol", "Ada", NO_FACE, GROUP, text, status=1)
    assert [(file["file"], file["status"]) for file in report["files"]] == [
        (str(NO_FACE), "no_face"),
        (str(GROUP), "several_faces"),
        (str(text), "invalid_image"),
    ]
    assert real.photos() == []
    assert [len(file["faces"]) for file in report["files"]] == [0, 3, 0]
    text_report = real.run("enrol", "Ada", GROUP, says="3 faces found", status=1)
    assert re.search(r"they are \d+ x \d+ at \d+, \d+; ", text_report.output)
    some = real.run("enrol", "Ada", NO_FACE, *OBAMA.iterdir())
    assert f"no face        Ada  {NO_FACE}: no face found" in some.output
    tiny = replace(real, environ=real.environ | {"FACEREC_GALLERY__MIN_FACE_PIXELS": "5000"})
    tiny.run("enrol", "Ada", *OBAMA.iterdir(), says="at least 5000 are needed", status=1)


def test_photo_of_another_person_has_an_exit_status_of_its_own(real: CommandLine, tmp_path: Path) -> None:
    """Another spelling is the same person; the first one stays, also for a folder."""
    (photo,) = list(OBAMA.iterdir())[:1]
    real.run("enrol", "Barack Obama", photo)
    report = real.json("enrol", "Joe Biden", photo, NO_FACE, status=3)
    assert report["counts"] == {"other_name": 1, "no_face": 1}
    assert (report["files"][0]["identity"], report["files"][0]["enrolled_for"]) == ("Joe Biden", "Barack Obama")
    real.run("enrol", "Joe Biden", photo, says="other name     Joe Biden", status=3)
    real.run("enrol", "barack  OBAMA\u200d", photo, says="1 duplicate", status=0)
    real.run("enrol", "barack obama", photo, "--exact-names", says="already enrolled for 'Barack Obama'", status=3)
    other = tmp_path / "people" / "BARACK OBAMA." / "group.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(GROUP.read_bytes())
    real.run("enrol", "--folder", tmp_path / "people", "--face", "primary", says="spelled 'Barack Obama'")
    assert real.json("gallery", "list")[0]["identity"] == "Barack Obama"
    assert len(real.json("gallery", "show", "barack obama")) == 2
    assert "another person (other name)" in real.run("enrol", "--help").output


def test_primary_face_of_several_can_be_enrolled(real: CommandLine) -> None:
    """Primary face of several can be enrolled."""
    real.run("enrol", "Barack Obama", GROUP, "--face", "primary", says="the primary one of 3 faces")
    (template,) = real.json("gallery", "show", "Barack Obama")
    assert template["source"] == GROUP.name


def test_photo_of_poor_quality_is_refused_unless_the_limit_is_off(real: CommandLine, tmp_path: Path) -> None:
    """Photo of poor quality is refused unless the limit is off."""
    blurred = tmp_path / "blurred.jpg"
    with Image.open(next(OBAMA.iterdir())) as image:
        image.filter(ImageFilter.GaussianBlur(18)).save(blurred)
    report = real.json("enrol", "Barack Obama", blurred, status=1)["files"][0]
    assert (report["status"], report["quality"]["reasons"][0]) == ("poor_quality", "blurred")
    assert report["quality"]["score"] < 0.5
    open_gate = replace(real, environ=real.environ | {"FACEREC_GALLERY__MIN_QUALITY": "0"})
    open_gate.run("enrol", "Barack Obama", blurred, says="(blurred")
    real.run("gallery", "remove", "Barack Obama", "--yes")
    real.run("enrol", "Barack Obama", blurred, "--force", says="forced: quality")


def test_enrolment_warns_of_a_look_alike(real: CommandLine) -> None:
    """One person under two names; without a comparison there is no warning."""
    second = EXAMPLES / "probes" / "image_01.jpg"
    real.run("enrol", "Barack Obama", *OBAMA.iterdir())
    real.run("enrol", "Joe Biden", BIDEN, "--json")
    report = real.json("enrol", "B. H. Obama", second)["files"][0]
    assert report["status"] == "enrolled"
    assert [match["identity"] for match in report["look_alikes"]] == ["Barack Obama"]
    real.run("enrol", "B. H. Obama", second, says="also matches Barack Obama 0.")
    real.run("enrol", "B. H. Obama", second, "--no-look-alikes", says="already enrolled")


def test_audit_says_what_to_do_about_each_finding(line: CommandLine, model_id: str) -> None:
    """The exit status is 1 if there are any; nothing is changed."""
    line.seed("Ada", "Grace", model_id=model_id)
    clean = line.run("people", "audit", says="0 findings in 2 templates of 2 people")
    assert "2 people with a single template, which nothing can contradict: Ada, Grace" in clean.output
    store = bootstrap.template_store(line.settings)
    twice = replace(make_template(1, "Ada L.", "default", model_id), template_id="f" * 32, photo=None, quality=0.25)
    store.add(twice)
    found = line.run("people", "audit", says="2 findings in 3 templates of 3 people", status=1)
    assert "same face" in found.output
    assert "one person: facerec people merge" in found.output
    assert "quality 0.25, below 0.5" in found.output
    report = line.json("people", "audit", status=1)
    assert [each["problem"] for each in report["findings"]] == ["same_face", "low_quality"]
    same = report["findings"][0]
    assert {same["identity"], same["other"]} == {"Ada", "Ada L."}
    assert same["similarity"] == pytest.approx(1)
    assert same["advice"][0].startswith("one person: facerec people merge ")
    line.run("people", "audit", "--collection", "staff", says="0 findings in 0 templates of 0 people")
    assert store.count("default") == 3


def test_concurrent_enrolments_are_both_stored(real: CommandLine) -> None:
    """Concurrent enrolments are both stored."""
    commands = [
        [sys.executable, "-m", "facerec.cli", "enrol", photo.parent.name, str(photo)]
        for photo in sorted((EXAMPLES / "gallery").glob("*/*"))[:2]
    ]
    processes = [subprocess.Popen(command, env=os.environ | real.environ) for command in commands]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sum(person["templates"] for person in real.json("gallery", "list")) == 2


def test_running_worker_sees_a_change_within_five_seconds(line: CommandLine, model_id: str) -> None:
    """At the default settings."""
    line.seed("Ada", model_id=model_id)
    store, seconds = bootstrap.template_store(line.settings), line.settings.gallery.refresh_seconds
    cache = GalleryCache(store, model_id, seconds, dimension=512)
    assert len(cache.index("default")) == 1
    cache.start()
    try:
        line.run("gallery", "remove", "Ada", "--yes")
        assert poll_until(lambda: len(cache.index("default")) == 0, 5)
    finally:
        cache.stop()


@pytest.mark.parametrize(
    ("arguments", "says", "status"),
    [
        (["enrol"], "Give NAME and at least one photo", 2),
        (["enrol", "Ada"], "Give NAME and at least one photo", 2),
        (["enrol", "Ada", "--folder", "."], "not both", 2),
        (["enrol", "Ada", "missing.jpg"], "does not exist", 2),
        (["enrol", "Unknown", str(NO_FACE)], "choose another name", 1),
        (["enrol", "Ada", str(NO_FACE), "--collection", "a/b"], "no name for a collection", 1),
        (["gallery", "list", "--collection", "#collections"], "no name for a collection", 1),
        (["gallery", "show", "Ada"], "nobody is enrolled as 'Ada'", 1),
        (["gallery", "remove", "Ada", "--yes"], "nobody is enrolled as 'Ada'", 1),
        (["gallery", "export", "out.facerec"], "holds nothing to export", 1),
        (["gallery", "import", str(NO_FACE)], "no readable zip file", 1),
        (["gallery", "import-pt", str(NO_FACE), "--model", "vggface2"], "the model in use is casia-webface", 1),
    ],
)
def test_mistake_is_answered_with_one_sentence(line: CommandLine, arguments: list[str], says: str, status: int) -> None:
    """And an exit status for scripts."""
    line.run(*arguments, says=says, status=status)


def test_enrolment_without_a_model_says_how_to_get_one(line: CommandLine, tmp_path: Path) -> None:
    """Listing works without a model."""
    bare = replace(line, environ=line.environ | {"FACEREC_MODEL__DIR": str(tmp_path / "nothing")})
    bare.run("enrol", "Ada", NO_FACE, says="facerec model build", status=1)
    bare.seed("Ada", model_id="facenet-160-0123456789abcdef")
    bare.run("gallery", "list", says="Ada")


def test_folder_without_people_says_the_expected_form(line: CommandLine, tmp_path: Path) -> None:
    """Folder without people says the expected form."""
    folder = tmp_path / "people"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "a.jpg").write_bytes(b"x")
    (folder / "loose.jpg").write_bytes(b"x")
    result = line.run("enrol", "--folder", folder, says="a folder per person", status=2)
    assert "loose.jpg" in result.output


def test_gallery_lists_and_shows_people(line: CommandLine, model_id: str) -> None:
    """In columns and as JSON; a near miss gets a suggestion."""
    line.seed("Ada Lovelace", "José 李", "Ada Lovelace", model_id=model_id)
    enrolled = dict.fromkeys(("first_enrolled", "last_enrolled"), make_template(1).enrolled_at.isoformat())
    assert line.json("gallery", "list") == [
        {"identity": "Ada Lovelace", "templates": 2, "models": [model_id], **enrolled},
        {"identity": "José 李", "templates": 1, "models": [model_id], **enrolled},
    ]
    times = f"2026-03-01      2026-03-01     {model_id}\n"
    line.run("people", "list", says=f"Ada Lovelace  2          {times}José 李       1          {times}")
    shown = line.json("gallery", "show", "  José 李 ")
    assert [(template["source"], template["model_id"]) for template in shown] == [("photo 2.jpg", model_id)]
    line.run("gallery", "show", "José 李", says=shown[0]["template_id"])
    line.run("gallery", "show", "ada lovelase", says="did you mean 'Ada Lovelace'?", status=1)
    line.seed("Grace", model_id=model_id, collection="staff")
    assert line.run("gallery", "collections").stdout.split() == ["default", "staff"]


def test_spellings_of_earlier_versions_stay_readable_and_removable(
    line: CommandLine, model_id: str, tmp_path: Path
) -> None:
    """Any spelling finds all of them; with exact names, only what cannot be seen is the same."""
    line.seed("Ada", "ada", "Ada\u200d", "Unknown\u200d", "Grace", model_id=model_id)
    assert len(line.json("gallery", "show", "ADA")) == 3
    assert len(line.json("gallery", "show", "Ada\ufeff", "--exact-names")) == 2
    line.run("gallery", "show", "ada", says="Under 3 spellings: 'Ada', 'Ada\\u200d', 'ada'")
    line.run("gallery", "export", tmp_path / "backup.facerec", says="5 templates exported")
    line.run("gallery", "remove", "Unknown", "--yes", says="1 template of 'Unknown\\u200d' removed")
    line.run("gallery", "remove", "ADA", "--exact-names", "--yes", says="nobody is enrolled as 'ADA'", status=1)
    line.run("gallery", "export", "--force", tmp_path / "backup.facerec")
    line.run("gallery", "remove", "ada", "--exact-names", "--yes", says="1 template of 'ada' removed")
    line.run("gallery", "remove", "ADA", "--yes", says="2 templates of 'Ada' and 'Ada\\u200d' removed")
    assert [person["identity"] for person in line.json("gallery", "list")] == ["Grace"]

    imported = line.run("gallery", "import", tmp_path / "backup.facerec", says="3 templates imported")
    assert "'ada' is imported as 'Ada'" in imported.output
    assert [person["identity"] for person in line.json("gallery", "list")] == ["Ada", "Grace"]
    line.run("gallery", "import", tmp_path / "backup.facerec", "--collection", "exact", "--exact-names")
    exact = line.json("gallery", "list", "--collection", "exact")
    assert [person["identity"] for person in exact] == ["Ada", "ada", "Grace"]


def test_import_leaves_out_the_photo_of_another_person(line: CommandLine, model_id: str, tmp_path: Path) -> None:
    """With the exit status that `enrol` has for it."""
    line.seed("Ada", model_id=model_id)
    file = tmp_path / "backup.facerec"
    line.run("gallery", "export", file)
    line.run("gallery", "remove", "Ada", "--yes")
    line.seed("Eve", model_id=model_id)
    refused = line.run("gallery", "import", file, says="1 template enrolled for another person", status=3)
    assert "of 'Ada' is enrolled for 'Eve'" in refused.output


def test_names_and_file_names_do_not_control_the_terminal(line: CommandLine, model_id: str) -> None:
    """Archives of others bring them; JSON has them as they are."""
    hostile = "a\x1b[2J\x9b1m\u202eb\nfacerec: removed\u2028x"
    template = replace(make_template(1, hostile, model_id=model_id), source=hostile, photo=None)
    bootstrap.template_store(line.settings).add(template)
    for arguments in (["list"], ["show", hostile], ["remove", hostile, "--yes"]):
        text = line.run("gallery", *arguments).output
        assert all(is_text(character) or character == "\n" for character in text), text
        assert not any(row.startswith("facerec: removed") for row in text.splitlines())
        if arguments[0] == "show":
            assert line.json("gallery", *arguments)[0]["source"] == hostile


def test_gallery_list_marks_templates_of_another_model(line: CommandLine, model_id: str) -> None:
    """Gallery list marks templates of another model."""
    line.seed("Ada", model_id="facenet-160-0123456789abcdef")
    says = f"another model than the one in use ({model_id}), so they never match: 1"
    line.run("gallery", "list", says=says)
    line.run("gallery", "list", says="`facerec gallery rebuild --collection default`")


def test_gallery_of_another_model_is_rebuilt(
    real: CommandLine, artefact_dir: Path, old: Callable[[Path, str], Template]
) -> None:
    """Failures are listed, and old templates are removed on request."""
    good, bad = old(next(OBAMA.iterdir()), "Barack Obama"), old(NO_FACE, "Nemo")
    old(BIDEN, "Joe Biden")
    real.seed("Somebody", model_id="facenet-160-0123456789abcdef", collection="other")
    model = Artefact.load(artefact_dir)
    in_use = model.model_id
    report = real.json("gallery", "rebuild", status=1)
    assert report["counts"] == {"rebuilt": 2, "no_face": 1}
    assert report["model"] == in_use
    assert [(found["file"], found["status"]) for found in report["templates"]] == [
        (good.source, "rebuilt"),
        (BIDEN.name, "rebuilt"),
        (bad.source, "no_face"),
    ]
    models = {person["identity"]: person["models"] for person in real.json("gallery", "list")}
    assert models["Barack Obama"] == sorted([in_use, good.model_id])
    cache = GalleryCache(bootstrap.template_store(real.settings), in_use, 2, dimension=model.dimension)
    assert len(cache.index("default")) == 2

    again = real.run("gallery", "rebuild", "--remove-old", says="2 present", status=1)
    assert "no face        Nemo  image_04.jpg: no face found" in again.output
    assert "2 templates of other models removed" in again.output
    models = {person["identity"]: person["models"] for person in real.json("gallery", "list")}
    assert models == {"Barack Obama": [in_use], "Joe Biden": [in_use], "Nemo": [bad.model_id]}
    # The photos went with the old templates, and stay with the new ones.
    assert len([key for key in real.photos() if key.startswith("default/")]) == 3

    everywhere = real.json("gallery", "rebuild", "--all-collections", status=1)
    assert {found["collection"]: found["status"] for found in everywhere["templates"]} == {
        "default": "no_face",
        "other": "no_face",
    }


def test_enrolment_and_rebuild_renew_the_snapshot(
    real: CommandLine,
    old: Callable[[Path, str], Template],
    artefact_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If it is worth it; --remove-old deletes those of the old model, too, whatever the size of the collection."""
    (obama,) = OBAMA.iterdir()
    another = tmp_path / "another.jpg"
    another.write_bytes(obama.read_bytes() + b"a comment")
    model_id = Artefact.load(artefact_dir).model_id

    def snapshots() -> list[str]:
        return [key for key in real.photos() if key.startswith("!snapshots/")]

    assert "Snapshot" not in real.run("enrol", "Barack Obama", obama, says="1 enrolled").output
    old(obama, "Barack Obama")
    monkeypatch.setattr(gallery_snapshot, "WORTH_TEMPLATES", 2)
    says = f"Snapshot of collection default published: 2 templates, model {model_id}"
    real.run("gallery", "rebuild", says=says)
    (first,) = snapshots()
    assert "Snapshot" not in real.run("enrol", "Joe Biden", BIDEN, says="1 enrolled").output
    monkeypatch.setattr(gallery_snapshot, "WORTH_CHANGES", 1)
    assert "Snapshot" not in real.run("enrol", "Joe Biden", BIDEN, says="1 duplicate").output
    real.run("enrol", "Barack Obama", another, says=says.replace("2 templates", "4 templates"))
    (second,) = snapshots()
    monkeypatch.setattr(gallery_snapshot, "WORTH_CHANGES", 1000)
    real.run("gallery", "rebuild", "--remove-old", says=says.replace("2 templates", "4 templates"))
    (third,) = snapshots()
    assert len({first, second, third}) == 3
    real.run("gallery", "check", says="0 photos without a template")


def test_interrupted_rebuild_keeps_its_results(real: CommandLine, old: Callable[[Path, str], Template]) -> None:
    """The next run continues. All reports are more than the pipe holds twice, so the interrupt comes in time."""
    for number in range(100):
        old(next(OBAMA.iterdir()), f"person {number:03d} {'of a long name ' * 6}".strip())
    command = [sys.executable, "-m", "facerec.cli", "gallery", "rebuild"]
    process = subprocess.Popen(
        command,
        env=os.environ | real.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        pipesize=4096,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said = first + process.communicate(timeout=60)[0]
    assert process.returncode == 1
    done = said.count("rebuilt        person")
    assert first.startswith("rebuilt")
    assert 0 < done < 100
    report = real.json("gallery", "rebuild")
    assert report["counts"]["present"] + report["counts"]["rebuilt"] == 100
    assert report["counts"]["present"] >= 1


def test_rebuild_of_nothing_loads_no_model(line: CommandLine, model_id: str) -> None:
    """Rebuild of nothing loads no model."""
    line.seed("Ada", model_id=model_id)
    line.run("gallery", "rebuild", says="Nothing to rebuild in collection default")
    line.run("gallery", "rebuild", "--all-collections", "--collection", "staff", says="not both", status=2)


def test_removal_asks_first_and_deletes_the_photos(line: CommandLine, model_id: str) -> None:
    """Removal asks first and deletes the photos."""
    line.seed("Ada", "Grace", "Ada", "Ada", model_id=model_id)
    line.run("gallery", "remove", "Ada", typed="n\n", says="Remove 3 of 3 templates of 'Ada'", status=1)
    assert len(line.photos()) == 4
    first = line.json("gallery", "show", "Ada")[0]["template_id"]
    line.run("gallery", "remove", "Ada", "--template", "0" * 32, "--yes", says="has no template", status=1)
    line.run("gallery", "remove", "Ada", "--template", first, "--yes", says="1 template of 'Ada' removed")
    line.run("gallery", "remove", "Ada", typed="y\n", says="2 templates of 'Ada' removed")
    assert [person["identity"] for person in line.json("gallery", "list")] == ["Grace"]
    assert len(line.photos()) == 1


def test_damaged_templates_are_shown_left_out_and_removed(line: CommandLine, model_id: str, tmp_path: Path) -> None:
    """Every command goes on with the others; the id is enough to remove one, and a person's removal includes them."""
    line.seed("Ada", "Grace", "Alan", "Ada", model_id=model_id)
    table, dynamodb = line.settings.templates_table, Clients(line.settings).dynamodb
    nameless, cut = make_template(2), make_template(4)
    for template, attribute, value in (
        (nameless, "identity", {"N": "7"}),
        (cut, "embedding", {"B": bytes(2047)}),
    ):
        key: Any = {"collection": {"S": "default"}, "item": {"S": f"template#{template.template_id}"}}
        item: Any = dynamodb.get_item(TableName=table, Key=key)["Item"]
        dynamodb.put_item(TableName=table, Item=item | {attribute: value})
    command = f"facerec gallery remove --collection default --template {nameless.template_id}"
    listed = line.run("gallery", "list", "--json", says=command)
    assert [person["identity"] for person in json.loads(listed.stdout)] == ["Ada", "Alan"]
    assert f"{cut.template_id} of 'Ada': its embedding has 2047 bytes" in listed.stderr
    line.run("gallery", "show", "Ada", says="damaged: 2 templates")
    file = tmp_path / "backup.facerec"
    exported = line.run("gallery", "export", file, says="2 templates exported")
    assert nameless.template_id in exported.stderr
    line.run("gallery", "import", file, "--collection", "copy", says="2 templates imported")
    line.run("calibrate", "--target-fmr", "0.5", says="impostor pairs", status=1)

    checked = line.json("gallery", "check", "--collection", "default", status=1)
    assert {found["template_id"] for found in checked["damaged_templates"]} == {nameless.template_id, cut.template_id}
    assert checked["photos_without_template"] == checked["recent_photos"] == []
    line.run(*command.split()[1:], "--yes", says="1 template removed")
    line.run(*command.split()[1:], "--yes", says="has no template", status=1)
    line.run("gallery", "remove", "--yes", says="Give NAME", status=2)
    line.run("gallery", "remove", "Ada", "--yes", says="2 templates of 'Ada' removed")
    assert line.run("gallery", "list").stderr == ""
    assert len([key for key in line.photos() if key.startswith("default/")]) == 1


def test_gallery_survives_export_and_import(line: CommandLine, model_id: str, tmp_path: Path) -> None:
    """With its photos; a second import changes nothing."""
    line.seed("Ada", model_id=model_id)
    file = tmp_path / "backup.facerec"
    line.run("gallery", "export", "--photos", file, says="1 template exported")
    line.run("gallery", "export", file, says="exists already", status=2)
    line.run("gallery", "remove", "Ada", "--yes")
    assert line.photos() == []
    line.run("gallery", "import", file, says="1 template imported into collection default\n")
    line.run("gallery", "import", file, says="0 templates imported into collection default; 1 template already present")
    assert len(line.photos()) == 1
    line.run("gallery", "export", "--force", file)
    line.run("gallery", "import", file, "--collection", "copy", says="1 template imported into collection copy")
    assert len(line.photos()) == 1


def test_merge_survives_export_and_import(line: CommandLine, model_id: str, tmp_path: Path) -> None:
    """Also into another collection, where it can be taken back."""
    line.seed("Ada", model_id=model_id)
    bootstrap.template_store(line.settings).add(replace(make_template(2, "Grace", model_id=model_id), photo=None))
    line.run("people", "merge", "Ada", "Grace", "--yes", says="1 template of 'Ada' given to 'Grace'")
    line.run("gallery", "export", "--photos", tmp_path / "backup.facerec", says="2 templates exported")
    line.run("gallery", "import", tmp_path / "backup.facerec", "--collection", "copy", says="2 templates imported")
    for collection in ("default", "copy"):
        (merge,) = line.json("people", "merges", "--collection", collection)
        line.run("people", "unmerge", merge["merge_id"], "--collection", collection, says="given back to 'Ada'")
        people = {
            each["identity"]: each["templates"] for each in line.json("people", "list", "--collection", collection)
        }
        assert people == {"Ada": 1, "Grace": 1}


def test_photo_of_a_killed_enrolment_is_found_and_removed(real: CommandLine) -> None:
    """The process dies between its two stores. A young photo stays: the enrolment may be running."""
    dies = (
        "import os, signal; from facerec.aws.dynamodb.templates import DynamoTemplateStore; "
        "from facerec.cli import main; "
        "DynamoTemplateStore.add = lambda *_: os.kill(os.getpid(), signal.SIGKILL); main()"
    )
    (photo,) = list(OBAMA.iterdir())[:1]
    command = [sys.executable, "-c", dies, "enrol", "Barack Obama", str(photo)]
    killed = subprocess.run(command, env=os.environ | real.environ, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (key,) = real.photos()
    recent = real.run(
        "gallery", "check", "--remove", says="0 photos without a template, 0 templates whose photo is gone"
    )
    assert f"recent       {key}" in recent.output
    real.run("gallery", "check", "--older-than", "0s", says=f"no template  {key}", status=1)
    report = real.json("gallery", "check", "--older-than", "0s", "--collection", "default", status=1)
    assert [(found["key"], found["removed"]) for found in report["photos_without_template"]] == [(key, False)]
    real.run("gallery", "check", "--older-than", "0s", "--remove", says="1 photo removed")
    assert real.photos() == []
    real.run("gallery", "check", "--collection", "a/b", says="no name for a collection", status=1)


def test_removed_person_is_in_no_published_snapshot(line: CommandLine, model_id: str, tmp_path: Path) -> None:
    """The command that removes one writes the next; nothing else of the person is in the bucket."""
    line.seed("Ada", "Grace", model_id=model_id)
    store = bootstrap.object_store(line.settings)

    def objects() -> bytes:
        return b"".join(store.get(line.settings.gallery_bucket, key) for key in line.photos())

    assert not any(key.startswith("!snapshots/") for key in line.photos())
    line.run("gallery", "snapshot", "--collection", "nobody", says="nobody holds nothing to publish", status=1)
    (tmp_path / "full").write_text("no folder")
    full = replace(line, environ=line.environ | {"FACEREC_MODEL__CACHE_DIR": str(tmp_path / "full")})
    full.run("gallery", "snapshot", says=f"{tmp_path / 'full'} cannot be written", status=1)
    line.run("gallery", "snapshot", says=f"Snapshot of collection default published: 2 templates, model {model_id}")
    (key,) = [key for key in line.photos() if key.startswith("!snapshots/")]
    traces = [make_template(number, model_id=model_id).embedding.astype("<f2").tobytes() for number in (1, 2)]
    assert [trace in objects() for trace in traces] == [True, True]
    removed = line.run("gallery", "remove", "Grace", "--yes", says="1 template of 'Grace' removed")
    assert "Snapshot of collection default published: 1 template" in removed.output
    assert key not in line.photos()
    assert len([key for key in line.photos() if key.startswith("!snapshots/")]) == 1
    assert [trace in objects() for trace in traces] == [True, False]
    line.run("gallery", "check", says="0 photos without a template")
    line.run("gallery", "remove", "Ada", "--yes", says="0 templates")
    assert [trace in objects() for trace in traces] == [False, False]


def test_snapshots_of_all_collections_are_published_and_checked(line: CommandLine, model_id: str) -> None:
    """One with a template that was removed by another way is reported and deleted."""
    for collection in ("staff", "guests"):
        line.seed("Ada", "Grace", model_id=model_id, collection=collection)
    line.run("gallery", "snapshot", "--all", "--collection", "staff", says="not both", status=2)
    line.run("gallery", "snapshot", "--all")
    keys = [key for key in line.photos() if key.startswith("!snapshots/")]
    assert [key.split("/")[1:3] for key in keys] == [["guests", model_id], ["staff", model_id]]
    bootstrap.template_store(line.settings).remove("staff", [make_template(2).template_id])
    found = line.run("gallery", "check", "--collection", "staff", says="templates were removed since", status=1)
    assert keys[1] in found.output
    report = line.json("gallery", "check", "--remove")
    assert [(each["key"], each["removed"]) for each in report["snapshots"]] == [(keys[1], True)]
    assert [key for key in line.photos() if key.startswith("!snapshots/")] == keys[:1]


def test_command_renews_the_snapshot_when_it_is_worth_it(
    line: CommandLine, model_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From so many templates or changes on; without the permission to write it they succeed nevertheless."""
    line.seed("Ada", "Grace", model_id=model_id)
    line.run("gallery", "export", tmp_path / "people.facerec")
    into = ("gallery", "import", tmp_path / "people.facerec", "--collection")
    assert "Snapshot" not in line.run(*into, "few", says="2 templates imported").output
    monkeypatch.setattr(gallery_snapshot, "WORTH_TEMPLATES", 2)
    line.run(*into, "many", says="Snapshot of collection many published: 2 templates")
    assert "Snapshot" not in line.run(*into, "many", says="2 templates already present").output

    def refuse(*_: object) -> None:
        raise FacerecError("S3 is away")

    monkeypatch.setattr("facerec.aws.object_store.S3ObjectStore.upload", refuse)
    line.run(*into, "more", says="No snapshot was published, so new workers start more slowly: S3 is away")


def test_template_without_its_photo_is_reported(line: CommandLine, model_id: str) -> None:
    """As an interrupted removal leaves it; removing the person again completes it."""
    line.seed("Ada", model_id=model_id)
    bootstrap.object_store(line.settings).delete(line.settings.gallery_bucket, line.photos()[0])
    line.run("gallery", "check", "--remove", says="photo gone   Ada  photo 1.jpg", status=1)
    line.run("gallery", "remove", "Ada", "--yes")
    line.run("gallery", "check", says="0 photos without a template")


def test_import_of_another_model_is_refused(line: CommandLine, tmp_path: Path) -> None:
    """Unless it is requested."""
    line.seed("Ada", model_id="facenet-160-0123456789abcdef", collection="old")
    file = tmp_path / "old.facerec"
    line.run("gallery", "export", file, "--collection", "old")
    line.run("gallery", "import", file, "--collection", "new", says="facenet-160-0123456789abcdef", status=1)
    assert line.json("gallery", "list", "--collection", "new") == []
    line.run("gallery", "import", file, "--collection", "new", "--any-model", says="1 template imported")


def test_import_of_a_wrong_dimension_is_refused(line: CommandLine, model_id: str, tmp_path: Path) -> None:
    """One such template would keep workers from loading the collection."""
    file = tmp_path / "short.facerec"
    short = of_dimension(128, make_template(1, "Ada", model_id=model_id))
    write_archive(file, "default", [short], (), datetime(2026, 11, 1, tzinfo=UTC))
    for flag in ([], ["--any-model"]):
        line.run("gallery", "import", file, *flag, says="have 128 numbers each instead of 512", status=1)
    assert line.json("gallery", "list") == []


def test_saved_pair_is_imported(line: CommandLine, tmp_path: Path) -> None:
    """Code in the file is not run."""
    torch = pytest.importorskip("torch", reason="only the reference installation reads torch's files")
    file, trap = tmp_path / "data.pt", tmp_path / "trap.pt"
    torch.save([[torch.ones(1, 512), -torch.ones(1, 512)], ["Ada", "Grace"]], file)
    line.run("gallery", "import-pt", file, "--model", "casia-webface", says="2 templates imported")
    line.run("gallery", "import-pt", file, "--model", "casia-webface", says="2 templates already present")
    assert [person["identity"] for person in line.json("gallery", "list")] == ["Ada", "Grace"]
    torch.save([[torch.ones(1, 512)], [Trap()]], trap)
    line.run("gallery", "import-pt", trap, "--model", "casia-webface", says="UnpicklingError", status=1)


class Trap:
    """A value that only this very class can unpickle."""
