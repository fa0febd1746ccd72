"""`POST /`: every line of the contract, answered through fakes."""

import json
import logging
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from facerec.api_keys import Scope, issue
from facerec.errors import ConfigurationError, FacerecError, QueueMissing, Transient
from facerec.messages import NO_FACE, UNKNOWN, Outcome, RecognitionRequest, RecognitionResult
from facerec.settings import Settings
from facerec.settings.resources import QueueSettings
from facerec.settings.tiers import AutoscaleSettings, WebSettings, WorkerSettings
from facerec.web.forms import FORM_OVERHEAD_BYTES
from model.header import read_header
from tests.fakes.api_keys import InMemoryApiKeys
from tests.fakes.web_tier import FakeWebTier, answers, picture, result_for, running, together, upload
from tests.support.logs import capture_logs

LIMIT = 200_000


def settings(**web: Any) -> Settings:
    """Settings with a small upload limit."""
    return Settings(web=WebSettings(max_upload_bytes=LIMIT, **web))


def impatient() -> Settings:
    """Settings with the shortest wait that the check of the timings lets pass."""
    return Settings(
        web=WebSettings(wait_seconds=1.05),
        queue=QueueSettings(visibility_timeout_seconds=1),
        worker=WorkerSettings(task_time_limit_seconds=0.01),
        autoscale=AutoscaleSettings(boot_prior_seconds=0.01),
    )


def raw(client: FlaskClient, *parts: bytes) -> TestResponse:
    """Send a multipart body as written."""
    body = b"".join(b"--X\r\n" + part + b"\r\n" for part in parts) + b"--X--\r\n"
    return client.post("/", data=body, content_type="multipart/form-data; boundary=X")


def plain(response: TestResponse) -> str:
    """The one line of a plain-text reply."""
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.text
    assert len(response.text.splitlines()) == 1
    return response.text


@pytest.mark.parametrize(
    ("name", "sentence", "short"),
    [
        ("John Doe", "image_01.jpg: face detected - John Doe", "image_01:John Doe"),
        (UNKNOWN, "image_01.jpg: face not recognized", "image_01:Unknown"),
        (NO_FACE, "image_01.jpg: no face detected", "image_01:No-Face"),
    ],
)
def test_reply_states_the_result(name: str, sentence: str, short: str) -> None:
    """In the style of the setting."""
    for style, expected in (("sentence", sentence), ("name", short)):
        chosen = Settings(reply_style=style)
        with running(FakeWebTier(chosen, answers(name))) as tier:
            response = upload(tier.app.test_client())
        assert response.status_code == 200
        assert plain(response) == expected


def test_task_names_the_stored_picture() -> None:
    """It has exactly the bytes that were sent, under the request's id."""
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        body = picture("PNG")
        response = upload(tier.app.test_client(), body, "dir/pic ture.png")
    (request,) = tier.tasks.requests
    assert request.input.bucket == "facerec-in-bucket"
    assert request.input.key == f"{request.request_id}/pic ture.png"
    assert request.input.size == len(body)
    assert tier.store.get(request.input.bucket, request.input.key) == body
    assert tier.store.content_type(request.input.bucket, request.input.key) == "image/png"
    assert request.filename == "pic ture.png"
    assert request.reply_to == "facerec-resp-queue"
    assert response.headers["X-Request-Id"] == str(request.request_id)
    assert tier.store.keys("facerec-in-bucket") == [request.input.key]


def test_key_style_filename_adds_a_copy() -> None:
    """For runs that expect the uploads under their own names."""
    with running(FakeWebTier(Settings(key_style="filename"), answers("Jane"))) as tier:
        body = picture()
        upload(tier.app.test_client(), body)
    assert tier.store.get("facerec-in-bucket", "image_01.jpg") == body
    assert len(tier.store.keys("facerec-in-bucket")) == 2


