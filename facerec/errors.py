"""The exceptions, by what the caller should do.

Outcomes of a recognition (`NO_FACE`, `UNKNOWN`, `INVALID_IMAGE`) are results, not exceptions.
"""

from typing import ClassVar


class FacerecError(Exception):
    """The base class; the text of each error is one sentence that says what to do."""

    several_lines: ClassVar[bool] = False
    """Whether line breaks of the text are ours; those of a file name that it quotes are not."""


class ConfigurationError(FacerecError):
    """The operator must change a setting or create a resource; the process exits."""


class WrongSettings(ConfigurationError):
    """Settings are unknown or wrong; the text has a line for each."""

    several_lines = True


class InvalidMessage(FacerecError):
    """The message cannot be read; it goes to the dead-letter queue."""


class Refused(FacerecError):
    """AWS refuses this one message or object, such as one that is too large; others are not affected."""


class ObjectMissing(FacerecError):
    """The object is not, or no longer, in the store."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"there is no object {key!r} in bucket {bucket!r}")
        self.bucket = bucket
        self.key = key


class QueueMissing(FacerecError):
    """The queue does not exist: its web process has left, or it was never created."""

    def __init__(self, queue: str) -> None:
        super().__init__(f"there is no queue {queue!r}; create it with `facerec provision`")
        self.queue = queue


class ApiKeyUnreadable(FacerecError):
    """The record of this API key is damaged or of a later version; other keys are not affected."""


class OtherModel(FacerecError):
    """The faces were detected for another model, as while models are exchanged; they cannot be compared."""

    def __init__(self, theirs: str, ours: str) -> None:
        super().__init__(f"the faces were detected for model {theirs!r}, and this is {ours!r}; upload the photo again")


class EngineFailure(FacerecError):
    """One image made the engine fail twice, the second time alone: the request is the culprit."""


class AlreadyEnrolled(FacerecError):
    """The same photo is already a template of this collection."""

    def __init__(self, identity: str, template_id: str) -> None:
        super().__init__(f"this photo is already enrolled for {identity!r}")
        self.identity = identity
        self.template_id = template_id


class Transient(FacerecError):
    """A fault that passes: retry later; the fleet keeps its size until then."""


class Throttled(Transient):
    """AWS throttles our calls."""


class InsufficientCapacity(Transient):
    """AWS has no instance of this type in this zone at the moment."""


class LeaseLost(Transient):
    """Another process holds the lease; this one waits."""
