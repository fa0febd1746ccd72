"""Callbacks: signatures, and which addresses may be called. Nothing here reaches a network."""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from facerec.callbacks import (
    MAX_URL,
    CallbackFailed,
    CallbackRefused,
    CallbackSender,
    is_public,
    owner_secret,
    parse_target,
    signature,
)
from facerec.settings.tiers import CallbackSettings
from tests.support.processes import CHECKOUT

SECRET = "a secret of sixteen or more"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/x",
        "file:///etc/passwd",
        "gopher://example.com",
        "//example.com/x",
        "https://",
        "https://user:word@example.com/",
        "https://example.com:99999/",
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com/a b",
        "https://exa\u00ad\u00admple..com/",
        "https://example.com/" + "a" * MAX_URL,
        "http://[::1/",
        "",
    ],
)
def test_url_of_another_form_is_refused(url: str) -> None:
    """When the job is created."""
    with pytest.raises(CallbackRefused):
        parse_target(url)


def test_url_keeps_its_path_query_and_port() -> None:
    """The fragment is for browsers."""
    target = parse_target("https://Example.com:8443/jobs?of=me&x=1#top")
    assert (target.scheme, target.host, target.port, target.path) == ("https", "example.com", 8443, "/jobs?of=me&x=1")
    assert parse_target("http://bücher.example").host == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104 - the address itself
        "10.0.0.1",
        "172.16.5.5",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "203.0.113.5",
        "224.0.0.251",
        "255.255.255.255",
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "192.0.0.192",
        "fec0::1",
        "::127.0.0.1",
        "::ffff:0:7f00:1",
        "64:ff9b:1::7f00:1",
    ],
)
def test_address_of_no_public_network_is_refused(address: str) -> None:
    """Among them the metadata services of clouds, and IPv4 addresses within IPv6 ones."""
    assert not is_public(ipaddress.ip_address(address))
    sender = CallbackSender(resolve=lambda _host, _port: [address])
    with pytest.raises(CallbackRefused, match="PRIVATE_NETWORKS"):
        sender.send("https://innocent.example/", b"{}", SECRET)


def test_public_addresses_are_public() -> None:
    """Of both families."""
    for address in ("8.8.8.8", "52.94.236.248", "2600:1f18::1", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://017700000001/"])
def test_loopback_in_another_notation_is_refused(url: str) -> None:
    """The system's resolver reads numbers in many forms; what counts is the address that it returns."""
    with pytest.raises(CallbackRefused):
        CallbackSender().send(url, b"{}", SECRET)


def test_name_is_resolved_once_for_each_call() -> None:
    """A name that points to a private address at the second look (DNS rebinding) has no second look."""
    looks: list[str] = []

    def rebinding(host: str, _port: int) -> Iterable[str]:
        looks.append(host)
        return ["192.168.1.1"] if len(looks) == 1 else ["127.0.0.1"]

    with pytest.raises(CallbackRefused):
        CallbackSender(networks=(ipaddress.ip_network("127.0.0.0/8"),), resolve=rebinding).send(
            "http://rebinding.example/", b"{}", SECRET
        )
    assert looks == ["rebinding.example"]


def test_name_that_cannot_be_resolved_is_tried_again_later() -> None:
    """It is no refusal: the resolver may have an outage."""

    def unknown(_host: str, _port: int) -> Iterable[str]:
        raise OSError("no such name")

    with pytest.raises(CallbackFailed, match=r"gone\.example cannot be resolved"):
        CallbackSender(resolve=unknown).send("https://gone.example/", b"{}", SECRET)


def test_each_owner_has_a_secret_of_its_own() -> None:
    """A client cannot sign messages to another client."""
    assert owner_secret(SECRET, "0123456789ab") != owner_secret(SECRET, "ba9876543210")
    assert owner_secret(SECRET, "0123456789ab") == owner_secret(SECRET, "0123456789ab")


def test_signature_is_hmac_over_timestamp_and_body() -> None:
    """Computed here by hand."""
    expected = hmac.new(SECRET.encode(), b'1790000000.{"a": 1}', hashlib.sha256).hexdigest()
    assert signature(SECRET, "1790000000", b'{"a": 1}') == f"v1={expected}"


def test_snippet_of_the_guide_verifies_a_callback() -> None:
    """It takes our signature, and refuses another body, an old message and a signature of another secret."""
    guide = (CHECKOUT / "docs/jobs.md").read_text()
    found = re.search(r"```python\n(# verify\.py.*?)```", guide, re.DOTALL)
    assert found is not None
    names: dict[str, object] = {}
    exec(compile(found[1], Path("docs/jobs.md"), "exec"), names)  # noqa: S102 - our own guide
    verified = names["verified"]
    assert callable(verified)
    now, body = 1_790_000_000.0, b'{"job_id": "1"}'
    headers = {
        "X-Facerec-Timestamp": "1790000000",
        "X-Facerec-Signature": signature(SECRET, "1790000000", body),
    }
    assert verified(SECRET, headers, body, now)
    assert not verified(SECRET, headers, body + b" ", now)
    assert not verified("another secret", headers, body, now)
    assert not verified(SECRET, headers, body, now + 301)
    assert not verified(SECRET, {**headers, "X-Facerec-Timestamp": "1790000001"}, body, now)
    assert not verified(SECRET, {}, body, now)


def test_networks_of_the_settings_are_checked() -> None:
    """A wrong one is named when the settings are read."""
    assert CallbackSettings(private_networks=("10.1.0.0/16", "fd00::/8")).private_networks
    with pytest.raises(ValueError, match=r"10\.1\.0\.5/16"):
        CallbackSettings(private_networks=("10.1.0.5/16",))