@pytest.mark.parametrize(
    ("disposition", "echoed"),
    [
        (b'filename="plain.jpg"', "plain.jpg"),
        (b'filename="../../etc/x.jpg"', "x.jpg"),
        (b'filename="C:\\\\me\\\\x.jpg"', "x.jpg"),
        ('filename="grinning 😀.jpg"'.encode(), "grinning 😀.jpg"),
        (b"filename*=UTF-8''na%C3%AFve%0d%0aX-Evil%3A%20yes.jpg", "naïveX-Evil: yes.jpg"),
        (b'filename="a%0Ab.jpg"', "a%0Ab.jpg"),
        (b'filename="say %22cheese%22.jpg"', 'say "cheese".jpg'),
        (b'filename="' + b"x" * 60_000 + b'.jpg"', "x" * 251 + ".jpg"),
        (b'filename=""', "upload"),
        (b"filename*=UTF-8''", "upload"),
    ],
)
def test_file_name_is_echoed_as_it_was_sent(disposition: bytes, echoed: str) -> None:
    """Its last path part, without control characters; never in a header."""
    with running(FakeWebTier(answer=answers(UNKNOWN))) as tier:
        part = b'Content-Disposition: form-data; name="inputFile"; ' + disposition + b"\r\n\r\n" + picture()
        response = raw(tier.app.test_client(), part)
    assert plain(response) == f"{echoed}: face not recognized"
    assert "X-Evil" not in response.headers
    assert tier.tasks.requests[0].filename == echoed


def part(name: str, filename: str, body: bytes = b"", end: bytes = b"\r\n") -> bytes:
    """A part of a form; `filename` is the parameter as written."""
    disposition = f'Content-Disposition: form-data; name="{name}"; {filename}'.encode()
    return disposition + end + b"Content-Type: application/octet-stream" + end * 2 + body


LEFT_EMPTY = (
    'filename=""',
    "filename=",
    "filename*=UTF-8''",
    "filename*=utf-8'en'",
    "filename=\"\"; filename*=UTF-8''",
    'FILENAME=""',
)
"""What programs send as the file name of an input that was left empty."""


@pytest.mark.parametrize("filename", LEFT_EMPTY)
@pytest.mark.parametrize("field", ["inputFile", "second"])
def test_file_input_that_was_left_empty_is_no_file(field: str, filename: str) -> None:
    """Before the picture, behind it, several times, and under the picture's own name."""
    picked, empty = part("inputFile", 'filename="a.jpg"', picture()), part(field, filename)
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        client = tier.app.test_client()
        for parts in ([picked, empty], [empty, picked], [empty, picked, empty, empty]):
            assert plain(raw(client, *parts)) == "a.jpg: face detected - Jane"
        nothing = raw(client, empty, empty)
    assert (nothing.status_code, plain(nothing)) == (400, NO_FILE)
    assert [tier.store.get(task.input.bucket, task.input.key) for task in tier.tasks.requests] == [picture()] * 3


def test_form_may_have_hundreds_of_fields() -> None:
    """A web application's page has many optional inputs, and its browser sends them all."""
    fields = [b'Content-Disposition: form-data; name="note"\r\n\r\nx', part("second", 'filename=""')] * 200
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        reply = raw(tier.app.test_client(), *fields, part("inputFile", 'filename="a.jpg"', picture()))
    assert plain(reply) == "a.jpg: face detected - Jane"


def test_file_input_that_was_left_empty_is_no_file_with_any_line_ends() -> None:
    """Some programs write part heads with a bare LF."""
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        parts = [part("inputFile", 'filename="a.jpg"', picture(), b"\n"), part("second", 'filename=""', end=b"\n")]
        assert plain(raw(tier.app.test_client(), *parts)) == "a.jpg: face detected - Jane"


PICKED = 'filename="a.jpg"'
NO_FILE = "there is no file in the multipart form field inputFile: send the picture there"
EMPTY_FILE = "the file is empty: choose a picture and send it again"
SEVERAL = "there is more than one file: send one picture per request"


@pytest.mark.parametrize(
    ("parts", "reply"),
    [
        ([("inputFile", 'filename=""', b"")], NO_FILE),
        ([("inputFile", 'filename=""', b""), ("second", PICKED, b"x")], NO_FILE),
        ([("second", PICKED, b"x")], NO_FILE),
        ([("second", PICKED, b"x"), ("third", PICKED, b"x")], NO_FILE),
        ([("inputFile", PICKED, b"")], EMPTY_FILE),
        ([("inputFile", PICKED, b""), ("second", 'filename=""', b"")], EMPTY_FILE),
        ([("inputFile", PICKED, b"x"), ("second", PICKED, b"")], SEVERAL),
        ([("inputFile", PICKED, b"x"), ("second", 'filename=""', b"x")], SEVERAL),
        ([("inputFile", PICKED, b"x"), ("inputFile", "filename*=UTF-8''", b"x")], SEVERAL),
        ([("inputFile", 'filename=""', b"x"), ("inputFile", PICKED, b"x")], SEVERAL),
    ],
)
def test_reply_says_what_is_wrong_with_the_files_of_a_form(parts: list[tuple[str, str, bytes]], reply: str) -> None:
    """A part with a file name or with bytes is a file."""
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        response = raw(tier.app.test_client(), *[part(*one) for one in parts])
    assert (response.status_code, plain(response)) == (400, reply)
    assert not tier.tasks.requests


