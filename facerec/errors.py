"""The exception tree, named by what the caller should do. It imports nothing.

Outcomes of a recognition (`NO_FACE`, `UNKNOWN`, `INVALID_IMAGE`) are results, not exceptions.
"""


class FacerecError(Exception):
    """The base of every error that facerec raises on purpose; its text is one sentence that says what to do."""


class ConfigurationError(FacerecError):
    """The operator must change a setting or create a resource; a process exits with it."""


class InvalidMessage(FacerecError):
    """A message that no retry makes readable; it belongs into the dead-letter queue."""


class ObjectMissing(FacerecError):
    """The named object is not (or no longer) in the store."""

    def __init__(self, bucket: str, key: str) -> None:
        super().__init__(f"there is no object {key!r} in bucket {bucket!r}")
        self.bucket = bucket
        self.key = key


class QueueMissing(FacerecError):
    """The named queue does not exist: its owner has left, or it was never created."""

    def __init__(self, queue: str) -> None:
        super().__init__(f"there is no queue {queue!r}; create it with `facerec provision`")
        self.queue = queue


class ApiKeyUnreadable(FacerecError):
    """The record of one API key is damaged, or of a later version; it says nothing of the others."""


class EngineFailure(FacerecError):
    """One image made the engine fail again when it was alone: the request is the culprit."""


class AlreadyEnrolled(FacerecError):
    """The very same photo is already a template of this collection."""

    def __init__(self, identity: str, template_id: str) -> None:
        super().__init__(f"this photo is already enrolled for {identity!r}")
        self.identity = identity
        self.template_id = template_id


class Transient(FacerecError):
    """A fault of the moment: retry later; the fleet holds its size meanwhile."""


class Throttled(Transient):
    """AWS asked us to slow down."""


class InsufficientCapacity(Transient):
    """AWS has no instance of this kind in this place right now."""


class LeaseLost(Transient):
    """Another controller has taken over; this one waits."""
