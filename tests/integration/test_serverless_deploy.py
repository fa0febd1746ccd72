"""`facerec serverless` against the emulated AWS: deploy, status, update, remove; and push with a fake skopeo.

The emulator applies the SAM transform and makes every resource. What it takes without a look is asserted on the
template, in the unit tests: permissions, quotas, and whether Lambda can read the image.
"""

import json
import os
import re
import sys
import tarfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from textwrap import dedent
from typing import Any
from zipfile import ZipFile

import pytest
from click.testing import CliRunner, Result

from facerec.aws.clients import Clients
from facerec.aws.sqs.queue import SqsQueue
from facerec.cli import cli
from facerec.errors import ConfigurationError, FacerecError
from facerec.local.emulator import EmulatorKind
from facerec.processes.addresses import poll_until
from facerec.provision.cloudformation import Stack
from facerec.provision.provisioning import provision
from facerec.settings import Settings
from tests.support.emulated import EmulatedAws, emulated_aws

IMAGE = f"123456789012.dkr.ecr.us-east-1.amazonaws.com/facerec@sha256:{'1' * 64}"
NEWER = IMAGE.replace("1" * 64, "2" * 64)

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """An emulator of its own: event sources of an emulated Lambda take messages out of the queues."""
    services = "cloudformation,cloudwatch,ecr,iam,lambda,logs"
    with emulated_aws(EmulatorKind.MINISTACK, tmp_path_factory.mktemp("serverless"), services=services) as aws:
        yield aws


