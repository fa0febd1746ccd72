"""Settings: read once, checked together, wrong names refused."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import AnyHttpUrl, ValidationError

from facerec.commands.config import command, markdown
from facerec.errors import ConfigurationError, WrongSettings
from facerec.settings import Settings, effective, variables
from facerec.settings.resources import AwsSettings
from facerec.settings.tiers import ServerlessSettings

ROOT = Path(__file__).parents[4]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _ in variables():
        monkeypatch.delenv(name, raising=False)


def test_resource_names_come_from_the_prefix_or_their_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bucket names are global in AWS."""
    monkeypatch.setenv("FACEREC_PREFIX", "acme")
    monkeypatch.setenv("FACEREC_NAMES__OUTPUT_BUCKET", "acme-results-7")
    settings = Settings.load()
    assert settings.input_bucket == "acme-in-bucket"
    assert settings.output_bucket == "acme-results-7"
    assert (settings.request_queue, settings.dead_letter_queue) == ("acme-req-queue", "acme-req-queue-dlq")
    assert settings.response_queue == "acme-resp-queue"


@pytest.mark.parametrize("name", ["tasks.fifo", "https://sqs.eu-west-1.amazonaws.com/1/tasks", "arn:aws:sqs:::tasks"])
def test_name_of_no_standard_queue_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A FIFO queue would refuse every task, since no message has a group."""
    monkeypatch.setenv("FACEREC_NAMES__REQUEST_QUEUE", name)
    with pytest.raises(ConfigurationError, match="FACEREC_NAMES__REQUEST_QUEUE"):
        Settings.load()


def test_every_wrong_variable_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one error."""
    monkeypatch.setenv("FACEREC_WEB__PORT", "http")
    monkeypatch.setenv("FACEREC_ENGINE", "tensorflow")
    monkeypatch.setenv("FACEREC_WEB__PROT", "1")
    monkeypatch.setenv("FACEREC_COLOUR", "blue")
    with pytest.raises(ConfigurationError) as caught:
        Settings.load()
    text = str(caught.value)
    assert "FACEREC_WEB__PORT" in text
    assert "FACEREC_ENGINE" in text
    assert "FACEREC_WEB__PROT: there is no such setting; did you mean FACEREC_WEB__PORT?" in text
    assert "FACEREC_COLOUR: there is no such setting" in text
    assert len(text.splitlines()) == 5


def test_variable_in_lower_case_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pydantic would read it."""
    monkeypatch.setenv("facerec_web__port", "9000")
    with pytest.raises(ConfigurationError, match="did you mean FACEREC_WEB__PORT"):
        Settings.load()


def test_printed_settings_can_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are an environment file."""
    monkeypatch.setenv("FACEREC_MODEL__DIR", "/srv/my models")
    printed = CliRunner().invoke(command, []).output
    monkeypatch.delenv("FACEREC_MODEL__DIR")
    for word in shlex.split(printed, comments=True):
        monkeypatch.setenv(*word.split("=", 1))
    assert effective(Settings.load())["FACEREC_MODEL__DIR"] == "/srv/my models"


def test_printed_secrets_are_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    """As values they would set the mask as the password."""
    monkeypatch.setenv("FACEREC_FLOWER__PASSWORD", "correct horse")
    monkeypatch.setenv("FACEREC_AWS__ENDPOINT_URL", "http://user:hunter2@127.0.0.1:4566")
    monkeypatch.setenv("FACEREC_PREFIX", "staging")
    printed = CliRunner().invoke(command, []).output
    assert "correct horse" not in printed
    assert "hunter2" not in printed
    assert "# FACEREC_FLOWER__PASSWORD is set (not shown)\n" in printed
    assert "# FACEREC_AWS__ENDPOINT_URL is set (not shown)\n" in printed
    set_by_it = dict(word.split("=", 1) for word in shlex.split(printed, comments=True))
    assert set_by_it["FACEREC_PREFIX"] == "staging"
    assert not {"FACEREC_FLOWER__PASSWORD", "FACEREC_AWS__ENDPOINT_URL"} & set_by_it.keys()


