"""`facerec people` against the emulator, with a real worker."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from facerec.cli import cli
from facerec.messages import Outcome
from facerec.operations import Enrol
from facerec.processes.addresses import poll_until
from tests.fakes.drawn_faces import photo
from tests.support.workers import Worker, WorkerTier

People = Callable[..., Result]


@pytest.fixture
def people(tier: WorkerTier, monkeypatch: pytest.MonkeyPatch) -> People:
    """Runs `facerec people …` on the tier's resources."""
    monkeypatch.setenv("FACEREC_PREFIX", tier.settings.prefix)
    monkeypatch.setenv("FACEREC_MODEL__DIR", str(tier.model_dir))

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(cli, ["people", *arguments])
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    return run


def test_person_is_renamed_and_is_not_somebody_else(
    tier: WorkerTier, people: People, start: Callable[..., Worker], tmp_path: Path
) -> None:
    """The worker answers with the new name, and with no name for the face that was rejected."""
    start()
    (enrolled,) = tier.answers(tier.upload(photo("Ada"), operation=Enrol(identity="Ada")))
    assert enrolled.outcome is Outcome.DONE, enrolled
    other = photo("Ada", take=1)
    (found,) = tier.answers(tier.upload(other))
    assert found.result == "Ada"
    people("rename", "Ada", "Ada Lovelace")

    def answered(name: str) -> bool:
        return tier.answers(tier.upload(other))[0].result == name

    assert poll_until(lambda: answered("Ada Lovelace"), 20)
    (tmp_path / "other.jpg").write_bytes(other)
    people("not", "ada lovelace", "--photo", str(tmp_path / "other.jpg"))
    assert poll_until(lambda: answered("Unknown"), 20)
    (again,) = tier.answers(tier.upload(photo("Ada")))
    assert again.result == "Ada Lovelace"
    identifier = people("not", "Ada Lovelace", "--list").stdout.split("\n")[1].split()[0]
    people("not", "Ada Lovelace", "--forget", identifier)
    assert poll_until(lambda: answered("Ada Lovelace"), 20)
