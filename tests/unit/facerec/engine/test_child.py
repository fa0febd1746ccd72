"""What an engine child does between its batches."""

from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from facerec.engine.child import prepare_while_idle


def test_idle_child_takes_all_steps() -> None:
    """None is left for the next idle time."""
    ours, theirs = Pipe()
    with ours, theirs:
        steps = iter([None] * 3)
        prepare_while_idle(theirs, steps)
        assert list(steps) == []
        prepare_while_idle(theirs, steps)


def test_batch_interrupts_preparing() -> None:
    """It is answered before the next step."""
    ours, theirs = Pipe()
    with ours, theirs:
        taken = []

        def steps() -> Iterator[None]:
            for number in range(5):
                taken.append(number)
                if number == 1:
                    ours.send("a batch")
                yield

        remaining = steps()
        prepare_while_idle(theirs, remaining)
        assert taken == [0, 1]
        assert theirs.recv() == "a batch"
        prepare_while_idle(theirs, remaining)
        assert taken == [0, 1, 2, 3, 4]


def test_closed_pipe_interrupts_preparing() -> None:
    """The child ends without further steps."""
    ours, theirs = Pipe()
    with theirs:
        ours.close()
        steps = iter([None])
        prepare_while_idle(theirs, steps)
        assert list(steps) == [None]


def test_failed_step_ends_preparing(capfd: pytest.CaptureFixture[str]) -> None:
    """The child goes on and prints the traceback."""

    def steps() -> Iterator[None]:
        yield
        raise RuntimeError("no memory for this shape")

    ours, theirs = Pipe()
    with ours, theirs:
        prepare_while_idle(theirs, steps())
    assert "no memory for this shape" in capfd.readouterr().err
