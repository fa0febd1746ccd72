"""The templates of the Lambda functions: what CloudFormation makes of them after the SAM transform."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import AnyHttpUrl, SecretStr
from samtranslator.translator.transform import transform

from facerec.cli import cli
from facerec.errors import ConfigurationError, FacerecError
from facerec.provision.iam_policies import policy
from facerec.provision.iam_statements import HALVES, Place
from facerec.provision.serverless_stack import function_environment, functions_template, repository_template
from facerec.settings import Settings
from facerec.settings.resources import AwsSettings, NameSettings
from facerec.settings.tiers import AutoscaleSettings, FlowerSettings, ServerlessSettings, WebSettings
from tests.support.processes import CHECKOUT

TEMPLATE_BYTES = 51_200
"""CloudFormation's limit of a template that is sent with the call."""


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The defaults are the defaults, also while an emulator runs for other tests; the transform asks for the region."""
    for name in ("FACEREC_AWS__ENDPOINT_URL", "FACEREC_WEB__AUTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def transformed(settings: Settings | None = None, **serverless: Any) -> dict[str, Any]:
    """The properties of every resource by its name, as the SAM transform makes them."""
    settings = settings or Settings(serverless=ServerlessSettings(**serverless))
    made = transform(functions_template(settings), {}, SimpleNamespace(load=dict))
    return {name: resource.get("Properties", {}) for name, resource in made["Resources"].items()}


def test_templates_in_deploy_are_those_of_the_default_settings() -> None:
    """`make docs` brings them up to date."""
    folder = CHECKOUT / "deploy" / "serverless"
    written = {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}
    assert written == {"functions": functions_template(Settings()), "repository": repository_template(Settings())}


def test_template_command_prints_what_it_writes(tmp_path: Any) -> None:
    """One template, or both; a folder that cannot be made is named."""
    shown = CliRunner().invoke(cli, ["serverless", "template", "functions"], catch_exceptions=False)
    assert json.loads(shown.stdout) == functions_template(Settings())
    CliRunner().invoke(cli, ["serverless", "template", "--write", str(tmp_path / "made")], catch_exceptions=False)
    assert (tmp_path / "made" / "functions.json").read_text() == shown.stdout
    (tmp_path / "file").write_text("")
    with pytest.raises(FacerecError, match="see --write"):
        CliRunner().invoke(
            cli, ["serverless", "template", "--write", str(tmp_path / "file/made")], catch_exceptions=False
        )


def test_functions_run_the_image_by_its_digest() -> None:
    """Each its own handler, with the memory as a parameter, traces, and logs that end."""
    template = functions_template(Settings(serverless=ServerlessSettings(recognition_memory_mb=3008, log_days=30)))
    assert template["Parameters"]["RecognitionMemory"]["Default"] == 3008
    assert "sha256" in template["Parameters"]["Image"]["AllowedPattern"]
    made = transformed(architecture="arm64", recognition_memory_mb=3008, log_days=30, timeout_seconds=20)
    for half, name in (("detection", "Detection"), ("recognition", "Recognition")):
        function = made[name]
        assert function["FunctionName"] == f"facerec-face-{half}"
        assert function["Code"] == {"ImageUri": {"Ref": "Image"}}
        assert function["ImageConfig"] == {"Command": [f"facerec.serverless.{half}.handler"]}
        assert (function["Architectures"], function["Timeout"]) == (["arm64"], 20)
        assert function["MemorySize"] == {"Ref": f"{name}Memory"}
        assert function["TracingConfig"] == {"Mode": "Active"}
        assert function["LoggingConfig"] == {"LogGroup": {"Ref": f"{name}Logs"}}
        assert made[f"{name}Logs"] == {"LogGroupName": f"/aws/lambda/facerec-face-{half}", "RetentionInDays": 30}
        assert "ReservedConcurrentExecutions" not in function
    assert made["Detection"]["EphemeralStorage"] == {"Size": 512}
    assert made["Recognition"]["EphemeralStorage"] == {"Size": 6016}  # a gallery as large as the memory, and the next


@pytest.mark.parametrize(("app_tier", "enabled"), [("ec2", False), ("both", True), ("serverless", True)])
def test_tasks_invoke_the_detection_function_if_the_app_tier_says_so(app_tier: Any, *, enabled: bool) -> None:
    """Faces always invoke the recognition function: URL calls send them, too."""
    made = transformed(Settings(app_tier=app_tier, serverless=ServerlessSettings(max_concurrency=7, batch_size=5)))
    for name, queue, on in (
        ("DetectionTasks", "facerec-req-queue", enabled),
        ("RecognitionFaces", "facerec-faces-queue", True),
    ):
        mapping = made[name]
        assert mapping["EventSourceArn"] == {"Fn::Sub": f"arn:aws:sqs:us-east-1:${{AWS::AccountId}}:{queue}"}
        assert mapping["Enabled"] is on
        assert mapping["BatchSize"] == 5
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["ScalingConfig"] == {"MaximumConcurrency": 7}
        assert "MaximumBatchingWindowInSeconds" not in mapping
    assert ("TasksAge" in made) is enabled


def test_a_move_changes_no_function() -> None:
    """It would replace warm instances, and publish a version of a ZIP."""
    made = [transformed(Settings(app_tier=app_tier)) for app_tier in ("ec2", "both", "serverless")]
    for name in ("Detection", "Recognition"):
        assert made[0][name] == made[1][name] == made[2][name]


def test_roles_have_the_policies_of_the_other_roles_code() -> None:
    """Inline, for the account where the stack is; nothing else is attached."""
    made = transformed()
    for half in HALVES:
        role = made[f"{half.capitalize()}Role"]
        assert role["RoleName"] == f"facerec-{half}"
        assert set(role) == {"AssumeRolePolicyDocument", "Policies", "RoleName"}
        [inline] = role["Policies"]
        text = json.dumps(_filled_in(inline["PolicyDocument"], "123456789012"))
        assert json.loads(text) == policy(half, Place(Settings(), "123456789012"))
        assert made[half.capitalize()]["Role"] == {"Fn::GetAtt": [f"{half.capitalize()}Role", "Arn"]}


def _filled_in(value: Any, account: str) -> Any:
    match value:
        case {"Fn::Sub": text}:
            return text.replace("${AWS::AccountId}", account)
        case dict():
            return {name: _filled_in(one, account) for name, one in value.items()}
        case list():
            return [_filled_in(one, account) for one in value]
    return value


def test_url_takes_signed_calls_alone_unless_it_is_open() -> None:
    """An open URL needs two permissions, the second for calls through the URL only."""
    made = transformed()
    assert made["DetectionUrl"]["AuthType"] == "AWS_IAM"
    assert not [one for one in made.values() if one.get("Principal") == "*"]
    made = transformed(url_auth="open", reserved_concurrency=20)
    assert made["DetectionUrl"]["AuthType"] == "NONE"
    assert made["Detection"]["ReservedConcurrentExecutions"] == 20
    public = {one["Action"]: one for one in made.values() if one.get("Principal") == "*"}
    assert set(public) == {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction"}
    assert public["lambda:InvokeFunctionUrl"]["FunctionUrlAuthType"] == "NONE"
    assert public["lambda:InvokeFunction"]["InvokedViaFunctionUrl"] is True


def test_inbox_lets_the_bucket_invoke_and_keeps_what_failed() -> None:
    """Of this account's bucket alone; a failed event goes to the dead-letter queue."""
    assert "InboxPermission" not in transformed()
    assert "DetectionEventInvokeConfig" not in transformed()
    made = transformed(inbox_prefix="inbox/")
    assert made["InboxPermission"] == {
        "Action": "lambda:InvokeFunction",
        "FunctionName": {"Ref": "Detection"},
        "Principal": "s3.amazonaws.com",
        "SourceAccount": {"Ref": "AWS::AccountId"},
        "SourceArn": "arn:aws:s3:::facerec-in-bucket",
    }
    [failed] = made["DetectionEventInvokeConfig"]["DestinationConfig"].values()
    assert failed["Destination"]["Fn::Sub"].endswith(":facerec-req-queue-dlq")