def no_form(client: FlaskClient) -> TestResponse:
    """A bare picture instead of a form."""
    return client.post("/", data=picture(), content_type="image/jpeg")


def other_field(client: FlaskClient) -> TestResponse:
    """The file under another name."""
    return client.post("/", data={"file": (BytesIO(picture()), "a.jpg")})


def text_field(client: FlaskClient) -> TestResponse:
    """Text under the right name."""
    return client.post("/", data={"inputFile": "a.jpg"}, content_type="multipart/form-data")


def urlencoded(client: FlaskClient) -> TestResponse:
    """A form of the other kind."""
    return client.post("/", data={"inputFile": "a.jpg"})


def empty(client: FlaskClient) -> TestResponse:
    """A file without bytes."""
    return upload(client, b"")


def two_files(client: FlaskClient) -> TestResponse:
    """Two files under the field's name."""
    files = [(BytesIO(picture()), "a.jpg"), (BytesIO(picture()), "b.jpg")]
    return client.post("/", data={"inputFile": files})


def file_beside(client: FlaskClient) -> TestResponse:
    """A second file under another name."""
    return client.post("/", data={"inputFile": (BytesIO(picture()), "a.jpg"), "more": (BytesIO(picture()), "b.jpg")})


def cut_off(client: FlaskClient) -> TestResponse:
    """A form that ends in the middle of a part."""
    body = b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="a.jpg"\r\n\r\n' + picture()
    return client.post("/", data=body, content_type="multipart/form-data; boundary=X")


def no_boundary(client: FlaskClient) -> TestResponse:
    """A form whose header does not say how its parts are parted."""
    return client.post("/", data=b"abc", content_type="multipart/form-data")


def foreign_name(client: FlaskClient) -> TestResponse:
    """A file name in Latin-1."""
    return raw(client, b'Content-Disposition: form-data; name="inputFile"; filename="Jos\xe9.jpg"\r\n\r\n' + picture())


def large_file(client: FlaskClient) -> TestResponse:
    """A file of one byte too many."""
    return upload(client, picture() + b"\0" * (LIMIT + 1 - len(picture())))


def large_body(client: FlaskClient) -> TestResponse:
    """A body that is larger than any form around an allowed file."""
    return upload(client, b"\0" * (LIMIT + 2 * FORM_OVERHEAD_BYTES))


def endless_body(client: FlaskClient) -> TestResponse:
    """A large body whose length is not announced."""
    parts = b'--X\r\nContent-Disposition: form-data; name="inputFile"; filename="a.jpg"\r\n\r\n' + b"\0" * 2 * LIMIT
    return client.post(
        "/",
        input_stream=BytesIO(parts),
        content_type="multipart/form-data; boundary=X",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )


def many_parts(client: FlaskClient) -> TestResponse:
    """A form of more than a thousand fields."""
    return raw(client, *[b'Content-Disposition: form-data; name="x"\r\n\r\ny'] * 1001)


def text_file(client: FlaskClient) -> TestResponse:
    """A text with the name of a picture."""
    return upload(client, b"this is no picture")


def animation(client: FlaskClient) -> TestResponse:
    """A GIF."""
    return upload(client, picture("GIF"))


def huge(client: FlaskClient) -> TestResponse:
    """A picture of 51 megapixels, of which only the header is looked at."""
    body = bytearray(picture("PNG"))
    body[16:24] = (10_200).to_bytes(4) + (5_000).to_bytes(4)
    body[29:33] = zlib.crc32(body[12:29]).to_bytes(4)
    return upload(client, bytes(body))


