"""The folder of a device: its certificate, its private key, and the settings with which it connects."""

import hashlib
import os
import shlex
import shutil
import ssl
from pathlib import Path

from facerec.errors import ConfigurationError
from facerec.private_files import make_private_folder, open_own_file
from facerec.provision.resources import Resource, State
from facerec.settings import ENV_PREFIX

CERTIFICATE, KEY, AUTHORITIES, SETTINGS = "certificate.pem", "private.key", "ca.pem", "edge.env"
_PENDING = "pending"


class ThingFolder:
    """A folder that only its owner enters. All methods raise `ConfigurationError`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._pending = self.path / _PENDING

    def make(self) -> None:
        """Create the folder, for this user alone."""
        try:
            make_private_folder(self.path)
        except OSError as exc:
            raise ConfigurationError(f"cannot use {self.path}: {exc.strerror}; see --to") from exc

    def certificate_id(self) -> str | None:
        """Return the id of the certificate in use, if its key is there, too."""
        return _certificate_id(self.path / CERTIFICATE) if (self.path / KEY).exists() else None

    def pending_id(self) -> str | None:
        """Return the id of a certificate that is not in use yet."""
        return _certificate_id(self._pending / CERTIFICATE)

    def write_pending(self, certificate: str, key: str) -> None:
        """Keep a new certificate and its key; the certificate last, since it shows that the key is there."""
        make_private_folder(self._pending)
        _replace(self._pending / KEY, key)
        _replace(self._pending / CERTIFICATE, certificate)

    def use_pending(self) -> None:
        """Let the new certificate and its key take the place of the former ones."""
        if (self._pending / KEY).exists():  # otherwise it took its place before an interruption
            (self._pending / KEY).replace(self.path / KEY)
        (self._pending / CERTIFICATE).replace(self.path / CERTIFICATE)
        self.forget_pending()

    def forget_pending(self) -> None:
        """Delete what is not in use."""
        shutil.rmtree(self._pending)

    def write_settings(self, thing: str, endpoint: str, port: int, ca_file: Path | None) -> Resource:
        """Write the settings as variables for a shell, for systemd or for a container."""
        values = {
            "THING": thing,
            "ENDPOINT": endpoint,
            "PORT": str(port),
            "CERTIFICATE_FILE": str(self.path / CERTIFICATE),
            "KEY_FILE": str(self.path / KEY),
        }
        if ca_file is not None:
            try:
                authorities = ca_file.read_text()
            except OSError as exc:
                raise ConfigurationError(f"cannot read FACEREC_EDGE__CA_FILE {ca_file}: {exc.strerror}") from exc
            if ca_file.absolute() != self.path / AUTHORITIES:
                _replace(self.path / AUTHORITIES, authorities)
            values["CA_FILE"] = str(self.path / AUTHORITIES)
        text = "".join(f"{ENV_PREFIX}EDGE__{name}={shlex.quote(value)}\n" for name, value in values.items())
        file = self.path / SETTINGS
        resource = Resource("settings", str(file))
        if not file.exists():
            resource.state = State.CREATED
        elif file.read_text() != text:
            resource.touched()
        if resource.state is not State.UNCHANGED:
            _replace(file, text)
        return resource

    def settings(self) -> dict[str, str]:
        """Read the variables that `write_settings` has written."""
        file = self.path / SETTINGS
        try:
            words = shlex.split(file.read_text(encoding="utf-8"))
        except OSError as exc:
            raise ConfigurationError(
                f"cannot read {file} ({exc.strerror}): make it with `facerec edge provision`"
            ) from exc
        return dict(word.split("=", 1) for word in words)


def _certificate_id(file: Path) -> str | None:
    """Return AWS IoT's id of a certificate, the SHA-256 of its DER form; None without a file.

    Raises `ConfigurationError` if the file is none.
    """
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(file.read_text().strip())).hexdigest()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"{file} is no certificate: {exc}; remove it") from exc


def _replace(file: Path, text: str) -> None:
    """Write a file as a whole, for this user alone."""
    scratch = file.with_name(f"{file.name}.new")
    scratch.unlink(missing_ok=True)
    with os.fdopen(open_own_file(scratch, os.O_WRONLY | os.O_CREAT), "w") as new:
        new.write(text)
        new.flush()
        os.fsync(new.fileno())
    scratch.replace(file)
