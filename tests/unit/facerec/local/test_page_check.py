"""Which requests the emulated AWS refuses."""

from http import HTTPStatus

import pytest

from facerec.local.page_check import refusal

HOST = "127.0.0.1:4566"


@pytest.mark.parametrize(
    "host",
    [
        HOST,
        "127.0.0.1",
        "LOCALHOST.:4566",
        "[::1]:4566",
        "my.bucket.localhost:4566",
        "my-bucket.s3.localhost:4566",
        "bucket.127.0.0.1:4566",
        None,
    ],
)
def test_program_is_served(host: str | None) -> None:
    """By every name of this machine, also with a bucket's name before it, and by none as in HTTP/1.0."""
    assert refusal(host=host, origin=None, fetch_site=None) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4566",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io:4566",
        "evillocalhost",
        "evil127.0.0.1",
        "bucket.s3.amazonaws.com",
        "0.0.0.0:4566",
        "[::ffff:127.0.0.1]:4566",
        "evil.example,127.0.0.1",
        "127.0.0.1:4566, evil.example",
        "127.0.0.1:4566,127.0.0.1:4566",
        "evil@127.0.0.1",
    ],
)
def test_request_to_another_host_is_refused(host: str) -> None:
    """A page's own name may be made to point here (DNS rebinding); two lines come as one value with a comma."""
    refused = refusal(host=host, origin=None, fetch_site=None)
    assert refused is not None
    assert refused[0] is HTTPStatus.MISDIRECTED_REQUEST


def test_target_names_the_host_that_is_addressed() -> None:
    """Also where the target is a whole address."""
    assert refusal(host=HOST, origin=None, fetch_site=None, target=f"http://{HOST}/a") is None
    assert refusal(host=HOST, origin=None, fetch_site=None, target="http://evil.example/a") is not None


@pytest.mark.parametrize(
    ("origin", "fetch_site"),
    [
        ("http://evil.example", None),
        ("http://evil.example", "cross-site"),
        ("http://127.0.0.1:8000", "same-site"),
        ("https://127.0.0.1:4566", "cross-site"),
        ("null", None),
        ("null", "cross-site"),
        (None, "cross-site"),
        (None, "same-site"),
        (None, "same-origin, cross-site"),
        (f"http://{HOST}, http://evil.example", None),
        (f"http://evil.example,http://{HOST}", None),
        ("http://localhost:4566", None),
        ("file://", None),
    ],
)
def test_request_of_a_web_page_is_refused(origin: str | None, fetch_site: str | None) -> None:
    """An image of a page sends no `Origin`, so both headers count."""
    refused = refusal(host=HOST, origin=origin, fetch_site=fetch_site)
    assert refused is not None
    assert refused[0] is HTTPStatus.FORBIDDEN


@pytest.mark.parametrize(
    ("origin", "fetch_site"), [(None, "none"), (None, "same-origin"), (f"http://{HOST}", "same-origin")]
)
def test_browser_shows_what_its_user_asks_for(origin: str | None, fetch_site: str) -> None:
    """An address that is typed, and the emulator's own page."""
    assert refusal(host=HOST, origin=origin, fetch_site=fetch_site) is None


def test_further_name_is_served() -> None:
    """The emulated AWS has a name of its own on a network of containers."""
    assert refusal(host="aws:4566", origin=None, fetch_site=None, names=["aws"]) is None
    assert refusal(host="aws:4566", origin=None, fetch_site=None) is not None
    assert refusal(host="evil.example", origin=None, fetch_site=None, names=["aws"]) is not None