@pytest.mark.parametrize(
    ("send", "status", "advice"),
    [
        (no_form, 400, "multipart form field inputFile"),
        (other_field, 400, "multipart form field inputFile"),
        (text_field, 400, "multipart form field inputFile"),
        (urlencoded, 400, "multipart form field inputFile"),
        (empty, 400, "empty"),
        (two_files, 400, "one picture per request"),
        (file_beside, 400, "one picture per request"),
        (cut_off, 400, "damaged or incomplete"),
        (no_boundary, 400, "damaged or incomplete"),
        (foreign_name, 400, "not UTF-8"),
        (large_file, 413, "at most 0.2 MB"),
        (large_body, 413, "at most 0.2 MB"),
        (endless_body, 413, "at most 0.2 MB"),
        (many_parts, 413, "too many parts or too much text: send one picture of at most 0.2 MB"),
        (text_file, 415, "send a JPEG, PNG"),
        (animation, 415, "GIF"),
        (huge, 415, "51.0 megapixels"),
    ],
)
def test_bad_input_gets_its_status_and_one_sentence(
    send: Callable[[FlaskClient], TestResponse], status: int, advice: str
) -> None:
    """Bad input gets its status and one sentence."""
    with running(FakeWebTier(settings(), answers("Jane"))) as tier:
        client = tier.app.test_client()
        response = send(client)
        assert response.status_code == status
        assert advice in plain(response)
        assert tier.tasks.requests == []
        assert upload(client).status_code == 200
    assert tier.admission.waiting == 0
    assert tier.waiters.count == 0


def test_picture_of_an_allowed_size_in_a_text_field_is_not_called_too_large() -> None:
    """Its part has no file name, so it is text."""
    response = raw(FakeWebTier().app.test_client(), part("inputFile", "filename=", picture() + bytes(300_000)))
    assert response.status_code == 413
    assert plain(response) == (
        "the form has too many parts or too much text: send one picture of at most 15 MB, as a file"
    )


def test_file_of_exactly_the_limit_is_accepted() -> None:
    """The form around it does not count."""
    with running(FakeWebTier(settings(), answers("Jane"))) as tier:
        body = picture() + b"\0" * (LIMIT - len(picture()))
        assert upload(tier.app.test_client(), body, "x" * 300 + ".jpg").status_code == 200


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_pictures_of_every_supported_format_are_accepted(form: str) -> None:
    """Whatever their file names say."""
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        assert upload(tier.app.test_client(), picture(form), "noextension").status_code == 200


def test_picture_that_the_worker_cannot_decode_is_415() -> None:
    """The worker's reason is the reply."""

    def refuse(request: RecognitionRequest) -> RecognitionResult:
        return result_for(request, "", outcome=Outcome.INVALID_IMAGE, detail="the picture is cut off: send it again")

    with running(FakeWebTier(answer=refuse)) as tier:
        response = upload(tier.app.test_client())
    assert response.status_code == 415
    assert plain(response) == "the picture is cut off: send it again"


def test_picture_that_cannot_be_processed_is_500_with_its_id() -> None:
    """One sentence, without a stack trace."""

    def fail(request: RecognitionRequest) -> RecognitionResult:
        return result_for(request, "", outcome=Outcome.FAILED, detail="Segmentation fault in libfoo")

    with running(FakeWebTier(answer=fail)) as tier:
        response = upload(tier.app.test_client())
    assert response.status_code == 500
    assert str(tier.tasks.requests[0].request_id) in plain(response)
    assert "trying again will not help" in plain(response)
    assert "libfoo" not in response.text


def test_retryable_failure_replies_with_the_detail() -> None:
    """The worker's sentence says what to do."""
    detail = "the picture could not be processed for now; try it later"

    def fail(request: RecognitionRequest) -> RecognitionResult:
        return result_for(request, "", outcome=Outcome.FAILED, detail=detail).model_copy(update={"retryable": True})

    with running(FakeWebTier(answer=fail)) as tier:
        response = upload(tier.app.test_client())
    assert response.status_code == 500
    assert plain(response) == f"{detail}; its request id is {tier.tasks.requests[0].request_id}"