@pytest.fixture
def run(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `facerec serverless …` on resources of its own; settings are given as keywords."""
    monkeypatch.setenv("FACEREC_PREFIX", fresh.prefix)

    def run(*arguments: str, stdin: str = "", **settings: str) -> Result:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"FACEREC_{name.upper()}", value)
            return CliRunner().invoke(cli, ["serverless", *arguments], input=stdin, catch_exceptions=False)

    return run


def state(run: Run, **settings: str) -> Any:
    """What `status` shows, once the functions are active, for which the emulator's CloudFormation does not wait."""
    shown: Any = None

    def settled() -> bool:
        nonlocal shown
        shown = json.loads(run("status", "--json", **settings).stdout)
        return not any("Pending" in one["state"] or "InProgress" in one["state"] for one in shown["functions"])

    assert poll_until(settled, 30)
    return shown


def test_functions_are_deployed_updated_and_removed(run: Run, fresh: Settings) -> None:
    """First beside the fleet, then for its tasks and with an inbox; a second deployment of the same changes nothing."""
    assert "there is no stack" in run("status").stdout
    made = run("deploy", serverless__image=IMAGE)
    assert made.exit_code == 0
    assert "Add      Detection " in made.stdout
    assert "CREATE_COMPLETE              Recognition" in made.stderr
    assert "the workers on EC2 take the tasks" in made.stderr
    shown = state(run)
    assert shown["stack"] == f"{fresh.prefix}-serverless is CREATE_COMPLETE"
    assert made.stdout.splitlines()[-1] == shown["url"]
    assert {one["name"]: (one["state"], one["code"], one["memory_mb"]) for one in shown["functions"]} == {
        f"{fresh.prefix}-face-detection": ("Active, Successful", IMAGE.partition("@")[2], 1769),
        f"{fresh.prefix}-face-recognition": ("Active, Successful", IMAGE.partition("@")[2], 1769),
    }
    # The emulator shows a new event source as enabled, whatever the template says.
    assert {one["queue"]: one["max_concurrency"] for one in shown["event_sources"]} == {
        fresh.request_queue: 15,
        fresh.faces_queue: 15,
    }
    assert shown["queues"][fresh.request_queue] == {"visible": 0, "in_flight": 0, "delayed": 0}
    again = run("deploy", serverless__image=IMAGE)
    assert (again.stderr.splitlines()[0], again.stdout.strip()) == (
        f"0 changes made in stack {fresh.prefix}-serverless",
        shown["url"],
    )

    both = fresh.changed(app_tier="both")
    provision(Clients(both), both)
    changed = {"app_tier": "both", "serverless__image": NEWER, "serverless__inbox_prefix": "inbox/"}
    previewed = run("deploy", "--dry-run", **changed)
    assert "Modify   DetectionTasks" in previewed.stdout
    assert "nothing was changed" in previewed.stderr
    assert state(run) == shown
    assert run("deploy", **changed).exit_code == 0
    shown = state(run)
    assert {one["state"] for one in shown["event_sources"]} == {"Enabled"}
    assert {one["code"] for one in shown["functions"]} == {NEWER.partition("@")[2]}
    assert [one["Id"] for one in _notified(fresh)] == ["facerec-inbox"]
    table = run("status").stdout
    assert all(word in table for word in ("UPDATE_COMPLETE", shown["url"], fresh.faces_queue, "Enabled"))

    assert run("remove", stdin="n\n").exit_code == 1
    assert state(run)["functions"][0]["state"] == "Active, Successful"
    removed = run("remove", "--images", stdin="y\n")
    assert "serverless is deleted" in removed.stderr
    assert {one["state"] for one in state(run)["functions"]} == {"absent"}
    assert _notified(fresh) == []


def _notified(settings: Settings) -> list[Any]:
    found: Any = Clients(settings).s3.get_bucket_notification_configuration(Bucket=settings.input_bucket)
    return list(found.get("LambdaFunctionConfigurations", []))


def test_zip_is_deployed_behind_its_alias(run: Run, fresh: Settings) -> None:
    """Event sources and inbox call the version that SnapStart has prepared."""
    content = BytesIO()
    with ZipFile(content, "w") as archive:
        archive.writestr("facerec/__init__.py", "")
    Clients(fresh).s3.put_object(Bucket=fresh.model_bucket, Key="lambda-1.zip", Body=content.getvalue())
    zipped = {"serverless__code": f"s3://{fresh.model_bucket}/lambda-1.zip", "serverless__inbox_prefix": "inbox/"}
    assert run("deploy", **zipped).exit_code == 0
    shown = state(run, **zipped)
    assert {one["queue"] for one in shown["event_sources"]} == {fresh.request_queue, fresh.faces_queue}
    assert all(one["code"] and not one["code"].startswith("sha256:") for one in shown["functions"])
    [notified] = _notified(fresh)
    assert notified["LambdaFunctionArn"].endswith("-face-detection:live")
    function = Clients(fresh).functions.get_function(FunctionName=f"{fresh.prefix}-face-recognition", Qualifier="live")
    assert function["Configuration"]["SnapStart"]["ApplyOn"] == "PublishedVersions"
    assert run("remove", "--yes", **zipped).exit_code == 0


def test_functions_are_not_removed_while_faces_wait(run: Run, fresh: Settings) -> None:
    """Nothing else takes them."""
    SqsQueue(Clients(fresh).sqs, fresh.faces_queue).send("{}")
    with pytest.raises(FacerecError, match="1 messages wait in queue"):
        run("remove", "--yes")
    assert run("remove", "--yes", "--force").exit_code == 0


def test_what_does_not_exist_is_shown_and_removed_as_absent(run: Run) -> None:
    """An operator who has deleted queues and buckets can still look, and remove the rest."""
    elsewhere = {"prefix": "never-provisioned"}
    shown = run("status", **elsewhere)
    assert shown.exit_code == 0
    assert re.search(r"^never-provisioned-faces-queue +absent", shown.stdout, re.MULTILINE)
    assert "there is no stack" in run("remove", "--yes", **elsewhere).stderr


def test_functions_with_a_long_time_limit_are_deployed_beside_workers(run: Run, fresh: Settings) -> None:
    """AWS demands that the request queue hides messages as long, also while its event source is off."""
    long = {"serverless__timeout_seconds": "40"}
    with pytest.raises(ConfigurationError, match="QUEUE__VISIBILITY_TIMEOUT_SECONDS must be 40 or more"):
        run("deploy", serverless__image=IMAGE, **long)
    long["queue__visibility_timeout_seconds"] = "40"
    with pytest.raises(ConfigurationError, match=r"hides a received message for 30 s.*need 40 s: run `facerec prov"):
        run("deploy", serverless__image=IMAGE, **long)
    settings = fresh.changed(
        serverless=fresh.serverless.model_copy(update={"timeout_seconds": 40}),
        queue=fresh.queue.model_copy(update={"visibility_timeout_seconds": 40}),
    )
    provision(Clients(settings), settings)
    assert run("deploy", serverless__image=IMAGE, **long).exit_code == 0


def test_account_that_runs_too_few_functions_is_told(run: Run) -> None:
    """Refused invocations would make dead letters of tasks."""
    with pytest.raises(
        ConfigurationError, match=r"event sources may invoke 2000: set .*MAX_CONCURRENCY to \d+ at most"
    ):
        run("deploy", serverless__image=IMAGE, serverless__max_concurrency="1000")


def test_change_between_image_and_zip_is_refused_before_it_begins(run: Run, fresh: Settings) -> None:
    """CloudFormation would roll it back: it cannot replace a function that has a name of its own."""
    assert run("deploy", serverless__image=IMAGE).exit_code == 0
    for options in ((), ("--dry-run",)):
        with pytest.raises(FacerecError, match="`facerec serverless remove`, and deploy again"):
            run("deploy", *options, serverless__code=f"s3://{fresh.model_bucket}/lambda-1.zip")
    assert state(run)["stack"].endswith("is CREATE_COMPLETE")


def test_dry_run_of_a_first_deployment_leaves_nothing(run: Run) -> None:
    """Not even the empty stack that CloudFormation makes for the change set."""
    previewed = run("deploy", "--dry-run", serverless__image=IMAGE)
    assert "Add      Detection " in previewed.stdout
    assert state(run)["stack"].startswith("there is no stack")


def test_operators_own_notifications_stay(run: Run, fresh: Settings) -> None:
    """Those to a queue, and to another function; ours is replaced when the folder changes."""
    s3 = Clients(fresh).s3
    queue = f"arn:aws:sqs:us-east-1:000000000000:{fresh.events_queue}"
    theirs: Any = {"QueueConfigurations": [{"Id": "theirs", "QueueArn": queue, "Events": ["s3:ObjectRemoved:*"]}]}
    s3.put_bucket_notification_configuration(Bucket=fresh.input_bucket, NotificationConfiguration=theirs)
    for folder in ("inbox/", "other/"):
        run("deploy", serverless__image=IMAGE, serverless__inbox_prefix=folder)
        [ours] = _notified(fresh)
        assert [rule["Value"] for rule in ours["Filter"]["Key"]["FilterRules"]] == [folder]
    run("deploy", serverless__image=IMAGE)
    assert _notified(fresh) == []
    assert (
        s3.get_bucket_notification_configuration(Bucket=fresh.input_bucket)["QueueConfigurations"][0]["Id"] == "theirs"
    )


def test_deployment_names_what_is_missing(run: Run, fresh: Settings) -> None:
    """Before anything is changed, each with what to do."""
    with pytest.raises(ConfigurationError, match="facerec serverless push IMAGE"):
        run("deploy")
    with pytest.raises(
        ConfigurationError, match=r"hides a received message for 30 s.*need 90 s: run `facerec provision`"
    ):
        run("deploy", serverless__image=IMAGE, app_tier="serverless")
    with pytest.raises(FacerecError, match="create it with `facerec provision`"):
        run("deploy", serverless__image=IMAGE, names__faces_queue="nowhere")
    assert state(run)["stack"].startswith("there is no stack")


def test_failed_creation_is_told_and_removed_before_the_next(fresh: Settings) -> None:
    """CloudFormation rolls back, and such a stack can only be deleted."""
    stack = Stack(Clients(fresh), f"{fresh.prefix}-failing", poll_seconds=0.1)
    layer = "arn:aws:lambda:us-east-1:000000000000:layer:none:1"
    function = {"Type": "AWS::Lambda::Function", "Properties": {"Layers": [layer]}}
    with pytest.raises(FacerecError, match=r"is ROLLBACK_COMPLETE: Broken: .*layer"):
        stack.deploy({"Resources": {"Broken": function}}, {})
    with pytest.raises(FacerecError, match="can only be deleted: `facerec serverless remove`"):
        stack.deploy({"Resources": {"Broken": function}}, {})
    assert stack.delete()
    assert not stack.delete()


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ({"Type": "AWS::No::Such"}, "AWS::No::Such"),
        ({"Type": "AWS::Serverless::Function", "Properties": {"PackageType": "Tar"}}, "PackageType"),
    ],
)
def test_template_that_cloudformation_refuses_is_told(fresh: Settings, resource: Any, reason: str) -> None:
    """In one sentence, and no stack stays."""
    stack = Stack(Clients(fresh), f"{fresh.prefix}-wrong", poll_seconds=0.1)
    with pytest.raises(FacerecError, match=f"CloudFormation refuses to change stack .*{reason}"):
        stack.deploy({"Transform": "AWS::Serverless-2016-10-31", "Resources": {"X": resource}}, {})
    assert stack.describe() is None


