"""boto3 clients made from the settings, and the translation of their errors to those of `facerec.errors`."""

import functools
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any

import boto3
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth, SigV4QueryAuth
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.model import OperationModel
from botocore.parsers import ResponseParserError

from facerec import __version__
from facerec.errors import ConfigurationError, FacerecError, Refused, Throttled, Transient
from facerec.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ecr import ECRClient
    from mypy_boto3_greengrassv2 import GreengrassV2Client
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iot import IoTClient
    from mypy_boto3_iot_data import IoTDataPlaneClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

THROTTLING = frozenset(
    {
        "EC2ThrottledException",
        "KMS.ThrottlingException",
        "KmsThrottled",
        "OverLimit",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_DENIED_ACTION = re.compile(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)")
"""The permission that is missing, in AWS's sentence; the rest of it names accounts."""
_MISCONFIGURED = frozenset(
    {
        "301",  # S3's answers to HEAD have no code but the status
        "403",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthorizationHeaderMalformed",
        "IncompleteSignature",
        "InvalidBucketName",
        "InvalidSecurity",
        "InvalidToken",
        "MissingAuthenticationToken",
        "NoSuchBucket",
        "NotSignedUp",
        "PermanentRedirect",
        "RequestTimeTooSkewed",
        "ResourceNotFoundException",
    }
)
"""Codes that AWS would answer for every other message and object, too."""
_FIRST_ERROR, _SERVER_ERROR = 400, 500
_UNSTATED = frozenset({"", "Unknown"})
"""Beside the status itself, botocore's codes for an error that is not in AWS's form."""
REQUEST_ID_HEADERS = ("x-amz-request-id", "x-amzn-requestid")
"""AWS's headers with the id of a request; EC2 states it in the body, too."""
USER_AGENT = f"facerec/{__version__} boto3/{boto3.__version__}"
"""Set as a whole, because botocore joins its own from thirty parts, twice for each call: 12 % of a call's CPU time."""


_SIGNERS = {"v4": SigV4Auth, "v4-query": SigV4QueryAuth, "s3v4": S3SigV4Auth, "s3v4-query": S3SigV4QueryAuth}
"""Botocore's own. It prefers those of awscrt, which the extra `edge` installs: a Ctrl-C in their callback is lost, and
the call then waits for ever."""


def aws_session(region: str) -> boto3.Session:
    """Make a session whose clients raise an error for an answer that has no request id.

    AWS gives each answer an id. Something else may answer for it, such as a proxy with its page; botocore would take
    the page for an answer without any field: an empty queue, no items, an object with other bytes.
    """
    AUTH_TYPE_MAPS.update(_SIGNERS)
    session = boto3.Session(region_name=region)
    session.events.register("before-parse", _check_request_id)
    return session


def _check_request_id(response_dict: Mapping[str, Any], operation_model: OperationModel, **_: Any) -> None:
    # Before botocore reads the page: it follows redirects of S3 without end, and fails at JSON that is no object.
    status, body = response_dict["status_code"], response_dict["body"]
    # An error may be tried again, and states its code for `_translated`; but none in 4xx to HEAD.
    if status >= _SERVER_ERROR or (status >= _FIRST_ERROR and operation_model.http.get("method") != "HEAD"):
        return
    in_body = isinstance(body, bytes) and b"equestId>" in body
    if not in_body and not any(name in response_dict["headers"] for name in REQUEST_ID_HEADERS):
        raise ResponseParserError(f"the answer ({status}) has no request id; does a proxy answer for AWS?")


class Clients:
    """boto3 clients, one per service, each made at its first use; all threads share them, as boto3 allows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        try:
            self._session = aws_session(settings.aws.region)
        except BotoCoreError as exc:  # a profile that does not exist, a configuration that cannot be read
            raise ConfigurationError(f"the AWS configuration cannot be used: {exc}; check AWS_PROFILE") from exc
        self._lock = threading.RLock()
        self._config = Config(
            max_pool_connections=settings.aws.max_connections,
            connect_timeout=5,
            # Above the longest long poll, so that an empty receive is no error.
            read_timeout=settings.queue.wait_time_seconds + 10,
            retries={"mode": "standard", "total_max_attempts": 4},
            s3={"addressing_style": "path"} if settings.endpoint_url else {},
            user_agent=USER_AGENT,
        )

    @functools.cached_property
    def s3(self) -> "S3Client":
        """S3."""
        with self._lock:
            client = self._session.client("s3", endpoint_url=self._settings.endpoint_url, config=self._config)
            client.meta.events.register_first("before-call.s3.PutObject", _send_whole)
            return client

    @functools.cached_property
    def sqs(self) -> "SQSClient":
        """SQS."""
        with self._lock:
            return self._session.client("sqs", endpoint_url=self._settings.endpoint_url, config=self._config)

    def quicken(self) -> None:
        """Replace the clients of S3 and SQS: the most frequent calls of the new ones cost less CPU time."""
        from facerec.aws.quick_calls import QuickS3, QuickSqs  # noqa: PLC0415 - not every tier has pycurl

        quick: Any = QuickS3(self.s3, self._session)
        self.s3 = quick
        quick = QuickSqs(self.sqs, self._session)
        self.sqs = quick

    @functools.cached_property
    def dynamodb(self) -> "DynamoDBClient":
        """DynamoDB."""
        with self._lock:
            return self._session.client("dynamodb", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def ec2(self) -> "EC2Client":
        """EC2."""
        with self._lock:
            return self._session.client("ec2", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def cloudformation(self) -> "CloudFormationClient":
        """CloudFormation."""
        with self._lock:
            return self._session.client("cloudformation", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def ecr(self) -> "ECRClient":
        """ECR, the registry of images."""
        with self._lock:
            return self._session.client("ecr", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def iam(self) -> "IAMClient":
        """IAM."""
        with self._lock:
            return self._session.client("iam", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def iot(self) -> "IoTClient":
        """AWS IoT Core's registry: things, certificates, rules."""
        with self._lock:
            return self._session.client("iot", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def iot_data_address(self) -> str:
        """The host name to which devices and the data plane's clients of this account connect."""
        with translated("find the endpoint of AWS IoT Core"):
            return self.iot.describe_endpoint(endpointType="iot:Data-ATS")["endpointAddress"]

    @functools.cached_property
    def iot_data(self) -> "IoTDataPlaneClient":
        """The data plane of AWS IoT Core: messages."""
        endpoint = self._settings.endpoint_url or f"https://{self.iot_data_address}"
        with self._lock:
            return self._session.client("iot-data", endpoint_url=endpoint, config=self._config)

    @functools.cached_property
    def functions(self) -> "LambdaClient":
        """Lambda."""
        with self._lock:
            return self._session.client("lambda", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def greengrass(self) -> "GreengrassV2Client":
        """Greengrass, version 2."""
        with self._lock:
            return self._session.client("greengrassv2", endpoint_url=self._settings.endpoint_url, config=self._config)

    @functools.cached_property
    def cloudwatch(self) -> Any:  # untyped: its stubs are a package of their own, for one call
        """CloudWatch, without retries and with short timeouts: its metrics are not worth a wait."""
        brief = Config(connect_timeout=2, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 1})
        with self._lock:
            return self._session.client(
                "cloudwatch", endpoint_url=self._settings.endpoint_url, config=self._config.merge(brief)
            )


@functools.lru_cache(maxsize=4)
def shared_clients(settings: Settings) -> Clients:
    """Return the process's clients: one set per settings, so that callers share connections and credentials."""
    return Clients(settings)


def _send_whole(params: dict[str, Any], **_: Any) -> None:
    """Replace the stream that botocore has made of the body by its bytes.

    For a stream botocore sends the head alone (`Expect: 100-continue`), and reads the answer to it byte by byte. That
    costs one round trip and 25 system calls.
    """
    if isinstance(params["body"], BytesIO):
        params["body"] = params["body"].getvalue()


def refusal(doing: str, code: str, reason: str, *, of_one: bool) -> FacerecError:
    """Return our error for a code of AWS; `of_one` says that the call was about one message or object."""
    if code in THROTTLING:
        return Throttled(f"could not {doing}: AWS throttles ({code}); retry later")
    if code in _DENIED:
        missing = _DENIED_ACTION.search(reason)
        stated = f"{code}: {missing[1]}" if missing else code
        return ConfigurationError(f"could not {doing}: AWS refused the credentials ({stated}); check the role")
    if of_one and code not in _MISCONFIGURED:
        return Refused(f"could not {doing}: {reason}")
    return ConfigurationError(f"could not {doing}: {reason}; has `facerec provision` been run?")


def translated(doing: str, **known: Callable[[], Exception]) -> AbstractContextManager[None]:
    """Turn botocore's errors into ours, `raise … from`.

    `doing` completes the sentence "could not …"; `known` maps an AWS error code (dots as `_`) to the error to raise.
    """
    return _translated(doing, known, of_one=False)


def translated_for_one(doing: str, **known: Callable[[], Exception]) -> AbstractContextManager[None]:
    """As `translated`, for a call about one message or object: what AWS refuses may be its fault, and is `Refused`."""
    return _translated(doing, known, of_one=True)


@contextmanager
def _translated(doing: str, known: Mapping[str, Callable[[], Exception]], *, of_one: bool) -> Iterator[None]:
    try:
        yield
    except ClientError as exc:
        code = exc.response.get("Error", {}).get("Code") or ""
        status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        make = known.get(code.replace(".", "_"))
        if make is not None:
            raise make() from exc
        stated = code not in _UNSTATED and not code.isdigit()
        if not stated and not exc.operation_name.startswith("Head"):  # an answer to HEAD has no body for a code
            who = "a proxy answer for AWS, or an emulator without this service"
            raise Transient(f"could not {doing}: the answer was {status}; does {who}?") from exc
        if status >= _SERVER_ERROR and code not in THROTTLING:
            raise Transient(f"could not {doing}: AWS answered {status} {code}; retry later") from exc
        raise refusal(doing, code, str(exc), of_one=of_one) from exc
    except (NoCredentialsError, PartialCredentialsError) as exc:
        raise ConfigurationError(
            f"could not {doing}: no AWS credentials found; set them up as for the AWS CLI, or use an instance role"
        ) from exc
    except (BotoCoreError, ResponseParserError) as exc:  # such as an answer that was cut short, or a proxy's page
        raise Transient(f"could not {doing}: {exc}") from exc
