"""The Celery application: lazy, sound in its delivery settings, and plain about what is wrong."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from facerec.celery import FacerecCelery, configuration
from facerec.messages import TASK_NAME
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings
from facerec.settings.tiers import WorkerSettings

WRONG = {"FACEREC_NO_SUCH_THING": "1"}


def run(*arguments: str, cwd: Path | None = None, wrong: Mapping[str, str] = WRONG) -> subprocess.CompletedProcess[str]:
    """Run Python with settings that are refused, and our packages as if they were installed."""
    path = os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | dict(wrong) | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_loses_nothing_by_configuration() -> None:
    """A message is deleted only after its task has ended well."""
    conf = configuration(Settings())
    assert conf["task_acks_late"] is True
    assert conf["task_acks_on_failure_or_timeout"] is False
    assert conf["task_reject_on_worker_lost"] is True
    assert conf["worker_prefetch_multiplier"] == 1
    assert conf["accept_content"] == ["json"]


def test_no_credentials_in_the_broker_url() -> None:
    """Credentials come from boto3's chain; the endpoint is an option."""
    conf = configuration(Settings(aws=AwsSettings.model_validate({"endpoint_url": "http://127.0.0.1:4566"})))
    assert conf["broker_url"] == "sqs://"
    assert conf["broker_transport_options"]["endpoint_url"] == "http://127.0.0.1:4566"


def test_the_worker_of_an_instance_polls_shortly() -> None:
    """It can drain no sooner than its long poll ends."""
    waits = [
        configuration(Settings(worker=worker))["broker_transport_options"]["wait_time_seconds"]
        for worker in (WorkerSettings(), WorkerSettings(instance_id="i-1"))
    ]
    assert waits == [10, 1]


def test_configures_itself_from_the_settings_at_first_use() -> None:
    """The settings that were assigned are those that count."""
    app = FacerecCelery("test", set_as_current=False)
    app.settings = Settings(prefix="other")
    assert app.conf.task_default_queue == "other-req-queue"
    assert app.conf.worker_pool == "threads"


def test_importing_it_is_light() -> None:
    """The web tier gets no engine and no task with it, and the environment is not read yet."""
    program = "import sys, facerec.celery; print(sorted({'numpy', 'tasks', 'model'} & set(sys.modules)))"
    done = run("-c", program)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_works_without_settings(tmp_path: Path) -> None:
    """`celery -A facerec --help` from another folder, with settings that would be refused."""
    done = run("-m", "celery", "-A", "facerec", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [("celery", "-A", "facerec", "worker"), ("facerec.cli", "worker")])
def test_wrong_settings_are_told_plainly(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Both ways to start a worker name the variable, without a traceback, and exit with 1."""
    done = run("-m", *command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "facerec: wrong settings:"
    assert "FACEREC_NO_SUCH_THING" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_task_has_its_lasting_name() -> None:
    """Queued messages name it; moving its module must not orphan them."""
    from tasks.recognise import recognise  # noqa: PLC0415 - only this test needs the task

    assert recognise.name == TASK_NAME == "facerec.recognise"


def test_flowers_own_command_says_what_to_run() -> None:
    """It would show nothing, for it reads Celery's own events."""
    done = run("-m", "celery", "-A", "facerec", "flower", "--port=0", wrong={})
    assert done.returncode == 1
    sentence = "facerec: Flower's own command cannot read events from SQS; run `facerec flower`"
    assert done.stderr.splitlines() == [sentence]