TOOL = """
    #!{python}
    import json, sys, urllib.request

    while sys.argv[1].startswith("--override-"):
        del sys.argv[1]
    if sys.argv[1] == "inspect":
        print("amd64" if sys.argv[0].endswith("docker") else json.dumps({{"architecture": "amd64"}}))
        sys.exit()
    stdin = sys.stdin.read() if "--password-stdin" in sys.argv else ""
    with open({calls!r}, "a") as calls:
        calls.write(json.dumps([sys.argv[1:], stdin]) + "\\n")
    if sys.argv[1] == {fails!r}:
        sys.exit("level=fatal msg=denied")
    if sys.argv[1] in ("copy", "push"):
        name, _, tag = sys.argv[-1].rpartition("/")[2].partition(":")
        manifest = json.dumps({{"schemaVersion": 2, "arguments": sys.argv[1:]}})
        image = {{"repositoryName": name, "imageTag": tag, "imageManifest": manifest}}
        target = {{"X-Amz-Target": "AmazonEC2ContainerRegistry_V20150921.PutImage"}}
        urllib.request.urlopen(urllib.request.Request({endpoint!r}, json.dumps(image).encode(), target))
"""


Install = Callable[..., Callable[[], list[Any]]]


@pytest.fixture
def install(fresh: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts fake tools on an otherwise empty PATH that note their calls, and returns what reads these."""

    def install(*tools: str, fails: str = "") -> Callable[[], list[Any]]:
        calls = tmp_path / "calls"
        script = TOOL.format(python=sys.executable, calls=str(calls), fails=fails, endpoint=fresh.endpoint_url)
        folder = tmp_path / "bin"
        folder.mkdir()
        for tool in tools:
            (folder / tool).write_text(dedent(script).lstrip())
            (folder / tool).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return install


def test_pushed_image_is_what_can_be_deployed(run: Run, fresh: Settings, install: Install) -> None:
    """Into a repository of its own; its reference is printed alone, and the token is never an argument."""
    calls = install("skopeo")
    pushed = run("push", "facerec-lambda:1.0", "--tag", "1.0")
    reference = pushed.stdout.strip()
    uri = Stack(Clients(fresh), f"{fresh.prefix}-repository").outputs()["RepositoryUri"]
    assert reference.startswith(f"{uri}@sha256:")
    (login, token), (copy, nothing) = calls()
    assert login[0] == "login"
    assert login[2:] == ["--username", "AWS", "--password-stdin", uri.partition("/")[0]]
    assert token
    assert nothing == ""
    assert token not in json.dumps([login, copy])
    assert copy[2:] == ["containers-storage:facerec-lambda:1.0", f"docker://{uri}:1.0"]
    assert login[1] == copy[1]
    assert not Path(copy[1].partition("=")[2]).exists()  # the login goes with the command
    assert run("deploy", serverless__image=reference).exit_code == 0
    removed = run("remove", "--images", "--yes")
    assert "repository is deleted" in removed.stderr


def test_archives_and_folders_are_pushed_as_what_they_are(run: Run, install: Install, tmp_path: Path) -> None:
    """By what is in them, not by their names."""
    calls = install("skopeo")
    (tmp_path / "layout").mkdir()
    for name, member in (("oci", "oci-layout"), ("docker", "manifest.json")):
        (tmp_path / member).write_text("{}")
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(tmp_path / member, member)
    sources = {
        f"{tmp_path}/layout": f"oci:{tmp_path}/layout",
        f"{tmp_path}/oci.tar": f"oci-archive:{tmp_path}/oci.tar",
        f"{tmp_path}/docker.tar": f"docker-archive:{tmp_path}/docker.tar",
        "docker-daemon:facerec:1": "docker-daemon:facerec:1",
    }
    for number, image in enumerate(sources):
        run("push", image, "--tag", str(number))
    assert [arguments[2] for arguments, _ in calls() if arguments[0] == "copy"] == list(sources.values())
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(FacerecError, match="no archive of an image"):
        run("push", str(tmp_path / "text"))


def test_push_that_fails_is_told(run: Run, install: Install, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the tool's own last line, or that there is no tool."""
    install("skopeo", fails="login")
    with pytest.raises(FacerecError, match=r"`skopeo login` failed: .*denied"):
        run("push", "facerec-lambda")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(ConfigurationError, match="neither skopeo nor docker nor podman"):
        run("push", "facerec-lambda")


@pytest.mark.parametrize("tool", ["skopeo", "docker"])
def test_image_for_another_processor_is_not_pushed(run: Run, fresh: Settings, install: Install, tool: str) -> None:
    """Lambda would take it, and fail at each start; not even a repository is made for it."""
    install(tool)
    with pytest.raises(FacerecError, match=r"is for amd64, and FACEREC_SERVERLESS__ARCHITECTURE is arm64"):
        run("push", "facerec-lambda", serverless__architecture="arm64")
    assert Stack(Clients(fresh), f"{fresh.prefix}-repository").describe() is None


def test_docker_pushes_if_skopeo_is_missing(run: Run, fresh: Settings, install: Install) -> None:
    """And forgets the login."""
    calls = install("docker")
    reference = run("push", "facerec-lambda", "--tag", "1.0").stdout.strip()
    uri = reference.partition("@")[0]
    (login, token), *others = calls()
    assert (login[0], token != "") == ("login", True)
    assert [arguments for arguments, _ in others] == [
        ["tag", "facerec-lambda", f"{uri}:1.0"],
        ["push", f"{uri}:1.0"],
        ["logout", uri.partition("/")[0]],
    ]
    assert token not in json.dumps([arguments for arguments, _ in calls()])


def test_image_that_docker_has_is_taken_from_docker(run: Run, install: Install) -> None:
    """Skopeo looks into the storage of podman and buildah otherwise."""
    calls = install("docker", "skopeo")
    run("push", "facerec-lambda", "--tag", "1.0")
    assert [arguments[2] for arguments, _ in calls() if arguments[0] == "copy"] == [
        "docker-daemon:facerec-lambda:latest"
    ]
