"""`facerec people` on stores in memory."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from facerec import bootstrap
from facerec.cli import cli
from facerec.commands.asking import ask_through
from facerec.errors import FacerecError, Transient
from facerec.messages import OPERATION_VERSION, Outcome, RecognitionRequest, RecognitionResult
from facerec.operations import Reject
from facerec.settings import Settings
from facerec.web.asking import Question
from facerec.web.forms import Photo
from tests.fakes.templates import make_rejection, make_template
from tests.fakes.web_tier import FakeWebTier, picture, result_for


@dataclass
class People:
    """Runs `facerec people` on a tier's stores; `result` is what a worker answers."""

    outcome: Outcome = Outcome.DONE
    detail: str | None = None
    requests: list[RecognitionRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the stores, with Ada's two templates and Grace's one."""
        self.tier = FakeWebTier(answer=self.answer)
        for number, name in ((1, "Ada"), (2, "Ada"), (3, "Grace")):
            self.tier.templates.add(make_template(number, name))

    def answer(self, request: RecognitionRequest) -> RecognitionResult:
        """Note the request."""
        self.requests.append(request)
        return result_for(request, "", outcome=self.outcome, detail=self.detail)

    def run(self, *arguments: str | Path, status: int = 0, says: str = "", typed: str | None = None) -> Result:
        """Run a command, which must end with this status and say this."""
        result = CliRunner().invoke(cli, ["people", *map(str, arguments)], input=typed)
        if isinstance(result.exception, FacerecError):
            assert status == 1, result.exception  # `facerec.cli.main` prints it
            assert says in str(result.exception)
        else:
            assert result.exit_code == status, (result.output, result.exception)
            assert says in result.output
        return result

    def json(self, *arguments: str) -> Any:
        """What a command prints for programs."""
        return json.loads(self.run(*arguments, "--json").stdout)

    @property
    def owners(self) -> list[str]:
        """The name in each template."""
        return list(self.tier.templates.owners("default").values())


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> People:
    """The commands without a model."""
    monkeypatch.setenv("FACEREC_MODEL__DIR", str(tmp_path / "nothing"))
    people = People()
    for name, port in (
        ("template_store", people.tier.templates),
        ("person_records", people.tier.records),
        ("object_store", people.tier.store),
        ("task_queue", people.tier.tasks),
        ("erasures", people.tier.erasures.make()),
        ("gallery_readers", people.tier.erasures.readers),
    ):
        monkeypatch.setattr(bootstrap, name, lambda _settings, port=port: port)
    return people


def test_list_shows_times_models_and_people_without_templates(people: People) -> None:
    """In columns and as JSON."""
    people.tier.records.add_name("default", "Joan")
    model, at = make_template(1).model_id, make_template(1).enrolled_at
    assert people.json("list") == [
        {
            "identity": name,
            "templates": count,
            "models": [model] if count else [],
            "first_enrolled": at.isoformat() if count else None,
            "last_enrolled": at.isoformat() if count else None,
        }
        for name, count in (("Ada", 2), ("Grace", 1), ("Joan", 0))
    ]
    assert people.run("list").stdout.splitlines()[1:] == [
        f"Ada       2          2026-03-01      2026-03-01     {model}",
        f"Grace     1          2026-03-01      2026-03-01     {model}",
        "Joan      0          -               -              -",
    ]
    assert people.json("show", "joan") == []


def test_rename_changes_every_template(people: People) -> None:
    """A name that is nobody's is an error with the closest name."""
    people.run("rename", "ada", "Ada Lovelace", says="2 templates of 'ada' renamed to 'Ada Lovelace'")
    assert people.owners == ["Ada Lovelace", "Ada Lovelace", "Grace"]
    people.run("rename", "Ada Lovelase", "Ada", status=1, says="did you mean 'Ada Lovelace'?")


def test_rename_to_another_person_has_its_own_exit_status(people: People) -> None:
    """And says what can be done."""
    people.run("rename", "Ada", "GRACE", status=3, says="merge the two")
    assert people.owners == ["Ada", "Ada", "Grace"]


def test_merge_asks_and_can_be_taken_back(people: People) -> None:
    """By its id or by the name."""
    people.run("merge", "Ada", "Grace", typed="n\n", status=1, says="Give 2 templates of 'Ada' to 'Grace'?")
    assert people.owners == ["Ada", "Ada", "Grace"]
    merged = people.json("merge", "ada", "grace", "--yes")
    assert people.owners == ["Grace"] * 3
    assert merged["templates"] == {"Ada": [make_template(1).template_id, make_template(2).template_id]}
    assert [merge["merge_id"] for merge in people.json("merges")] == [merged["merge_id"]]
    people.run("merges", says=merged["merge_id"])
    people.run("unmerge", merged["merge_id"], says="2 templates of 'Grace' given back to 'Ada'")
    assert people.owners == ["Ada", "Ada", "Grace"]
    people.run("unmerge", "Ada", status=1, says="has no merge 'Ada' that can be taken back")
    people.run("merges", says="no merge that can be taken back")


def test_remove_takes_the_ids_that_apis_show(people: People) -> None:
    """A UUID with dashes; without ids everything of the person, also what was remembered about it."""
    people.tier.templates.reject(make_rejection(11, "Ada"))
    people.run(
        "remove", "Ada", "--template", "00000000-0000-0000-0000-000000000001", "--yes", says="1 template of 'Ada'"
    )
    people.run("remove", "Ada", "--template", "3", "--yes", status=1, says="has no template '3'")
    assert people.owners == ["Ada", "Grace"]
    people.run("remove", "Ada", "--yes", says="1 template of 'Ada' removed")
    assert people.owners == ["Grace"]
    assert people.tier.templates.rejections("default") == []


def test_not_asks_a_worker_to_remember_the_face(people: People, tmp_path: Path) -> None:
    """With the photo, the person and the place of the face."""
    photo = tmp_path / "other.jpg"
    photo.write_bytes(picture())
    people.run("not", "Ada", "--photo", photo, "--face", "2", says="face 2 of other.jpg is not 'Ada'")
    (request,) = people.requests
    assert request.operation == Reject(identity="Ada", face=2)
    assert (request.version, request.reply_to, request.filename) == (OPERATION_VERSION, None, "other.jpg")
    assert people.tier.store.get(request.input.bucket, request.input.key) == photo.read_bytes()


def test_not_says_why_nothing_is_remembered(people: People, tmp_path: Path) -> None:
    """An unknown name before anything is sent; a worker's refusal; a file that is no photo."""
    photo, text = tmp_path / "other.jpg", tmp_path / "text.jpg"
    photo.write_bytes(picture())
    text.write_text("no photo")
    people.run("not", "Adda", "--photo", photo, status=1, says="did you mean 'Ada'?")
    people.run("not", "Ada", "--photo", text, status=1, says="text.jpg")
    assert people.requests == []
    people.outcome, people.detail = Outcome.REFUSED, "the photo has 1 face"
    people.run("not", "Ada", "--photo", photo, "--face", "4", status=1, says="the photo has 1 face")
    for arguments in ([], ["--list", "--photo", photo], ["--list", "--forget", "1"]):
        people.run("not", "Ada", *arguments, status=2, says="Give one of --photo, --list and --forget")


def test_what_is_remembered_is_listed_and_forgotten(people: People) -> None:
    """Only of this person."""
    for number, name in ((11, "Ada"), (12, "Grace")):
        people.tier.templates.reject(make_rejection(number, name))
    own, other = make_rejection(11).rejection_id, make_rejection(12).rejection_id
    assert [each["rejection_id"] for each in people.json("not", "ada", "--list")] == [own]
    people.run("not", "Ada", "--list", says="photo 11.jpg")
    people.run("not", "Ada", "--forget", other, status=1, says="nothing with the id")
    people.run("not", "Ada", "--forget", own, says="1 rejection of 'Ada' forgotten")
    people.run("not", "Ada", "--list", says="Nothing is remembered")
    assert [each.rejection_id for each in people.tier.templates.rejections("default")] == [other]


def test_question_waits_for_the_stored_result() -> None:
    """It looks again after a while, and ends with the address of the trace when the wait is over."""
    tier = FakeWebTier()
    question = Question(photo=Photo("a.jpg", picture()), operation=Reject(identity="Ada"))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (request,) = tier.tasks.requests
            tier.work(request, result_for(request, "", outcome=Outcome.DONE))

    result = ask_through(Settings(), tier.store, tier.tasks, question, wait_seconds=60, sleep=sleep)
    assert result.outcome is Outcome.DONE
    assert len(waits) == 3
    with pytest.raises(Transient, match="facerec trace"):
        ask_through(Settings(), tier.store, tier.tasks, question, wait_seconds=0, sleep=sleep)
