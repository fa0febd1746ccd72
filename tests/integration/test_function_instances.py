"""Functions under AWS's own Runtime Interface Emulator: answers, errors, timeouts and crashes."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from facerec.local.functions.instance import Failure, Function, FunctionFailed
from facerec.local.functions.pool import FunctionBusy, FunctionPool
from facerec.processes.addresses import poll_until
from tests.support.processes import alive

FUNCTION = Function(
    name="face-test",
    argv=(sys.executable, "-m", "awslambdaric", "tests.support.lambda_handlers.handler"),
    environ=dict(os.environ),
    memory_mb=512,
    timeout_seconds=30,  # the machine may be busy
)


def event(**fields: Any) -> bytes:
    """An event for the handler of the tests."""
    return json.dumps(fields).encode()


EMULATOR_THAT_ANSWERS_NOTHING = f"""#!{sys.executable}
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

host, _, port = sys.argv[sys.argv.index("--runtime-interface-emulator-address") + 1].partition(":")
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


@pytest.fixture
def pool_of(runtime_emulator: Path, tmp_path: Path) -> Iterator[Callable[..., FunctionPool]]:
    """Makes pools of a number of instances, and ends them."""
    made: list[FunctionPool] = []

    def make(size: int, function: Function = FUNCTION) -> FunctionPool:
        made.append(FunctionPool(function, size, runtime_emulator, tmp_path))
        return made[-1]

    yield make
    for pool in made:
        pids = pool.pids
        pool.stop()
        assert not any(map(alive, pids))


def test_instance_has_the_environment_of_lambda(pool_of: Callable[..., FunctionPool]) -> None:
    """The function finds its name, its memory and the time that is left."""
    pool = pool_of(1)
    variables = json.loads(pool.invoke(event(do="environ")))
    assert variables["AWS_LAMBDA_FUNCTION_NAME"] == "face-test"
    assert variables["AWS_LAMBDA_FUNCTION_MEMORY_SIZE"] == "512"
    assert variables["_HANDLER"] == "tests.support.lambda_handlers.handler"
    context = json.loads(pool.invoke(event(do="context")))
    assert context["name"] == "face-test"
    assert 0 < context["left"] <= 30_000


def test_failed_invocation_leaves_the_function_usable(pool_of: Callable[..., FunctionPool], tmp_path: Path) -> None:
    """An error, a crash, a kill and an answer that is too large are told apart from an answer."""
    pool = pool_of(1)

    def failure(**fields: Any) -> Failure:
        with pytest.raises(FunctionFailed) as raised:
            pool.invoke(event(**fields))
        assert json.loads(pool.invoke(event(do="fine"))) == "fine"
        return raised.value.failure

    assert failure(do="raise") is Failure.ERROR
    assert failure(do="crash") is Failure.CRASH
    assert failure(do="large") is Failure.ERROR
    note = tmp_path / "note"
    killer = threading.Thread(target=lambda: kill_when_noted(note))
    killer.start()
    assert failure(do="sleep", note=str(note)) is Failure.CRASH
    killer.join()


def test_timeout_leaves_the_function_usable(pool_of: Callable[..., FunctionPool]) -> None:
    """The next invocations, whose time has to last for the start of the function, find a new one."""
    pool = pool_of(1, replace(FUNCTION, timeout_seconds=3))

    def outcome(do: str) -> object:
        try:
            return json.loads(pool.invoke(event(do=do)))
        except FunctionFailed as exc:
            return exc.failure

    assert outcome("sleep") is Failure.TIMEOUT
    assert poll_until(lambda: outcome("fine") == "fine", 60)


def kill_when_noted(note: Path) -> None:
    """Kill the function that has begun to work."""
    assert poll_until(lambda: note.exists() and note.read_text().endswith("\n"), 30)
    os.kill(json.loads(note.read_text())[0], signal.SIGKILL)


def test_pool_replaces_an_instance_that_died(pool_of: Callable[..., FunctionPool]) -> None:
    """The emulator itself was killed."""
    pool = pool_of(1)
    assert json.loads(pool.invoke(event(do="fine"))) == "fine"
    [(_, first)] = pool._idle
    os.kill(first.pid, signal.SIGKILL)
    assert poll_until(lambda: not first.running, 5)
    assert json.loads(pool.invoke(event(do="fine"))) == "fine"
    assert pool.pids != [first.pid]


def test_pool_tries_again_after_an_instance_could_not_be_started(
    pool_of: Callable[..., FunctionPool], tmp_path: Path
) -> None:
    """For example on a full disk: the event has not been seen, and the instance is not lost."""
    pool = pool_of(1)
    log = tmp_path / "face-test-1.log"
    log.mkdir()
    with pytest.raises(FunctionFailed) as raised:
        pool.invoke(event(do="fine"))
    assert not raised.value.began
    log.rmdir()
    assert json.loads(pool.invoke(event(do="fine"))) == "fine"


def test_pool_runs_as_many_invocations_as_it_has_instances(
    pool_of: Callable[..., FunctionPool], tmp_path: Path
) -> None:
    """The next one waits, and is refused when its time is over; a stop ends those that run."""
    pool = pool_of(2)
    note, failures = tmp_path / "note", []

    def invoke() -> None:
        try:
            pool.invoke(event(do="sleep", note=str(note), seconds=60))
        except FunctionFailed as exc:
            failures.append(exc.failure)

    threads = [threading.Thread(target=invoke) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert poll_until(lambda: note.exists() and len(note.read_text().splitlines()) == 2, 30)
    assert len({json.loads(line)[0] for line in note.read_text().splitlines()}) == 2
    with pytest.raises(FunctionBusy):
        pool.invoke(event(do="fine"), wait_seconds=0)
    pool.stop()
    for thread in threads:
        thread.join(30)
    assert failures == [Failure.CRASH] * 2


def test_empty_answer_is_a_crash(tmp_path: Path) -> None:
    """As AWS's emulator now and then sends one when it is ended during an invocation; a function answers in JSON."""
    emulator = tmp_path / "emulator"
    emulator.write_text(EMULATOR_THAT_ANSWERS_NOTHING)
    emulator.chmod(0o700)
    pool = FunctionPool(FUNCTION, 1, emulator, tmp_path)
    try:
        with pytest.raises(FunctionFailed) as raised:
            pool.invoke(event(do="fine"))
    finally:
        pool.stop()
    assert raised.value.failure is Failure.CRASH