def test_list_that_is_not_json_is_refused_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comma-separated, for example."""
    monkeypatch.setenv("FACEREC_INSTANCES__TYPES", "c7i.large,c7a.large")
    with pytest.raises(ConfigurationError, match="written as JSON"):
        Settings.load()


def test_wait_shorter_than_a_redelivery_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The contract's start-up check: wait > boot + visibility timeout + time limit."""
    monkeypatch.setenv("FACEREC_WEB__WAIT_SECONDS", "100")
    with pytest.raises(ConfigurationError, match="must exceed boot time"):
        Settings.load()


def test_visibility_timeout_within_the_task_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that runs longer than its message is hidden would run twice."""
    monkeypatch.setenv("FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS", "10")
    with pytest.raises(ConfigurationError, match="delivered twice"):
        Settings.load()


def test_changed_settings_are_checked_and_rename_the_resources() -> None:
    """Names follow the new prefix, and a wrong value is refused."""
    settings = Settings()
    assert settings.changed(prefix="other").request_queue == settings.request_queue.replace(settings.prefix, "other")
    with pytest.raises(ValidationError):
        settings.changed(prefix="NO")


def test_settings_are_frozen_all_the_way_down() -> None:
    """A running process cannot change them."""
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.web.port = 1  # type: ignore[misc]


def test_wrong_password_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be similar to the right one, and the journal keeps the output."""
    monkeypatch.setenv("FACEREC_FLOWER__PASSWORD", "hunter2")
    with pytest.raises(ConfigurationError, match="FACEREC_FLOWER__PASSWORD: needs at least 8 characters") as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)


def test_effective_settings_name_the_resources_and_mask_passwords() -> None:
    """As `facerec config` prints them."""
    settings = Settings(aws=AwsSettings(endpoint_url=AnyHttpUrl("http://user:hunter2@127.0.0.1:4566")))
    values = effective(settings)
    assert values["FACEREC_NAMES__INPUT_BUCKET"] == "facerec-in-bucket"
    assert "hunter2" not in str(values)
    assert set(values) == {name for name, _ in variables()}


def test_the_configuration_page_is_complete() -> None:
    """docs/configuration.md is what the command generates, with a meaning for every variable."""
    page = (ROOT / "docs/configuration.md").read_text()
    assert page == markdown()
    assert all(f"`{name}`" in page and field.description for name, field in variables())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"LOG_DAYS": "15"}, "CloudWatch keeps logs for 1, 3, 5"),
        ({"RESERVED_CONCURRENCY": "9", "MAX_CONCURRENCY": "10"}, "must not be below"),
        ({"IMAGE": f"facerec@sha256:{'0' * 64}", "CODE": "s3://releases/facerec.zip"}, "not both"),
        ({"INBOX_PREFIX": "inbox"}, "FACEREC_SERVERLESS__INBOX_PREFIX"),
    ],
)
def test_functions_that_aws_would_refuse_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], problem: str
) -> None:
    """Before a stack is made of them."""
    for name, value in changes.items():
        monkeypatch.setenv(f"FACEREC_SERVERLESS__{name}", value)
    with pytest.raises(WrongSettings, match=problem):
        Settings.load()


def test_wrong_setting_ends_the_command_with_one_message_and_status_1() -> None:
    """Without a traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "facerec.cli", "config"],
        env={"FACEREC_PREFIX": "No Spaces", "HOME": "/nonexistent"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith("facerec: wrong settings:\n  FACEREC_PREFIX:")
    assert "Traceback" not in run.stderr


def test_function_finds_a_hanging_picture_within_its_time() -> None:
    """The engine's deadline counts twice: for the batch, and for the picture alone. Then its restart follows."""
    for timeout in (10, 15, 60, 900):
        settings = Settings(serverless=ServerlessSettings(timeout_seconds=timeout)).of_function()
        limit = settings.worker.task_time_limit_seconds
        assert 2 <= limit <= min(20, (timeout - 4) / 2)
        assert settings.worker.engines == 1
