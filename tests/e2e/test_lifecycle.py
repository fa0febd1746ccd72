"""Processes are stopped, killed and restarted while clients wait, and lose nothing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import boto3
import httpx
import pytest

from facerec.processes.addresses import poll_until
from tests.support.emulated import EmulatedAws, environ_of
from tests.support.load import Reply, Upload, upload_all
from tests.support.pictures import PORTRAIT
from tests.support.processes import CHECKOUT, Command


def command(*arguments: str, environ: dict[str, str], cwd: Path = CHECKOUT) -> Command:
    """One of our modules as a command."""
    return Command([sys.executable, "-m", *arguments], environ, cwd=cwd, merged=True)


@pytest.fixture
def environ(emulator: EmulatedAws, artefact_dir: Path) -> dict[str, str]:
    """The environment of a fresh set of resources, with the real model, and one engine a worker."""
    fresh = emulator.fresh()
    return environ_of(fresh, emulator.environ) | {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/"),
        "FACEREC_MODEL__DIR": str(artefact_dir),
        "FACEREC_MODEL__CACHE_DIR": str(artefact_dir.parent / "downloads"),
        "FACEREC_WEB__PORT": "0",
        "FACEREC_WORKER__ENGINES": "1",
        "FACEREC_LOG__FORMAT": "json",
    }


@contextmanager
def web_tier(environ: dict[str, str]) -> Iterator[tuple[Command, str]]:
    """A web process and its address."""
    with command("facerec.cli", "web", environ=environ) as web:
        yield web, _address(web)


def _address(web: Command) -> str:
    return web.wait_for("listens on http").split()[-1] + "/"


def worker(environ: dict[str, str], name: str = "w1") -> Command:
    """A worker as an operator starts it by hand."""
    return command("celery", "-A", "facerec", "worker", "-n", f"{name}@%h", environ=environ)


def upload_in_background(url: str, count: int) -> Future[list[Reply]]:
    """Start `count` clients at once."""
    pool = ThreadPoolExecutor(1)
    uploads = [Upload(f"{i}.jpg", PORTRAIT.read_bytes()) for i in range(count)]
    replies = pool.submit(upload_all, url, uploads, count, 120)
    pool.shutdown(wait=False)
    return replies


def test_worker_stopped_in_the_middle_loses_nothing(environ: dict[str, str]) -> None:
    """On SIGTERM the worker finishes its tasks and leaves the rest to the next worker. Celery starts both by hand."""
    with web_tier(environ) as (_, url), worker(environ) as first:
        first.wait_for("ready.")
        replies = upload_in_background(url, 40)
        first.wait_for('"recognised"', count=3)
        assert first.stop() == 0
        done = first.output.count('"event": "recognised"')
        assert done < 40, "it was to be stopped in the middle"
        with worker(environ, "w2") as second:
            answers = replies.result()
            assert second.stop() == 0
        assert [(reply.status, reply.text.strip()) for reply in answers] == [
            (200, f"{i}.jpg: face not recognized") for i in range(40)
        ]
        assert "Traceback" not in first.output + second.output


def test_stopped_web_process_answers_or_keeps_every_upload(environ: dict[str, str]) -> None:
    """A client without an answer finds the result under its request id, also after a restart."""
    accepted: list[str] = []
    with web_tier(environ | {"FACEREC_WEB__SHUTDOWN_SECONDS": "1"}) as (web, url):
        # No worker runs yet, so that all are still waiting when the signal comes.
        with ThreadPoolExecutor(10) as pool:
            waiting = [
                pool.submit(
                    httpx.post,
                    url,
                    files={"inputFile": ("me.jpg", PORTRAIT.read_bytes())},
                    timeout=60,
                    trust_env=False,
                )
                for _ in range(10)
            ]
            _await_depth(environ, 10)
            assert web.stop() == 0
        for future in waiting:
            reply = future.result()
            assert reply.status_code in {503, 504}
            assert reply.headers["x-request-id"] in reply.text, "it says where the result will be"
            accepted.append(reply.headers["x-request-id"])
        assert "Traceback" not in web.output
    with web_tier(environ) as (_, url), worker(environ) as late:
        late.wait_for('"recognised"', count=10)
        for request_id in accepted:
            assert httpx.get(f"{url}api/v1/results/{request_id}", trust_env=False).json()["outcome"] == "unknown"


def _await_depth(environ: dict[str, str], messages: int, seconds: float = 30) -> None:
    """Wait until the request queue holds this many messages."""
    sqs = boto3.client(
        "sqs", endpoint_url=environ["FACEREC_AWS__ENDPOINT_URL"], region_name=environ["FACEREC_AWS__REGION"]
    )
    url = sqs.get_queue_url(QueueName=f"{environ['FACEREC_PREFIX']}-req-queue")["QueueUrl"]

    def depth() -> int:
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    assert poll_until(lambda: depth() >= messages, seconds)


def test_built_wheel_serves_from_another_folder(
    environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The wheel holds everything that a worker and the web tier need, such as page templates and graphs."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Built from a copy: setuptools leaves a build folder beside its sources, and would take up an older one.
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for name in filter(None, tracked.stdout.split("\0")):
        (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, folder / "source" / name)
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"], check=True)
    [wheel] = folder.glob("facerec-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", str(wheel)], check=True)
    installed = environ | {"PYTHONPATH": str(folder / "site"), "PYTHONSAFEPATH": "1"}
    where = subprocess.run(
        [sys.executable, "-c", "import facerec, tasks, model; print(facerec.__file__, tasks.__file__, model.__file__)"],
        env=installed,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(path.startswith(str(folder)) for path in where.stdout.split())
    with (
        command("celery", "-A", "facerec", "worker", environ=installed, cwd=folder) as hand,
        command("facerec.cli", "web", environ=installed, cwd=folder) as web,
    ):
        url = _address(web)
        hand.wait_for("ready.")
        assert "inputFile" in httpx.get(url, trust_env=False).text
        assert upload_in_background(url, 1).result()[0].text.strip() == "0.jpg: face not recognized"
