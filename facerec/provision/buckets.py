"""Creates or repairs a bucket: closed to the public, encrypted, with lifecycle rules; idempotent."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from botocore.exceptions import ClientError

from facerec.aws.clients import Clients, translated
from facerec.errors import ConfigurationError
from facerec.provision.iam_statements import partition
from facerec.provision.resources import Resource, State, settle
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.literals import BucketLocationConstraintType

_DEFAULT_REGION = "us-east-1"
_LIFECYCLE_RULE = "facerec-expiry"
_TLS_STATEMENT = "FacerecTlsOnly"
_FORBIDDEN, _NOT_FOUND, _MOVED = 403, 404, 301


def provision_bucket(
    clients: Clients, settings: Settings, variable: str, name: str, expire_days: int | None
) -> Resource:
    """Create or repair the bucket; with `expire_days` None its objects are kept for ever.

    Raises `ConfigurationError` if the name is taken; the setting `variable` (`INPUT_BUCKET`) chooses another.
    """
    bucket, s3 = Resource("bucket", name), clients.s3
    with translated(f"provision bucket {name!r}"):
        _create_bucket(clients, settings, variable, bucket)
        closed = dict.fromkeys(
            ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
        )
        settle(
            bucket,
            "the public-access block",
            read=lambda: s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"],
            absent="NoSuchPublicAccessBlockConfiguration",
            fits=lambda current: current == closed,
            write=lambda _: s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=cast("Any", closed)),
        )
        settle(
            bucket,
            "default encryption",
            read=lambda: s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"],
            absent="ServerSideEncryptionConfigurationNotFoundError",
            fits=lambda rules: any("ApplyServerSideEncryptionByDefault" in rule for rule in rules),
            write=lambda _: s3.put_bucket_encryption(
                Bucket=name,
                ServerSideEncryptionConfiguration={
                    "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
                },
            ),
        )
        _refuse_unencrypted(clients, settings, bucket)
        rule = _lifecycle_rule(expire_days)
        settle(
            bucket,
            "lifecycle rules",
            read=lambda: s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"],
            absent="NoSuchLifecycleConfiguration",
            fits=lambda rules: any(_same_rule(rule, other) for other in rules),
            write=lambda rules: s3.put_bucket_lifecycle_configuration(
                Bucket=name,
                LifecycleConfiguration={
                    "Rules": [rule, *(other for other in rules or [] if other.get("ID") != _LIFECYCLE_RULE)]
                },
            ),
        )
    return bucket


def _create_bucket(clients: Clients, settings: Settings, variable: str, bucket: Resource) -> None:
    taken = ConfigurationError(
        f"bucket {bucket.name!r} belongs to another account or region, and bucket names are global; "
        f"choose another with FACEREC_NAMES__{variable} or FACEREC_PREFIX"
    )
    try:
        clients.s3.head_bucket(Bucket=bucket.name)
    except ClientError as exc:
        # A HEAD reply has no body, so that there is only the status.
        status = exc.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in {_FORBIDDEN, _MOVED}:
            raise taken from exc
        if status != _NOT_FOUND:
            raise
    else:
        return
    try:
        if settings.aws.region == _DEFAULT_REGION:  # S3 refuses this region's name
            clients.s3.create_bucket(Bucket=bucket.name)
        else:
            region = cast("BucketLocationConstraintType", settings.aws.region)
            clients.s3.create_bucket(Bucket=bucket.name, CreateBucketConfiguration={"LocationConstraint": region})
    except clients.s3.exceptions.BucketAlreadyExists as exc:
        raise taken from exc
    except clients.s3.exceptions.BucketAlreadyOwnedByYou:
        return  # another provisioning has just created it
    bucket.state = State.CREATED


def _refuse_unencrypted(clients: Clients, settings: Settings, bucket: Resource) -> None:
    """Add the policy that refuses unencrypted connections, unless the endpoint itself is one; never removes it."""
    s3, what = clients.s3, "the policy that refuses unencrypted connections"
    if urlsplit(s3.meta.endpoint_url).scheme == "http":
        bucket.notes.append(f"{what} is left out, because {s3.meta.endpoint_url} is unencrypted")
        return
    deny = _tls_only(settings, bucket.name)
    settle(
        bucket,
        what,
        read=lambda: json.loads(s3.get_bucket_policy(Bucket=bucket.name)["Policy"]),
        absent="NoSuchBucketPolicy",
        fits=lambda policy: deny in policy["Statement"],
        write=lambda policy: s3.put_bucket_policy(Bucket=bucket.name, Policy=json.dumps(_with_statement(policy, deny))),
    )


def _tls_only(settings: Settings, name: str) -> dict[str, Any]:
    arn = f"arn:{partition(settings.aws.region)}:s3:::{name}"
    return {
        "Sid": _TLS_STATEMENT,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


def _with_statement(policy: dict[str, Any] | None, ours: dict[str, Any]) -> dict[str, Any]:
    """Return the policy with our statement instead of a former one; the operator's own statements stay."""
    policy = policy or {"Version": "2012-10-17", "Statement": []}
    others = [statement for statement in policy["Statement"] if statement.get("Sid") != _TLS_STATEMENT]
    return policy | {"Statement": [*others, ours]}


def _lifecycle_rule(expire_days: int | None) -> Any:
    rule: dict[str, Any] = {
        "ID": _LIFECYCLE_RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    return rule if expire_days is None else rule | {"Expiration": {"Days": expire_days}}


def _same_rule(wanted: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    compared = ("ID", "Status", "Expiration", "AbortIncompleteMultipartUpload")
    same = all(wanted.get(key) == other.get(key) for key in compared)
    # S3 returns an empty filter in more than one form.
    return same and not other.get("Filter", {}).get("Prefix")
