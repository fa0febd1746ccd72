"""A device in AWS IoT: its thing, its policy and its one certificate, whose key is kept in a folder on this disk.

Each step finds out what is there, so that a run which was interrupted is completed by the next one. A new certificate
waits in a folder of its own until AWS IoT knows it as the thing's; then it replaces the former one.
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError, FacerecError
from facerec.provision.edge.thing_folder import ThingFolder
from facerec.provision.edge.token_exchange import ensure_alias, ensure_role
from facerec.provision.iam_edge import nucleus_policy, nucleus_policy_name, thing_policy, thing_policy_name
from facerec.provision.iam_statements import Place
from facerec.provision.resources import Resource, State
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_iot import IoTClient

Answer = TypeVar("Answer")

_POLICY_VERSIONS = 5
"""AWS IoT keeps so many of a policy."""
_ABSENT = "ResourceNotFoundException"
_STILL_ATTACHED = frozenset({"DeleteConflictException", "InvalidRequestException"})
_DETACHING_SECONDS = 20.0
"""AWS IoT detaches a certificate in the background, and until then deletes neither it nor its thing."""


class _Missing(FacerecError):
    """AWS IoT has no thing, policy or certificate of this name."""


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A certificate of AWS IoT."""

    id: str
    arn: str
    active: bool