@pytest.mark.parametrize(
    "outage", [Transient("no route to 10.0.0.1"), QueueMissing("facerec-req-queue"), ConfigurationError("no bucket")]
)
@pytest.mark.parametrize("where", ["store", "tasks"])
def test_unreachable_store_or_queue_is_503_at_once(where: str, outage: FacerecError) -> None:
    """With the time to try again and without internal names; the log has the reason."""
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        getattr(tier, where).outage = outage
        with capture_logs() as logs:
            response = upload(tier.app.test_client())
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0
        assert str(outage) not in plain(response)
        assert [line["reason"] for line in logs if line["event"] == "upload"] == [str(outage)]
        getattr(tier, where).outage = None
        assert upload(tier.app.test_client()).status_code == 200


def test_late_result_can_be_fetched_at_the_address_in_the_reply() -> None:
    """First it is pending."""
    with running(FakeWebTier(impatient())) as tier:
        client = tier.app.test_client()
        response = upload(client)
        assert response.status_code == 504
        (request,) = tier.tasks.requests
        path = f"/api/v1/results/{request.request_id}"
        assert path in plain(response)
        assert client.get(path).status_code == 202
        tier.work(request, result_for(request, "Jane"))
        assert client.get(path).json["result"] == "Jane"  # type: ignore[index] # it is JSON
    assert tier.waiters.count == 0


def test_stopping_process_replies_with_the_address_of_the_result() -> None:
    """Also to an upload that waits at the end of the drain."""
    responses: list[TestResponse] = []
    with running(FakeWebTier()) as tier:
        with together(3, lambda _: responses.append(upload(tier.app.test_client()))):
            tier.tasks.await_count(3)
            tier.admission.close()
            tier.waiters.give_up()
        refused = upload(tier.app.test_client())
    assert [response.status_code for response in responses] == [504] * 3
    for response in responses:
        assert f"/api/v1/results/{response.headers['X-Request-Id']}" in plain(response)
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) > 0
    assert "stopped" in plain(refused)


def test_full_server_refuses_before_it_reads_the_body() -> None:
    """Health checks still answer, and a free place is used again."""
    responses: list[TestResponse] = []
    with running(FakeWebTier(settings(max_waiting=2))) as tier:
        client = tier.app.test_client()
        with together(2, lambda _: responses.append(upload(tier.app.test_client()))):
            waiting = tier.tasks.await_count(2)
            refused = upload(client, b"")
            assert refused.status_code == 503
            assert int(refused.headers["Retry-After"]) > 0
            assert "too many" in plain(refused)
            assert client.get("/healthz").status_code == 200
            for request in waiting:
                tier.work(request, result_for(request, "Jane"))
        tier.answer = answers("Jane")
        assert upload(client).status_code == 200
    assert [response.status_code for response in responses] == [200, 200]


@pytest.mark.parametrize("keyed", [True, False])
def test_client_that_takes_all_places_leaves_some_to_another(keyed: bool) -> None:  # noqa: FBT001 - a parameter
    """A client is a key, from whatever address, or in open mode an address."""
    made = [issue(name, [Scope.RECOGNISE], now=datetime.now(UTC)) for name in ("greedy", "honest")]
    greedy, honest = (token.reveal() for _, token in made)
    keys = InMemoryApiKeys(*[key for key, _ in made]) if keyed else None
    responses: list[TestResponse] = []

    def send(key: str, address: str) -> TestResponse:
        data, environ = {"inputFile": (BytesIO(picture()), "a.jpg")}, {"REMOTE_ADDR": address}
        return tier.app.test_client().post("/", data=data, headers={"x-api-key": key}, environ_overrides=environ)

    def take(number: int) -> None:
        responses.append(send(greedy, f"192.0.2.{number}" if keyed else "192.0.2.0"))

    with running(FakeWebTier(settings(max_waiting=12), keys=keys)) as tier:
        with together(12, take):
            waiting = tier.tasks.await_count(12)
            tier.answer = answers("Jane")
            refused = send(greedy, "192.0.2.0")
            assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
            assert plain(refused).startswith("too many uploads are waiting already")
            assert send(honest, "192.0.2.0" if keyed else "192.0.2.1").status_code == 200
            for task in waiting:
                tier.work(task, result_for(task, "Jane"))
        assert send(greedy, "192.0.2.0").status_code == 200
    assert [response.status_code for response in responses] == [200] * 12
    assert tier.admission.waiting == 0


