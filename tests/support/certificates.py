"""A certificate authority for tests: certificates of servers and things, and the list of those it has revoked."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIFETIME = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Certificate:
    """The two PEM files of a certificate; only the owner may read the key."""

    certificate_file: Path
    key_file: Path


class CertificateAuthority:
    """Issues and revokes certificates, whose files are in `folder`; for tests, so its own key is in memory alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("Authority of the tests")
        self._issued: dict[str, x509.Certificate] = {}
        self._revoked: list[x509.RevokedCertificate] = []
        certificate = (
            self._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.revoked_file = folder / "revoked.pem"
        """The list of revoked certificates (CRL), PEM."""
        self._write_revoked()

    def issue(self, name: str, *, hosts: tuple[str, ...] = ()) -> Certificate:
        """Return a new certificate with this common name; `hosts` are the names and addresses of a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(name), key).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        if hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(map(_host, hosts)), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._issued[name] = certificate
        files = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key_file.touch(mode=0o600)
        files.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def revoke(self, name: str) -> None:
        """Add the certificate that was issued last under this name to `revoked_file`."""
        self._revoked.append(
            x509.RevokedCertificateBuilder()
            .serial_number(self._issued[name].serial_number)
            .revocation_date(datetime.now(UTC))
            .build()
        )
        self._write_revoked()

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _LIFETIME)
            .not_valid_after(now + _LIFETIME)
        )

    def _write_revoked(self) -> None:
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self._name, now - _LIFETIME, now + _LIFETIME)
        for revoked in self._revoked:
            builder = builder.add_revoked_certificate(revoked)
        self.revoked_file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
