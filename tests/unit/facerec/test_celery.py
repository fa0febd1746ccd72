"""The Celery application: its configuration and its errors."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from facerec.celery import FacerecCelery, configuration
from facerec.messages import TASK_NAME
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings, QueueSettings

WRONG = {"FACEREC_NO_SUCH_THING": "1"}


def run(*arguments: str, cwd: Path | None = None, wrong: Mapping[str, str] = WRONG) -> subprocess.CompletedProcess[str]:
    """Run Python with settings that are refused, and with our packages importable."""
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


def test_configuration_loses_no_message() -> None:
    """A message is deleted only after its task has succeeded."""
    conf = configuration(Settings())
    assert conf["task_acks_late"] is True
    assert conf["task_acks_on_failure_or_timeout"] is False
    assert conf["task_reject_on_worker_lost"] is True
    assert conf["worker_prefetch_multiplier"] == 1
    assert conf["accept_content"] == ["json"]


def test_broker_url_has_no_credentials() -> None:
    """They come from boto3's chain; the endpoint is an option."""
    conf = configuration(Settings(aws=AwsSettings.model_validate({"endpoint_url": "http://127.0.0.1:4566"})))
    assert conf["broker_url"] == "sqs://"
    assert conf["broker_transport_options"]["endpoint_url"] == "http://127.0.0.1:4566"


def test_worker_polls_shortly() -> None:
    """It can drain or stop no sooner than its long poll ends."""
    settings = Settings(queue=QueueSettings(wait_time_seconds=20))
    assert configuration(settings)["broker_transport_options"]["wait_time_seconds"] == 1


def test_app_reads_the_settings_at_first_use() -> None:
    """Assigned settings count."""
    app = FacerecCelery("test", set_as_current=False)
    app.settings = Settings(prefix="other")
    assert app.conf.task_default_queue == "other-req-queue"
    assert app.conf.worker_pool == "threads"


def test_import_loads_no_engine_and_no_task() -> None:
    """It does not read the environment either."""
    program = "import sys, facerec.celery; print(sorted({'numpy', 'tasks', 'model'} & set(sys.modules)))"
    done = run("-c", program)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_works_with_wrong_settings(tmp_path: Path) -> None:
    """`celery -A facerec --help` from another folder."""
    done = run("-m", "celery", "-A", "facerec", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [("celery", "-A", "facerec", "worker"), ("facerec.cli", "worker")])
def test_wrong_settings_end_a_worker_with_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Both commands name the variable, print no traceback, and exit with 1."""
    done = run("-m", *command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "facerec: wrong settings:"
    assert "FACEREC_NO_SUCH_THING" in done.stderr
    assert "Traceback" not in done.stderr


def test_task_has_its_fixed_name() -> None:
    """Queued messages contain it."""
    from tasks.recognise import recognise  # noqa: PLC0415 - only this test needs the task

    assert recognise.name == TASK_NAME == "facerec.recognise"


def test_celery_flower_names_the_right_command() -> None:
    """It cannot read events from SQS."""
    done = run("-m", "celery", "-A", "facerec", "flower", "--port=0", wrong={})
    assert done.returncode == 1
    sentence = "facerec: Flower's own command cannot read events from SQS; run `facerec flower`"
    assert done.stderr.splitlines() == [sentence]