def test_zip_is_snapped_and_called_by_its_alias() -> None:
    """By URL, queues and bucket: SnapStart prepares versions, not the latest code."""
    made = transformed(code="s3://releases/facerec/lambda-1.0.zip", inbox_prefix="inbox/")
    function = made["Recognition"]
    assert function["Code"] == {"S3Bucket": "releases", "S3Key": "facerec/lambda-1.0.zip"}
    assert (function["PackageType"], function["Runtime"]) == ("Zip", "python3.12")
    assert function["Handler"] == "facerec.serverless.recognition.handler"
    assert function["SnapStart"] == {"ApplyOn": "PublishedVersions"}
    assert function["EphemeralStorage"] == {"Size": 512}  # SnapStart takes no more
    assert made["RecognitionFaces"]["FunctionName"] == {"Ref": "RecognitionAliaslive"}
    for name in ("DetectionTasks", "InboxPermission"):
        assert made[name]["FunctionName"] == {"Ref": "DetectionAliaslive"}
    assert made["DetectionUrl"]["TargetFunctionArn"] == {"Ref": "DetectionAliaslive"}
    parameters = functions_template(Settings(serverless=ServerlessSettings(code="s3://b/k.zip")))["Parameters"]
    assert "Image" not in parameters


def test_a_changed_setting_publishes_a_new_version_of_a_zip() -> None:
    """Otherwise the alias would keep the former environment."""

    def versions(timeout_seconds: int) -> set[str]:
        made = transformed(code="s3://b/k.zip", timeout_seconds=timeout_seconds)
        return {name for name in made if "Version" in name}

    assert versions(15).isdisjoint(versions(20))


