"""The replies of `POST /`: one line of plain text for each way an upload can end. Pure."""

import math
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from facerec.messages import Outcome, RecognitionResult
from facerec.text import megabytes, one_line
from facerec.web.admission import Refusal, RefusalCause

Style = Literal["sentence", "name"]

UNAVAILABLE_RETRY_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Reply:
    """The HTTP status, its line of text, and how the upload ended, for the log."""

    status: int
    text: str
    outcome: str
    retry_after_seconds: int | None = None


class Declined(Exception):
    """An upload that is answered without a worker, with its reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


def results_path(request_id: UUID) -> str:
    """Return the path at which the result of a request appears."""
    return f"/api/v1/results/{request_id}"


def recognised(result: RecognitionResult, style: Style) -> Reply:
    """Return the reply for a worker's result."""
    if result.outcome is Outcome.INVALID_IMAGE:
        return Reply(415, one_line(result.detail or "the file is not a picture that can be read"), result.outcome)
    if result.outcome is Outcome.FAILED:
        if result.retryable:
            text = f"{result.detail}; its request id is {result.request_id}"
        else:
            text = (
                "this picture could not be processed, and trying again will not help; "
                f"report it with its request id {result.request_id}"
            )
        return Reply(500, one_line(text), result.outcome)
    if style == "name":
        return Reply(200, one_line(f"{result.stem}:{result.result}"), result.outcome)
    sentence = {
        Outcome.MATCH: f"face detected - {result.result}",
        Outcome.UNKNOWN: "face not recognized",
        Outcome.NO_FACE: "no face detected",
        Outcome.DONE: "done",
        Outcome.REFUSED: result.detail or "refused",
    }[result.outcome]
    return Reply(200, one_line(f"{result.filename}: {sentence}"), result.outcome)


def no_file(field: str) -> Reply:
    """Reply that the form has no file under the field's name."""
    return Reply(400, f"there is no file in the multipart form field {field}: send the picture there", "no_file")


def unreadable_form(reason: str) -> Reply:
    """Reply that the body is not the form that its header announces."""
    return Reply(400, f"the form cannot be read ({reason}): send multipart/form-data", "unreadable_form")


def unreadable_json() -> Reply:
    """Reply that the body is no JSON."""
    return Reply(400, "the body is not JSON: send JSON with Content-Type application/json", "unreadable_form")


def empty_file() -> Reply:
    """Reply that the file has no bytes."""
    return Reply(400, "the file is empty: choose a picture and send it again", "empty_file")


def several_files() -> Reply:
    """Reply that there is more than one file."""
    return Reply(400, "there is more than one file: send one picture per request", "several_files")


def too_large(max_upload_bytes: int) -> Reply:
    """Reply that the upload is too large."""
    return Reply(
        413, f"the upload is too large: send one picture of at most {megabytes(max_upload_bytes)}", "too_large"
    )


def form_too_large(max_upload_bytes: int) -> Reply:
    """Reply that the form has too many parts or too much text, though the upload is not too large."""
    advice = f"send one picture of at most {megabytes(max_upload_bytes)}, as a file"
    return Reply(413, f"the form has too many parts or too much text: {advice}", "too_large")


def unsupported(reason: str) -> Reply:
    """Reply that the file is not a picture of a supported kind."""
    return Reply(415, one_line(reason), Outcome.INVALID_IMAGE)


def unavailable() -> Reply:
    """Reply that the store or the queue cannot be reached."""
    text = "uploads cannot be taken right now: send the picture again in a few seconds"
    return Reply(503, text, "unavailable", UNAVAILABLE_RETRY_SECONDS)


def refused(refusal: Refusal) -> Reply:
    """Reply that the upload was not admitted."""
    why = {
        RefusalCause.FULL: "too many uploads are waiting already",
        RefusalCause.SLOW: "more uploads are waiting than can be answered in time",
        RefusalCause.STOPPING: "this server is being stopped",
    }[refusal.cause]
    seconds = refusal.retry_after_seconds
    text = f"{why}: send the picture again in {seconds} second{'' if seconds == 1 else 's'}"
    return Reply(503, text, refusal.cause, seconds)


def late(request_id: UUID, wait_seconds: float) -> Reply:
    """Reply that no result came within the wait."""
    path = results_path(request_id)
    return Reply(504, f"there is no result after {math.ceil(wait_seconds)} s: look for it at {path}", "late")


def stopping(request_id: UUID) -> Reply:
    """Reply that the process stops before the result has come."""
    path = results_path(request_id)
    return Reply(504, f"this server is being stopped before the result has come: look for it at {path}", "interrupted")
