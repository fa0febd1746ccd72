"""The signature of a receipt: a JSON Web Signature (RFC 7515) with Ed25519 (RFC 8037), in flattened JSON.

Any library for JOSE can verify it. The header has the public key; whether that key is the operator's is for the reader
to know, by its thumbprint (`kid`, RFC 7638).
"""

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from facerec.errors import ConfigurationError, FacerecError
from facerec.gallery.erasure import subject_hash
from facerec.private_files import open_own_file


class WrongReceipt(FacerecError):
    """The receipt is no receipt, was changed, or was signed with another key."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt whose signature is good."""

    content: Mapping[str, Any]
    key_id: str
    """The thumbprint of the key that signed it."""
    known_key: bool
    """Whether it was compared with a key that the reader trusts."""

    def is_about(self, name: str, subject_key: str) -> bool:
        """Whether the erasure was of this name."""
        try:
            wanted = subject_hash(subject_key, str(self.content["collection"]), name)
        except ValueError:
            return False
        return wanted in self.content["subject_hashes"]


class SigningKey:
    """The operator's private key, from a PEM file."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the file; raises `ConfigurationError` with what to do."""
        try:
            with os.fdopen(open_own_file(path), "rb") as file:
                key = load_pem_private_key(file.read(), password=None)
        except FileNotFoundError as exc:
            raise ConfigurationError(
                f"there is no key {path}: make it with `facerec people receipt-key {path}`"
            ) from exc
        except (OSError, ValueError, TypeError) as exc:
            raise ConfigurationError(f"{path} is no PEM file with a private key without a password: {exc}") from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError(f"{path} has another kind of key than Ed25519")
        return cls(key)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make a new key in a file that only its owner can read; raises `ConfigurationError` if the file exists."""
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            with os.fdopen(open_own_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                file.write(pem)
        except FileExistsError as exc:
            raise ConfigurationError(f"{path} exists already; a new key would not verify earlier receipts") from exc
        except OSError as exc:
            raise ConfigurationError(f"{path} cannot be written: {exc.strerror}") from exc
        return cls(key)

    @property
    def public_pem(self) -> str:
        """The public key, to give to those who verify receipts."""
        key = self._key.public_key()
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def sign(self, content: Mapping[str, Any]) -> dict[str, str]:
        """Return the receipt."""
        jwk = _jwk(self._key.public_key())
        header = {"alg": "EdDSA", "typ": "facerec-erasure+jws", "kid": _thumbprint(jwk), "jwk": jwk}
        protected, payload = _encoded(_canonical(header)), _encoded(_canonical(content))
        signature = self._key.sign(f"{protected}.{payload}".encode())
        return {"payload": payload, "protected": protected, "signature": _encoded(signature)}


def verified(receipt: str | bytes, trusted_pem: bytes | None = None) -> VerifiedReceipt:
    """Check a receipt, by a trusted public key in PEM or else by the one in it; raises `WrongReceipt`. Offline."""
    try:
        parts = json.loads(receipt)
        protected, payload = str(parts["protected"]), str(parts["payload"])
        header, content = json.loads(_decoded(protected)), json.loads(_decoded(payload))
        if header["alg"] != "EdDSA" or "crit" in header:
            raise WrongReceipt("the receipt is signed in another way than Ed25519")
        jwk = header["jwk"]
        key = Ed25519PublicKey.from_public_bytes(_decoded(jwk["x"]))
        key_id = _thumbprint(_jwk(key))
        if trusted_pem is not None and _jwk(_public(trusted_pem)) != _jwk(key):
            raise WrongReceipt(f"the receipt is signed with another key, {key_id}")
        key.verify(_decoded(str(parts["signature"])), f"{protected}.{payload}".encode())
    except InvalidSignature as exc:
        raise WrongReceipt("the signature is wrong: the receipt was changed") from exc
    except (ValueError, LookupError, TypeError, AttributeError, binascii.Error) as exc:
        raise WrongReceipt("this is no receipt of an erasure") from exc
    return VerifiedReceipt(content, key_id, trusted_pem is not None)


def _public(pem: bytes) -> Ed25519PublicKey:
    """Return the public key of a PEM file with either key of the pair."""
    key = load_pem_private_key(pem, password=None) if b"PRIVATE KEY" in pem else load_pem_public_key(pem)
    if isinstance(key, Ed25519PrivateKey):
        return key.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise WrongReceipt("the trusted key is another kind of key than Ed25519")
    return key


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _encoded(key.public_bytes_raw())}


def _thumbprint(jwk: Mapping[str, str]) -> str:
    return _encoded(hashlib.sha256(_canonical(jwk)).digest())


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
