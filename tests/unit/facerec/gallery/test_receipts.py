"""Receipts of erasures: what they say, and that no change of one goes unnoticed."""

import base64
import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from facerec.erasure_records import ErasureRecord, Place
from facerec.errors import ConfigurationError
from facerec.gallery.erasure import subject_hash
from facerec.gallery.receipt_signing import SigningKey, WrongReceipt, verified
from facerec.gallery.receipts import content_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUBJECT_KEY = "0f" * 16


def record() -> ErasureRecord:
    """A complete erasure."""
    return ErasureRecord(
        erasure_id="1" * 32,
        collection="staff",
        subject_hashes=(subject_hash(SUBJECT_KEY, "staff", "Ada Lovelace"),),
        by="front desk",
        begun_at=NOW,
        version=7,
        places=(Place(name="photos").confirmed(NOW, "stores", removed=3), Place(name="disk i-1:aa")),
        next_pass_at=NOW,
    )


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    """Make a key in a file, and read it again."""
    SigningKey.create(tmp_path / "key.pem")
    return SigningKey.load(tmp_path / "key.pem")


def test_receipt_says_what_was_removed_and_what_is_owed(key: SigningKey) -> None:
    """With who asked for it, and what no erasure reaches."""
    found = verified(json.dumps(key.sign(content_of(record(), NOW))), key.public_pem.encode())
    assert found.known_key
    assert [(each["place"], each["removed"]) for each in found.content["places"]] == [("photos", 3)]
    assert [each["place"] for each in found.content["still_owed"]] == ["disk i-1:aa"]
    assert found.content["asked_by"] == "front desk"
    assert "backups of the tables" in found.content["not_reached"]


def test_receipt_is_a_standard_signature(key: SigningKey) -> None:
    """As RFC 7515 and RFC 8037 say: verified here by hand."""
    signed = key.sign(content_of(record(), NOW))

    def decoded(text: str) -> bytes:
        return base64.urlsafe_b64decode(text + "==")

    header = json.loads(decoded(signed["protected"]))
    assert (header["alg"], header["jwk"]["kty"], header["jwk"]["crv"]) == ("EdDSA", "OKP", "Ed25519")
    signing_input = f"{signed['protected']}.{signed['payload']}".encode()
    Ed25519PublicKey.from_public_bytes(decoded(header["jwk"]["x"])).verify(decoded(signed["signature"]), signing_input)


@pytest.mark.parametrize("part", ["payload", "protected", "signature"])
def test_changed_receipt_is_wrong(key: SigningKey, part: str) -> None:
    """In every part of it."""
    signed = key.sign(content_of(record(), NOW))
    value = signed[part]
    middle = len(value) // 2
    signed[part] = value[:middle] + ("A" if value[middle] != "A" else "B") + value[middle + 1 :]
    with pytest.raises(WrongReceipt):
        verified(json.dumps(signed), key.public_pem.encode())


def test_receipt_of_another_key_is_wrong(key: SigningKey, tmp_path: Path) -> None:
    """Without a trusted key its thumbprint is there to compare."""
    other = SigningKey.create(tmp_path / "other.pem")
    signed = json.dumps(other.sign(content_of(record(), NOW)))
    with pytest.raises(WrongReceipt, match="another key"):
        verified(signed, key.public_pem.encode())
    found = verified(signed)
    assert not found.known_key
    assert found.key_id == verified(signed, other.public_pem.encode()).key_id


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"payload": 1}', '{"payload": "e30", "protected": "e30"}', "\xff"])
def test_other_file_is_no_receipt(text: str) -> None:
    """With a sentence."""
    with pytest.raises(WrongReceipt):
        verified(text)


def test_subject_key_shows_whom_a_receipt_is_about(key: SigningKey) -> None:
    """Another name, or a wrong key, does not fit."""
    found = verified(json.dumps(key.sign(content_of(record(), NOW))))
    assert found.is_about("Ada Lovelace", SUBJECT_KEY)
    assert not found.is_about("Alan Turing", SUBJECT_KEY)
    assert not found.is_about("Ada Lovelace", "00" * 16)
    assert not found.is_about("Ada Lovelace", "no hexadecimal digits")


def test_key_file_is_its_owners_alone(tmp_path: Path) -> None:
    """A second key never replaces the first."""
    path = tmp_path / "key.pem"
    SigningKey.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConfigurationError, match="exists already"):
        SigningKey.create(path)


def test_missing_or_wrong_key_file_is_named(tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(ConfigurationError, match="receipt-key"):
        SigningKey.load(tmp_path / "nowhere.pem")
    (tmp_path / "wrong.pem").write_text("no key")
    with pytest.raises(ConfigurationError, match="is no PEM file"):
        SigningKey.load(tmp_path / "wrong.pem")
