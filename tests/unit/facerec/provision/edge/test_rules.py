"""The template of IoT's rules: which messages go where, and with which permissions."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from facerec.cli import cli
from facerec.errors import FacerecError
from facerec.provision.edge.rules import rules_template
from facerec.provision.edge.rules_deployment import nobody_takes_faces
from facerec.provision.iam_edge import RULES, rule_name
from facerec.settings import Settings
from facerec.settings.edge import EdgeSettings
from tests.support.processes import CHECKOUT


def test_template_in_deploy_is_that_of_the_default_settings() -> None:
    """`make docs` brings it up to date."""
    written = json.loads((CHECKOUT / "deploy" / "edge" / "rules.json").read_text())
    assert written == rules_template(Settings())


def test_template_command_prints_what_it_writes(tmp_path: Path) -> None:
    """A folder that cannot be made is named."""
    shown = CliRunner().invoke(cli, ["edge", "rules", "template"], catch_exceptions=False)
    CliRunner().invoke(cli, ["edge", "rules", "template", "--write", str(tmp_path / "made")], catch_exceptions=False)
    assert (tmp_path / "made" / "rules.json").read_text() == shown.stdout
    (tmp_path / "file").write_text("")
    with pytest.raises(FacerecError, match="see --write"):
        CliRunner().invoke(
            cli, ["edge", "rules", "template", "--write", str(tmp_path / "file/made")], catch_exceptions=False
        )


def test_rule_names_have_no_hyphen() -> None:
    """AWS IoT allows letters, digits and underscores."""
    settings = Settings(prefix="acme-2-test")
    assert [rule_name(settings, rule) for rule in RULES] == [
        "acme_2_test_faces",
        "acme_2_test_no_face",
        "acme_2_test_other",
    ]


def test_role_is_for_these_rules_and_their_queues_alone() -> None:
    """AWS IoT takes it for no rule of another account or name."""
    role = rules_template(Settings(prefix="acme"))["Resources"]["Role"]["Properties"]
    [trust] = role["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    sources = [source["Fn::Sub"] for source in trust["Condition"]["ArnLike"]["aws:SourceArn"]]
    assert sources == [f"arn:aws:iot:us-east-1:${{AWS::AccountId}}:rule/acme_{rule}" for rule in RULES]
    [statement] = role["Policies"][0]["PolicyDocument"]["Statement"]
    assert statement["Action"] == ["sqs:SendMessage"]
    assert [arn["Fn::Sub"].rpartition(":")[2] for arn in statement["Resource"]] == [
        "acme-faces-queue",
        "acme-resp-queue",
        "acme-faces-queue-dlq",
    ]


def test_faces_that_nothing_takes_are_noticed() -> None:
    """Functions take them always, workers only if that is switched on."""
    workers, functions = Settings(app_tier="ec2"), Settings(app_tier="both")
    assert nobody_takes_faces(workers)
    assert not nobody_takes_faces(workers.changed(edge=EdgeSettings(enabled=True)))
    assert not nobody_takes_faces(functions)
