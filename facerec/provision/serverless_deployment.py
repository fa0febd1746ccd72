"""Deploys the app tier as Lambda functions: the checks before, the stacks, the inbox, and the state of it all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from facerec.aws.clients import Clients, translated
from facerec.aws.sqs.queue import SqsQueue
from facerec.errors import ConfigurationError, FacerecError, QueueMissing
from facerec.provision.cloudformation import Change, Event, Stack
from facerec.provision.iam_serverless import FUNCTIONS_STACK, REPOSITORY_STACK
from facerec.provision.iam_statements import HALVES, Half, function_name
from facerec.provision.serverless_stack import ALIAS, IMAGE, functions_template, repository_template
from facerec.settings import Settings

_INBOX = "facerec-inbox"
"""The id of our entry among the bucket's notifications; the others are the operator's own."""
_FUNCTIONS = "LambdaFunctionConfigurations"
_COUNTS = (
    ("visible", "ApproximateNumberOfMessages"),
    ("in_flight", "ApproximateNumberOfMessagesNotVisible"),
    ("delayed", "ApproximateNumberOfMessagesDelayed"),
)


class _Missing(FacerecError):
    """AWS has no function or bucket of this name."""


@dataclass(frozen=True, slots=True)
class FunctionState:
    """A function as Lambda has it."""

    name: str
    state: str
    """Absent, or Lambda's own word and that of the last update."""
    code: str = ""
    """The digest of the image, or the hash of the ZIP."""
    memory_mb: int = 0
    updated_at: str = ""


@dataclass(frozen=True, slots=True)
class EventSource:
    """A queue that invokes a function."""

    queue: str
    function: str
    """Its name, and the alias if that is invoked."""
    state: str
    """Enabled, Disabled, or on its way."""
    max_concurrency: int | None


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """All that `facerec serverless status` shows."""

    stack: str
    """Its state in CloudFormation, or that there is none."""
    url: str | None
    functions: tuple[FunctionState, ...]
    event_sources: tuple[EventSource, ...]
    queues: dict[str, dict[str, int]]
    """The counts of each queue by its name; none of a queue that does not exist."""


def repository_stack(clients: Clients, settings: Settings, *, poll_seconds: float = 1.0) -> Stack:
    """Return the stack of the image repository."""
    return Stack(clients, f"{settings.prefix}-{REPOSITORY_STACK}", poll_seconds=poll_seconds)


def functions_stack(clients: Clients, settings: Settings, *, poll_seconds: float = 1.0) -> Stack:
    """Return the stack of the functions."""
    return Stack(clients, f"{settings.prefix}-{FUNCTIONS_STACK}", poll_seconds=poll_seconds)


def ensure_repository(stack: Stack, settings: Settings, report: Callable[[Event], None]) -> str:
    """Create or repair the image repository; returns its URI."""
    stack.deploy(repository_template(settings), {}, report=report)
    return stack.outputs()["RepositoryUri"]


def deploy_functions(
    clients: Clients,
    settings: Settings,
    stack: Stack,
    *,
    report: Callable[[Event], None] = lambda _: None,
    approve: Callable[[list[Change]], bool] = lambda _: True,
) -> list[Change]:
    """Create or update the functions; returns what was changed, or would be if `approve` returns False.

    Raises `ConfigurationError` if no code is set, if the account runs too few functions at once, and if a queue hides
    its messages for too short a time; `FacerecError` if a queue is missing, or CloudFormation refuses or rolls back.
    """
    serverless = settings.serverless
    if serverless.image is None and serverless.code is None:
        raise ConfigurationError(
            "no code is set for the functions: push an image with `facerec serverless push IMAGE`, and set "
            "FACEREC_SERVERLESS__IMAGE to what it prints"
        )
    _check_concurrency(clients, settings)
    _check_queues(clients, settings)
    parameters = {} if serverless.image is None else {IMAGE: serverless.image}
    approved = True

    def ask(changes: list[Change]) -> bool:
        nonlocal approved
        approved = approve(changes)
        if any(change.replaced and change.kind == "AWS::Lambda::Function" for change in changes):
            raise FacerecError(
                "a function changes between image and ZIP only if it is made again: `facerec serverless remove`, and "
                "deploy again; tasks and faces wait in their queues"
            )
        return approved

    changes = stack.deploy(functions_template(settings), parameters, report=report, approve=ask)
    if approved:
        watch_inbox(clients, settings, serverless.inbox_prefix)
    return changes


def waiting_faces(clients: Clients, settings: Settings) -> int:
    """Return how many messages of faces wait or are being processed: only the recognition function takes them."""
    counts, _ = queue_state(clients, settings.faces_queue)
    return sum(counts.values())


def remove_functions(clients: Clients, settings: Settings, stack: Stack, report: Callable[[Event], None]) -> bool:
    """Delete the functions; returns whether there were any. Queues, buckets and tables stay as they are."""
    watch_inbox(clients, settings, "")
    return stack.delete(report)


def _check_concurrency(clients: Clients, settings: Settings) -> None:
    """Each invocation that the account's quota refuses uses up a delivery of its messages, until they are dead."""
    most = settings.serverless.max_concurrency
    with translated("read the account's quota of Lambda"):
        quota = clients.functions.get_account_settings()["AccountLimit"]["ConcurrentExecutions"]
    if quota < len(HALVES) * most:
        raise ConfigurationError(
            f"the account runs {quota} functions at once, and two event sources may invoke {len(HALVES) * most}: set "
            f"FACEREC_SERVERLESS__MAX_CONCURRENCY to {quota // len(HALVES)} at most, or ask AWS for a higher quota"
        )