class Things:
    """The things of a deployment. All methods raise `ConfigurationError` and `Transient`."""

    def __init__(
        self,
        clients: Clients,
        settings: Settings,
        report: Callable[[Resource], None] = lambda _: None,
        *,
        poll_seconds: float = 1.0,
    ) -> None:
        self._poll_seconds = poll_seconds
        self._clients = clients
        self._settings = settings
        self._report = report

    @property
    def _iot(self) -> "IoTClient":
        return self._clients.iot

    def provision(self, thing: str, folder: ThingFolder, *, rotate: bool = False, greengrass: bool = False) -> None:
        """Create or repair all that the device needs; `rotate` replaces its certificate.

        Raises `ConfigurationError` if the certificate was revoked, and if its key is on another disk, unless it is to
        be rotated.
        """
        folder.make()
        account = self._ensure_thing(thing)
        place, (policy, of_nucleus) = Place(self._settings, account), self._policies(thing)
        self._ensure_policy(policy, thing_policy(place, thing))
        if greengrass:
            self._ensure_policy(of_nucleus, nucleus_policy(place, thing))
            self._report(ensure_role(self._clients, self._settings, account))
            self._report(ensure_alias(self._clients, self._settings, account))
        self._report(self._ensure_certificate(thing, folder, rotate=rotate))
        edge = self._settings.edge
        endpoint = edge.endpoint or self._clients.iot_data_address
        self._report(folder.write_settings(thing, endpoint, edge.port, edge.ca_file))

    def revoke(self, thing: str) -> list[str]:
        """Deactivate and detach the thing's certificates; returns their ids."""
        with _of_thing(f"revoke thing {thing!r}", thing):
            principals = self._principals(thing)
            for arn in principals:
                self._take_away(thing, arn)
        return [_id(arn) for arn in principals]

    def remove(self, thing: str) -> list[str]:
        """Delete the thing, its policies and its certificates; returns what was deleted, if there was anything."""
        removed = []
        try:
            certificates = self.revoke(thing)
            with translated(f"delete thing {thing!r}"):
                for identifier in certificates:
                    self._when_detached(partial(self._iot.delete_certificate, certificateId=identifier))
                    removed.append(f"certificate {identifier}")
                self._when_detached(partial(self._iot.delete_thing, thingName=thing))
            removed.append(f"thing {thing}")
        except _Missing:
            pass
        removed += [f"policy {policy}" for policy in self._policies(thing) if self._delete_policy(policy)]
        return removed

    def _ensure_thing(self, thing: str) -> str:
        """Return the account that owns it."""
        resource = Resource("thing", thing)
        with translated(f"provision thing {thing!r}"):
            found = _found(partial(self._iot.describe_thing, thingName=thing))
            if found is None:
                arn = self._iot.create_thing(thingName=thing)["thingArn"]
                resource.state = State.CREATED
            else:
                arn = found["thingArn"]
        self._report(resource)
        return arn.split(":")[4]

    def _policies(self, thing: str) -> tuple[str, str]:
        """Return the names of the thing's policies; the second is of a Greengrass core alone."""
        return thing_policy_name(self._settings, thing), nucleus_policy_name(self._settings, thing)

    def _ensure_policy(self, name: str, wanted: dict[str, Any]) -> None:
        resource = Resource("policy", name)
        document = json.dumps(wanted, separators=(",", ":"))
        with translated(f"provision policy {name!r}"):
            found = _found(partial(self._iot.get_policy, policyName=name))
            if found is None:
                self._iot.create_policy(policyName=name, policyDocument=document)
                resource.state = State.CREATED
            elif json.loads(found["policyDocument"]) != wanted:
                self._replace_policy(name, document)
                resource.touched()
        self._report(resource)

    def _replace_policy(self, name: str, document: str) -> None:
        versions = self._iot.list_policy_versions(policyName=name)["policyVersions"]
        if len(versions) >= _POLICY_VERSIONS:
            former = min((one for one in versions if not one["isDefaultVersion"]), key=lambda one: one["createDate"])
            self._iot.delete_policy_version(policyName=name, policyVersionId=former["versionId"])
        self._iot.create_policy_version(policyName=name, policyDocument=document, setAsDefault=True)

    def _delete_policy(self, name: str) -> bool:
        """Delete a policy with all its versions; returns whether there was one."""
        with translated(f"delete policy {name!r}"):
            found = _found(partial(self._iot.list_policy_versions, policyName=name))
            if found is None:
                return False
            for version in found["policyVersions"]:
                if not version["isDefaultVersion"]:
                    self._iot.delete_policy_version(policyName=name, policyVersionId=version["versionId"])
            self._when_detached(partial(self._iot.delete_policy, policyName=name))
        return True

    def _ensure_certificate(self, thing: str, folder: ThingFolder, *, rotate: bool) -> Resource:
        with _of_thing(f"provision the certificate of thing {thing!r}", thing):
            pending = folder.pending_id()
            current = self._describe(folder.certificate_id())
            if pending is None and current is not None and not rotate:
                return self._keep(thing, current)
            if pending is None or self._describe(pending) is None:
                if not rotate:
                    self._check_first(thing)
                made = self._iot.create_keys_and_certificate(setAsActive=False)
                folder.write_pending(made["certificatePem"], made["keyPair"]["PrivateKey"])
                pending = made["certificateId"]
            fresh = self._describe(pending)
            if fresh is None:
                raise ConfigurationError(f"certificate {pending} of thing {thing!r} has vanished; provision it again")
            self._keep(thing, _Certificate(fresh.id, fresh.arn, active=True), activate=not fresh.active)
            replaced = [arn for arn in self._principals(thing) if arn != fresh.arn]
            self._check_alone(thing, fresh, folder)
            for arn in replaced:
                self._take_away(thing, arn)
            folder.use_pending()
        resource = Resource("certificate", fresh.id, State.CREATED)
        resource.notes += [f"certificate {_id(arn)} is inactive now: restart the component" for arn in replaced]
        return resource

    def _check_alone(self, thing: str, fresh: _Certificate, folder: ThingFolder) -> None:
        """Of two runs at once one must win; otherwise each would take the other's certificate away."""
        now = self._describe(fresh.id)
        if now is None or not now.active:
            folder.forget_pending()
            raise ConfigurationError(
                f"another run has replaced certificate {fresh.id} of thing {thing!r}: use the folder of that run, or "
                "replace its certificate with --rotate"
            )

    def _keep(self, thing: str, certificate: _Certificate, *, activate: bool = False) -> Resource:
        """Attach a certificate where it is not attached yet."""
        if not certificate.active:
            raise ConfigurationError(
                f"certificate {certificate.id} of thing {thing!r} was revoked: `--rotate` replaces it by a new one"
            )
        resource = Resource("certificate", certificate.id)
        if activate:
            self._iot.update_certificate(certificateId=certificate.id, newStatus="ACTIVE")
        for policy in self._policies(thing):
            targets = self._targets(policy)
            if targets is not None and certificate.arn not in targets:
                self._iot.attach_policy(policyName=policy, target=certificate.arn)
                resource.touched()
        if certificate.arn not in self._principals(thing):
            self._iot.attach_thing_principal(thingName=thing, principal=certificate.arn)
            resource.touched()
        return resource

    def _check_first(self, thing: str) -> None:
        """A device in the field must not lose its certificate because the folder was another one."""
        for arn in self._principals(thing):
            found = self._describe(_id(arn))
            if found is not None and found.active:
                raise ConfigurationError(
                    f"thing {thing!r} has the active certificate {found.id}, whose key is not in this folder: name its "
                    "folder with --to, or replace the certificate with --rotate"
                )

    def _when_detached(self, delete: Callable[[], object]) -> None:
        deadline = time.monotonic() + _DETACHING_SECONDS
        while True:
            try:
                delete()
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in _STILL_ATTACHED or time.monotonic() > deadline:
                    raise
                time.sleep(self._poll_seconds)
            else:
                return

    def _take_away(self, thing: str, arn: str) -> None:
        self._iot.update_certificate(certificateId=_id(arn), newStatus="INACTIVE")
        for policy in self._policies(thing):
            if arn in (self._targets(policy) or []):
                self._iot.detach_policy(policyName=policy, target=arn)
        self._iot.detach_thing_principal(thingName=thing, principal=arn)

    def _describe(self, identifier: str | None) -> _Certificate | None:
        """Return what AWS IoT knows of a certificate; nothing without an id."""
        found = identifier and _found(partial(self._iot.describe_certificate, certificateId=identifier))
        if not identifier or not found:
            return None
        described = found["certificateDescription"]
        return _Certificate(identifier, described["certificateArn"], active=described["status"] == "ACTIVE")

    def _principals(self, thing: str) -> list[str]:
        return list(self._iot.list_thing_principals(thingName=thing)["principals"])

    def _targets(self, policy: str) -> list[str] | None:
        """Return what a policy is attached to; None if there is no such policy."""
        found = _found(partial(self._iot.list_targets_for_policy, policyName=policy))
        return None if found is None else list(found["targets"])


def _of_thing(doing: str, thing: str) -> AbstractContextManager[None]:
    """As `translated`; raises `_Missing` without the thing."""
    return translated(doing, ResourceNotFoundException=lambda: _Missing(f"there is no thing {thing!r}"))


def _found(read: Callable[[], Answer]) -> Answer | None:
    """Return what AWS IoT answers; None if it has nothing of the name."""
    try:
        return read()
    except ClientError as exc:
        if exc.response["Error"]["Code"] != _ABSENT:
            raise
        return None


def _id(arn: str) -> str:
    """Return the id of a certificate."""
    return arn.rpartition("/")[2]