def test_one_hundred_uploads_of_one_name_each_get_their_own_result() -> None:
    """At once, with the answers in another order and each twice."""
    replies: dict[int, str] = {}

    def send(number: int) -> None:
        # The picture's width tells the uploads apart; the name does not.
        replies[number] = upload(tier.app.test_client(), picture(size=(number + 1, 1)), "same.jpg").text

    with running(FakeWebTier()) as tier:
        with together(100, send):
            requests = tier.tasks.await_count(100, 30)
            assert tier.admission.waiting == 100
            for request in sorted(requests, key=lambda r: r.request_id) * 2:
                width = read_header(tier.store.get(request.input.bucket, request.input.key)).width
                tier.work(request, result_for(request, f"person {width}"))
        assert tier.waiters.count == 0
    assert replies == {number: f"same.jpg: face detected - person {number + 1}" for number in range(100)}


def test_result_that_comes_before_the_submission_returns_is_not_missed() -> None:
    """The waiter is registered before the task is sent."""
    tier = FakeWebTier()
    tier.tasks.worker = lambda request: tier.waiters.resolve(result_for(request, "Jane"))
    assert upload(tier.app.test_client()).status_code == 200


def test_log_has_one_line_for_each_upload() -> None:
    """It has what operators need, and neither the picture nor an embedding."""
    with running(FakeWebTier(answer=answers("Jane"))) as tier, capture_logs() as logs:
        body = picture()
        response = upload(tier.app.test_client(), body)
        upload(tier.app.test_client(), b"")
    first, second = (line for line in logs if line["event"] == "upload")
    assert first["request_id"] == response.headers["X-Request-Id"]
    assert first["filename"] == "image_01.jpg"
    assert first["outcome"] == "match"
    assert first["status"] == 200
    assert first["bytes"] == len(body)
    assert first["waited_ms"] >= 0
    assert (second["outcome"], second["status"]) == ("empty_file", 400)
    json.dumps(logs)


def test_fault_in_the_server_is_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the stack trace, and the place is free again."""

    def broken(request: RecognitionRequest) -> RecognitionResult:
        raise ZeroDivisionError("secret")

    with running(FakeWebTier(answer=broken)) as tier, capture_logs() as logs, caplog.at_level(logging.CRITICAL):
        response = upload(tier.app.test_client())
    assert response.status_code == 500
    assert "secret" not in plain(response)
    assert any(isinstance(line.get("exc_info"), ZeroDivisionError) for line in logs)
    assert tier.admission.waiting == 0


def test_names_of_people_cannot_break_the_line() -> None:
    """Names of people cannot break the line."""
    with running(FakeWebTier(answer=answers("Jane\r\nDoe"))) as tier:
        assert plain(upload(tier.app.test_client())) == "image_01.jpg: face detected - Jane Doe"


@pytest.mark.parametrize("tail", [b"\r", b"\n", b"\r\n--", b"\r\n-"])
def test_picture_of_any_bytes_is_accepted(tail: bytes) -> None:
    """Also if the end of the parser's buffer looks like the beginning of a boundary."""
    head = b'Content-Disposition: form-data; name="inputFile"; filename="a.jpg"\r\n\r\n'
    start = picture("JPEG")
    padding = bytes(64 * 1024 - len(b"--X\r\n" + head + start + tail[:-1]))
    body = start + padding + tail + bytes(70_000)
    with running(FakeWebTier(answer=answers("Jane"))) as tier:
        for shift in range(len(tail) + 1):
            sent = body[: len(start)] + body[len(start) + shift :]
            assert raw(tier.app.test_client(), head + sent).status_code == 200
            assert tier.tasks.requests[-1].input.size == len(sent)


def test_upload_is_compared_with_the_collection_of_its_key() -> None:
    """Without keys with the default one."""
    key, token = issue("kiosk", [Scope.RECOGNISE], now=datetime.now(UTC), collection="staff")
    for keys, header, collection in (
        (InMemoryApiKeys(key), {"x-api-key": token.reveal()}, "staff"),
        (None, {}, "default"),
    ):
        with running(FakeWebTier(settings(), answers("Jane"), keys=keys)) as tier:
            data = {"inputFile": (BytesIO(picture()), "a.jpg")}
            assert tier.app.test_client().post("/", data=data, headers=header).status_code == 200
            (request,) = tier.tasks.requests
        assert (request.collection, request.version, request.operation.kind) == (collection, 1, "recognise")
