"""`facerec dlq` on queues in memory."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner, Result

from facerec.commands.dead_letter_shelf import Shelf
from facerec.commands.dlq import command
from facerec.settings import Settings
from tests.fakes.dead_letters import InMemoryDeadLetters
from tests.fakes.object_store import InMemoryObjectStore

NOW = datetime.now(UTC)


class Sent:
    """Where bodies are sent."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def send(self, body: str) -> None:
        """Keep it."""
        self.bodies.append(body)


class Desk:
    """The command on fakes: an old and a young dead letter, neither of which is a task."""

    def __init__(self) -> None:
        self.dead, self.sent = InMemoryDeadLetters(), Sent()
        shelf = Shelf(Settings(), self.dead, self.sent, InMemoryObjectStore())
        self.run: Callable[..., Result] = lambda *words, answer="": CliRunner().invoke(
            command, list(words), obj=shelf, input=answer
        )
        self.dead.put(
            "rubbish", reason="old \x9b31m\u202e rubbish", request_id="old\x1b", failed_at=NOW - timedelta(days=8)
        )
        self.dead.put("young rubbish", reason="the young one", request_id="young", failed_at=NOW)

    def left(self) -> list[str]:
        """The reasons of what is there, the oldest failure first."""
        listed = self.run("list", "--json")
        assert listed.exit_code == 0
        return [entry["request_id"] for entry in json.loads(listed.stdout)]


@pytest.fixture
def desk() -> Desk:
    """Of each test's own."""
    return Desk()


def test_a_list_is_sorted_and_safe_to_look_at(desk: Desk) -> None:
    """What strangers wrote cannot move the terminal's cursor, nor turn the line around."""
    table = desk.run("list").stdout
    assert table.index("old") < table.index("young")
    assert not {"\x9b", "\u202e", "\x1b"} & set(table)
    assert len(desk.run("list", "--limit", "1").stdout.splitlines()) == 2
    assert "young" not in desk.run("list", "--reason-matches", "OLD").stdout


def test_a_reason_is_whole_where_programs_read_it(desk: Desk) -> None:
    """Only a terminal's table cuts it."""
    desk.dead.put("more", reason="so " * 50 + "it ended", request_id="more", failed_at=NOW)
    assert "it ended" in desk.run("list").stdout


def test_what_is_no_task_is_sent_by_force_alone(desk: Desk) -> None:
    """The exit status tells that something stayed."""
    refused = desk.run("redrive", "--all", "--yes")
    assert refused.exit_code == 1
    assert (desk.sent.bodies, len(desk.left())) == ([], 2)
    assert desk.run("redrive", "young", "--force", "--yes").exit_code == 0
    assert desk.sent.bodies == ["young rubbish"]
    assert desk.left() == ["old\x1b"]


def test_a_wrong_name_does_nothing_at_all(desk: Desk) -> None:
    """Also not to the right ones beside it."""
    for subcommand in (("redrive", "--force"), ("purge",)):
        wrong = desk.run(*subcommand, "young", "nobody", "--yes")
        assert (wrong.exit_code, "nobody" in str(wrong.exception)) == (1, True)
    assert desk.run("show", "nobody").exit_code == 1
    assert (desk.sent.bodies, len(desk.left())) == ([], 2)


@pytest.mark.parametrize(
    "words",
    [("redrive",), ("redrive", "young", "--all"), ("purge",), ("purge", "--all", "--older-than", "1d"), ("show",)],
)
def test_nothing_is_done_without_a_choice(desk: Desk, words: tuple[str, ...]) -> None:
    """Nor with two that contradict each other; the usage is told."""
    assert desk.run(*words).exit_code == 2


def test_it_asks_first(desk: Desk) -> None:
    """No is the default, and a rehearsal does nothing."""
    assert desk.run("purge", "young", answer="\n").exit_code == 1
    assert desk.run("purge", "young", "--dry-run").exit_code == 0
    assert desk.run("purge", "--all", answer="n\n").exit_code == 1
    assert desk.run("purge", "--all", "--dry-run").exit_code == 0
    assert desk.run("redrive", "young", "--force", answer="n\n").exit_code == 1
    assert len(desk.left()) == 2
    assert desk.run("purge", "young", answer="y\n").exit_code == 0
    assert len(desk.left()) == 1


def test_the_old_are_thrown_away(desk: Desk) -> None:
    """By when they failed."""
    assert desk.run("purge", "--older-than", "7d", "--yes").exit_code == 0
    assert desk.left() == ["young"]
    assert desk.run("purge", "--all", "--yes").exit_code == 0
    assert desk.left() == []
    assert "nothing" in desk.run("list").stderr


def test_an_age_before_all_time_is_a_usage_error(desk: Desk) -> None:
    """And nothing is thrown away."""
    refused = desk.run("purge", "--older-than", "999999d", "--yes")
    assert (refused.exit_code, "ten years" in refused.stderr) == (2, True)
    assert len(desk.left()) == 2


def test_a_story_tells_what_is_known(desk: Desk) -> None:
    """Also of what is no task."""
    (story,) = json.loads(desk.run("show", "young", "--json").stdout)
    assert (story["body"], story["task"], story["result"]) == ("young rubbish", False, None)
    assert "the young one" in desk.run("show", "young").stdout