def _check_queues(clients: Clients, settings: Settings) -> None:
    serverless = settings.serverless
    # AWS demands the time limit also for an event source that is switched off.
    of_requests = serverless.timeout_seconds if settings.app_tier == "ec2" else serverless.visibility_seconds
    if settings.request_visibility_seconds < of_requests:
        raise ConfigurationError(
            f"FACEREC_QUEUE__VISIBILITY_TIMEOUT_SECONDS must be {of_requests} or more, as "
            "FACEREC_SERVERLESS__TIMEOUT_SECONDS is: change it, and run `facerec provision`"
        )
    for queue, seconds in (
        (settings.request_queue, of_requests),
        (settings.faces_queue, serverless.visibility_seconds),
    ):
        hidden = int(SqsQueue(clients.sqs, queue).attributes("VisibilityTimeout")["VisibilityTimeout"])
        if hidden < seconds:
            raise ConfigurationError(
                f"queue {queue!r} hides a received message for {hidden} s, and these settings need {seconds} s: run "
                "`facerec provision` with the same FACEREC_APP_TIER and FACEREC_SERVERLESS__TIMEOUT_SECONDS"
            )


def watch_inbox(clients: Clients, settings: Settings, prefix: str) -> None:
    """Let new objects of the input bucket under the prefix invoke the detection function; an empty one: none.

    The operator's own notifications of the bucket stay.
    """
    bucket, s3 = settings.input_bucket, clients.s3
    missing = _Missing(f"there is no bucket {bucket!r}; create it with `facerec provision`")
    try:
        with translated(f"read the notifications of bucket {bucket!r}", NoSuchBucket=lambda: missing):
            found: dict[str, Any] = {**s3.get_bucket_notification_configuration(Bucket=bucket)}
    except _Missing:
        if prefix:
            raise
        return
    found.pop("ResponseMetadata", None)
    former = found.get(_FUNCTIONS, [])
    wanted = [entry for entry in former if entry.get("Id") != _INBOX]
    if prefix:
        rule = {"Name": "prefix", "Value": prefix}
        wanted.append(
            {
                "Id": _INBOX,
                "LambdaFunctionArn": _invoked_arn(clients, settings, "detection"),
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [rule]}},
            }
        )
    if wanted == former:
        return
    found[_FUNCTIONS] = wanted
    with translated(f"set the notifications of bucket {bucket!r}"):
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=found)  # type: ignore[arg-type] # as it was read


def _invoked_arn(clients: Clients, settings: Settings, half: Half) -> str:
    name = function_name(settings, half)
    with translated(f"find function {name!r}"):
        arn = clients.functions.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
    return arn if settings.serverless.code is None else f"{arn}:{ALIAS}"


def deployment_state(clients: Clients, settings: Settings) -> DeploymentState:
    """Read what is deployed; what is missing is stated, not an error."""
    stack = functions_stack(clients, settings)
    described = stack.describe()
    names = settings.request_queue, settings.faces_queue, settings.dead_letter_queue, settings.faces_dead_letter_queue
    queues = {name: queue_state(clients, name) for name in names}
    return DeploymentState(
        stack=f"{stack.name} is {described['StackStatus']}" if described else f"there is no stack {stack.name}",
        url=stack.outputs().get("DetectionUrl"),
        functions=tuple(_function_state(clients, function_name(settings, half)) for half in HALVES),
        event_sources=tuple(source for _, arn in queues.values() if arn for source in _event_sources(clients, arn)),
        queues={name: counts for name, (counts, _) in queues.items()},
    )


def _function_state(clients: Clients, name: str) -> FunctionState:
    absent = _Missing(name)
    try:
        with translated(f"look at function {name!r}", ResourceNotFoundException=lambda: absent):
            found = clients.functions.get_function(FunctionName=name)
    except _Missing:
        return FunctionState(name, "absent")
    configuration = found["Configuration"]
    image = found["Code"].get("ResolvedImageUri") or found["Code"].get("ImageUri") or ""
    words = (configuration.get("State", ""), configuration.get("LastUpdateStatus", ""))
    return FunctionState(
        name,
        ", ".join(word for word in words if word),
        image.rpartition("@")[2] or configuration.get("CodeSha256", ""),
        configuration.get("MemorySize", 0),
        configuration.get("LastModified", ""),
    )


def _event_sources(clients: Clients, queue_arn: str) -> list[EventSource]:
    with translated(f"list the event sources of {queue_arn}"):
        found = clients.functions.list_event_source_mappings(EventSourceArn=queue_arn)["EventSourceMappings"]
    return [
        EventSource(
            queue_arn.rpartition(":")[2],
            one["FunctionArn"].partition(":function:")[2],
            one["State"],
            one.get("ScalingConfig", {}).get("MaximumConcurrency"),
        )
        for one in found
    ]


def queue_state(clients: Clients, queue: str) -> tuple[dict[str, int], str]:
    """Return a queue's counts and its ARN; empty ones if it does not exist."""
    try:
        read = SqsQueue(clients.sqs, queue).attributes("QueueArn", *(attribute for _, attribute in _COUNTS))
    except QueueMissing:
        return {}, ""
    return {name: int(read[attribute]) for name, attribute in _COUNTS}, read["QueueArn"]