def test_former_version_of_a_zip_is_deleted() -> None:
    """Each version's snapshot is paid for by the hour."""
    template = functions_template(Settings(serverless=ServerlessSettings(code="s3://b/k.zip")))
    made = transform(template, {}, SimpleNamespace(load=dict))["Resources"]
    versions = [one for one in made.values() if one["Type"] == "AWS::Lambda::Version"]
    assert [one["DeletionPolicy"] for one in versions] == ["Delete", "Delete"]


def test_environment_is_what_the_app_tier_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes back as it was, without secrets, and with the functions' own engine and folders."""
    settings = Settings(
        prefix="staging",
        engine="openvino",
        precision="bf16",
        app_tier="both",
        max_megapixels=20.5,
        aws=AwsSettings(region="eu-west-3"),
        names=NameSettings(input_bucket="uploads"),
        web=WebSettings(wait_seconds=300, port=9000, max_upload_bytes=1_000_000),
        autoscale=AutoscaleSettings(max_instances=3),
        flower=FlowerSettings(password=SecretStr("correct horse")),
        serverless=ServerlessSettings(timeout_seconds=20),
    )
    environment = function_environment(settings)
    assert "correct horse" not in json.dumps(functions_template(settings))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    read = Settings.load()
    assert (read.engine, read.precision, str(read.model.dir)) == ("onnxruntime", "auto", "/opt/facerec/model")
    assert str(read.model.cache_dir).startswith("/tmp/")  # noqa: S108 - the one folder where a function may write
    assert (read.serverless.visibility_seconds, read.web.max_upload_bytes) == (120, 1_000_000)
    kept = ("prefix", "max_megapixels", "aws", "names")
    assert all(getattr(read, name) == getattr(settings, name) for name in kept)
    assert not [name for name in environment if name.startswith(("FACEREC_FLOWER", "FACEREC_AUTOSCALE"))]


def test_settings_that_lambda_would_refuse_are_refused() -> None:
    """A password, which everybody who may look at a function could read; more than 4 KB."""
    endpoint = AwsSettings(endpoint_url=AnyHttpUrl("http://user:hunter2@localhost:4566"))
    with pytest.raises(ConfigurationError, match="holds a password"):
        functions_template(Settings(aws=endpoint))
    with pytest.raises(ConfigurationError, match="Lambda takes 4096"):
        functions_template(Settings(names=NameSettings(input_bucket="b" * 4000)))


def test_alarms_tell_the_topic() -> None:
    """Of failing, refused and slow invocations, waiting messages and dead letters; names begin with the stack's."""
    topic = "arn:aws:sns:us-east-1:123456789012:operators"
    made = transformed(Settings(app_tier="both", serverless=ServerlessSettings(alarm_topic=topic)))
    alarms = {one["AlarmName"]: one for one in made.values() if "AlarmName" in one}
    assert {name.removeprefix("facerec-serverless-") for name in alarms} == {
        *(f"{half}-{what}" for half in HALVES for what in ("errors", "throttles", "duration")),
        "detection-url-errors",
        *(f"{queue}-{what}" for queue in ("faces", "tasks") for what in ("age", "dead-letters")),
    }
    assert all(one["AlarmActions"] == [topic] for one in alarms.values())
    assert alarms["facerec-serverless-detection-duration"]["Threshold"] == 12_000  # ms, of 15 s
    assert alarms["facerec-serverless-faces-age"]["Threshold"] == 90
    assert "AlarmActions" not in transformed()["DetectionErrors"]


def test_repository_keeps_tags_and_is_read_by_the_functions_alone() -> None:
    """Scanned, immutable, and limited to the last images."""
    repository = repository_template(Settings(prefix="staging"))["Resources"]["Repository"]["Properties"]
    assert repository["RepositoryName"] == "staging"
    assert repository["ImageScanningConfiguration"] == {"ScanOnPush": True}
    assert repository["ImageTagMutability"] == "IMMUTABLE"
    rules = json.loads(repository["LifecyclePolicy"]["LifecyclePolicyText"])["rules"]
    assert [rule["selection"]["tagStatus"] for rule in rules] == ["any"]
    [statement] = repository["RepositoryPolicyText"]["Statement"]
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}
    sources = statement["Condition"]["ArnLike"]["aws:SourceArn"]
    assert [source["Fn::Sub"].rpartition(":")[2] for source in sources] == [
        "staging-face-detection",
        "staging-face-recognition",
    ]


def test_template_is_small_enough_for_a_call() -> None:
    """With every option."""
    everything = ServerlessSettings(
        url_auth="open", inbox_prefix="inbox/", reserved_concurrency=100, alarm_topic="arn:aws:sns:us-east-1:1:topic"
    )
    template = functions_template(Settings(prefix="a" * 31, app_tier="both", serverless=everything))
    assert len(json.dumps(template, separators=(",", ":"))) < TEMPLATE_BYTES / 2
