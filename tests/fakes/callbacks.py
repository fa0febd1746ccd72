"""Callbacks that go nowhere, but into a list."""

from facerec.errors import FacerecError


class FakeCallbackSender:
    """`Caller` that keeps what it sends; while `failure` is set each call raises it."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, str]] = []
        self.failure: FacerecError | None = None

    def send(self, url: str, body: bytes, secret: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.sent.append((url, body, secret))
