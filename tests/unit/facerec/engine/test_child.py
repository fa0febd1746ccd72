"""What an engine child does between its batches."""

from collections.abc import Iterator
from multiprocessing import Pipe

import pytest

from facerec.engine.child import prepare_while_idle


def test_an_idle_child_prepares_everything() -> None:
    """Nobody asks, so all steps are taken, and none is left for the next pause."""
    ours, theirs = Pipe()
    with ours, theirs:
        steps = iter([None] * 3)
        prepare_while_idle(theirs, steps)
        assert list(steps) == []
        prepare_while_idle(theirs, steps)


def test_a_batch_interrupts_preparing() -> None:
    """What is asked for while a step is taken comes before the next step."""
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


def test_the_end_of_the_pipe_interrupts_preparing() -> None:
    """A child that is let go does not stay to prepare what nobody will ask for."""
    ours, theirs = Pipe()
    with theirs:
        ours.close()
        steps = iter([None])
        prepare_while_idle(theirs, steps)
        assert list(steps) == [None]


def test_a_step_that_fails_ends_preparing_alone(capfd: pytest.CaptureFixture[str]) -> None:
    """The child stays, and says what happened."""

    def steps() -> Iterator[None]:
        yield
        raise RuntimeError("no memory for this shape")

    ours, theirs = Pipe()
    with ours, theirs:
        prepare_while_idle(theirs, steps())
    assert "no memory for this shape" in capfd.readouterr().err
