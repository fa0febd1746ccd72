"""A clock that the test puts forward."""


class Clock:
    """`now` is what a call returns, in seconds."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
