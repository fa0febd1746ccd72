"""The names that requests are addressed to, as the grammar of HTTP has them."""

import pytest

from facerec.host_check import addressed_host, is_served


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("faces.example", "faces.example"),
        ("FACES.example.:8000", "faces.example"),
        ("facerec_web-1:65535", "facerec_web-1"),
        ("faces.example:", "faces.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[2001:DB8::1]:80", "2001:db8::1"),
        ("", ""),
        (None, ""),
    ],
)
def test_host_header_names_a_host(host: str | None, name: str) -> None:
    """With any port, in any case."""
    assert addressed_host(host) == name


@pytest.mark.parametrize(
    "host",
    [
        "evil.example, a.internal",
        "evil.example,a.internal",
        "a.internal, a.internal",
        ", ",
        "evil.example a.internal",
        " a.internal",
        "a.internal\n",
        "evil@a.internal",
        "evil:secret@a.internal:80",
        "evil.example/a.internal",
        "evil.example?a.internal",
        "evil.example#.a.internal",
        "evil.example\\.a.internal",
        "evil%2eexample.internal",
        ".internal",
        "a..internal",
        "a.internal..",
        "a.internal:65536",
        "a.internal:-1",
        "a.internal:http",
        "a.internal:80:80",
        "a.internal:\u0663",
        ":80",
        "::1",
        "[::1",
        "[::1]a.internal",
        "[a.internal]",
        "[1:2]",
        "[fe80::1%eth0]",
        "bücher.internal",
        "http://a.internal",
    ],
)
def test_host_header_of_another_form_names_no_host(host: str) -> None:
    """No part of it may pass for an allowed name."""
    assert addressed_host(host) is None


@pytest.mark.parametrize(
    ("host", "target", "name"),
    [
        ("a.internal", "http://a.internal/path", "a.internal"),
        ("a.internal:80", "HTTP://A.internal:80?x", "a.internal"),
        (None, "http://a.internal", "a.internal"),
        ("a.internal", "//evil.example/path", "a.internal"),
        ("a.internal", "/?http://evil.example/", "a.internal"),
        ("a.internal", "*", "a.internal"),
        ("a.internal", "http://evil.example/path", None),
        ("a.internal", "http://a.internal:81/", None),
        ("a.internal", "http://a.internal@evil.example/", None),
        ("", "http://a.internal/", None),
        (None, "http:///path", None),
    ],
)
def test_absolute_target_names_the_same_host(host: str | None, target: str, name: str | None) -> None:
    """The request names one host or none."""
    assert addressed_host(host, target) == name


def test_name_is_served_whole_or_below_a_dot() -> None:
    """A server without names serves all."""
    names = ("faces.example", ".internal")
    assert [is_served(name, names) for name in ("faces.example", "a.b.internal", "")] == [True, True, True]
    assert [is_served(name, names) for name in ("internal", "evilinternal", "a.faces.example")] == [False] * 3
    assert is_served("any.example", ())
