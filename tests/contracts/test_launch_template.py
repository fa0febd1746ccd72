"""The launch template, held to the same behaviour on both emulators."""

import base64
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from facerec.aws.clients import Clients
from facerec.errors import ConfigurationError
from facerec.local.emulator import EmulatorKind
from facerec.provision.launch_template import provision_launch_template
from facerec.provision.provisioning import provision
from facerec.provision.resources import Resource, State
from facerec.provision.user_data import user_data
from facerec.settings import Settings
from facerec.settings.resources import InstancesSettings
from tests.support.emulated import EmulatedAws, emulated_aws


@pytest.fixture(scope="module", params=EmulatorKind)
def aws(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """Each emulator in turn."""
    with emulated_aws(request.param, tmp_path_factory.mktemp(str(request.param))) as found:
        yield found


@pytest.fixture(scope="module")
def clients(aws: EmulatedAws) -> Clients:
    """Clients of the emulator."""
    return Clients(aws.settings)


@pytest.fixture(scope="module")
def image_id(clients: Clients) -> str:
    """An AMI that the emulator knows, with a small enough root volume."""
    images = clients.ec2.describe_images(Owners=["amazon", "self"])["Images"]
    return next(image["ImageId"] for image in images if image.get("RootDeviceName") == "/dev/xvda")


@pytest.fixture
def settings(aws: EmulatedAws, image_id: str) -> Settings:
    """A deployment of this test's own."""
    prefix = f"test-{uuid.uuid4().hex[:12]}"
    return aws.settings.changed(prefix=prefix, instances=InstancesSettings(image_id=image_id, volume_gb=40))


def provisioned(clients: Clients, settings: Settings) -> Resource:
    """The launch template, after its provisioning."""
    assert settings.instances.image_id is not None
    return provision_launch_template(clients, settings, settings.instances.image_id)


def default_version(clients: Clients, settings: Settings) -> Any:
    """The version from which the autoscaler launches."""
    (version,) = clients.ec2.describe_launch_template_versions(
        LaunchTemplateName=settings.launch_template, Versions=["$Default"]
    )["LaunchTemplateVersions"]
    return version


def versions(clients: Clients, settings: Settings) -> int:
    """How many versions the template has."""
    found = clients.ec2.describe_launch_template_versions(LaunchTemplateName=settings.launch_template)
    return len(found["LaunchTemplateVersions"])


def with_instances(settings: Settings, **updates: Any) -> Settings:
    """The same deployment with other instances."""
    return settings.changed(instances=settings.instances.model_copy(update=updates))


def test_is_created_once(clients: Clients, settings: Settings) -> None:
    """The second run finds nothing to do, and makes no version."""
    assert provisioned(clients, settings) == Resource("launch template", settings.launch_template, State.CREATED)
    assert provisioned(clients, settings).state is State.UNCHANGED
    assert versions(clients, settings) == 1


def test_says_what_an_instance_is(clients: Clients, settings: Settings, image_id: str) -> None:
    """Everything that the settings want is in the version in force."""
    settings = with_instances(
        settings,
        types=("m7i.large", "c7i.large"),
        profile="facerec-worker",
        key_name="ops",
        security_group_ids=("sg-0123456789abcdef0",),
        subnet_ids=("subnet-0123456789abcdef0",),
    )
    provisioned(clients, settings)
    content = default_version(clients, settings)["LaunchTemplateData"]
    assert content["ImageId"] == image_id
    assert content["InstanceType"] == "m7i.large"
    assert content["IamInstanceProfile"]["Name"] == "facerec-worker"
    assert content["KeyName"] == "ops"
    assert content["SecurityGroupIds"] == ["sg-0123456789abcdef0"]
    assert content["InstanceInitiatedShutdownBehavior"] == "stop"
    assert content["MetadataOptions"]["HttpTokens"] == "required"
    assert content["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    (volume,) = content["BlockDeviceMappings"]
    assert volume["DeviceName"] == "/dev/xvda"
    assert (volume["Ebs"]["VolumeType"], volume["Ebs"]["Encrypted"], volume["Ebs"]["VolumeSize"]) == ("gp3", True, 40)
    tags = [{"Key": "facerec:fleet", "Value": settings.prefix}]
    tagged = {each["ResourceType"]: each["Tags"] for each in content["TagSpecifications"]}
    assert tagged["instance"] == tagged["volume"] == tags
    assert base64.b64decode(content["UserData"]).decode() == user_data(settings)
    assert "NetworkInterfaces" not in content


def test_spot_instances_are_bought_once_and_never_stopped(
    aws: EmulatedAws, clients: Clients, settings: Settings
) -> None:
    """A spot instance that is taken back is gone, and not asked for again: the autoscaler decides."""
    provisioned(clients, with_instances(settings, purchase="spot"))
    content = default_version(clients, settings)["LaunchTemplateData"]
    assert content["InstanceInitiatedShutdownBehavior"] == "terminate"
    if aws.kind is EmulatorKind.MINISTACK:
        pytest.skip("ministack does not keep a template's market options")
    assert content["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
    }


def test_a_change_makes_a_version_that_is_in_force(clients: Clients, settings: Settings) -> None:
    """A new package is launched from then on; going back takes the earlier version and makes no third."""
    provisioned(clients, settings)
    newer = with_instances(settings, package=f"s3://releases/facerec-2.0-py3-none-any.whl#sha256={'0' * 64}")
    assert provisioned(clients, newer).state is State.UPDATED
    assert default_version(clients, settings)["VersionNumber"] == 2
    assert provisioned(clients, newer).state is State.UNCHANGED
    assert provisioned(clients, settings).state is State.UPDATED
    assert default_version(clients, settings)["VersionNumber"] == 1
    assert versions(clients, settings) == 2


@pytest.mark.parametrize("updates", [{"types": ("c7i.large", "m7a.large")}, {"subnet_ids": ("subnet-1", "subnet-2")}])
def test_choices_of_each_launch_make_no_version(clients: Clients, settings: Settings, updates: Any) -> None:
    """A further type or subnet replaces no running instance."""
    provisioned(clients, settings)
    assert provisioned(clients, with_instances(settings, **updates)).state is State.UNCHANGED


def test_a_version_of_someone_else_is_replaced(clients: Clients, settings: Settings) -> None:
    """What was changed by hand is put right."""
    provisioned(clients, settings)
    theirs = clients.ec2.create_launch_template_version(
        LaunchTemplateName=settings.launch_template,
        SourceVersion="1",
        LaunchTemplateData={"InstanceType": "t3.nano"},
    )["LaunchTemplateVersion"]["VersionNumber"]
    clients.ec2.modify_launch_template(LaunchTemplateName=settings.launch_template, DefaultVersion=str(theirs))
    assert provisioned(clients, settings).state is State.UPDATED
    assert default_version(clients, settings)["LaunchTemplateData"]["InstanceType"] == "c7i.large"


def test_a_template_of_someone_else_is_left_alone(clients: Clients, settings: Settings, image_id: str) -> None:
    """The error names the variable that chooses another name."""
    clients.ec2.create_launch_template(
        LaunchTemplateName=settings.launch_template, LaunchTemplateData={"ImageId": image_id}
    )
    with pytest.raises(ConfigurationError, match="FACEREC_NAMES__LAUNCH_TEMPLATE"):
        provisioned(clients, settings)
    assert versions(clients, settings) == 1


def test_an_unknown_image_is_refused(clients: Clients, settings: Settings) -> None:
    """The error names the variable, before anything is made."""
    with pytest.raises(ConfigurationError, match="FACEREC_INSTANCES__IMAGE_ID"):
        provision_launch_template(clients, settings, "ami-00000000000000bad")
    found = clients.ec2.describe_launch_templates()["LaunchTemplates"]
    assert settings.launch_template not in {template["LaunchTemplateName"] for template in found}


def test_a_volume_too_small_for_the_image_is_refused(clients: Clients, settings: Settings) -> None:
    """EC2 would refuse every launch."""
    with pytest.raises(ConfigurationError, match="FACEREC_INSTANCES__VOLUME_GB"):
        provisioned(clients, with_instances(settings, volume_gb=1))


def test_several_at_once_agree(clients: Clients, settings: Settings) -> None:
    """Provisionings side by side make one template of one version."""
    with ThreadPoolExecutor(4) as pool:
        states = [found.state for found in pool.map(lambda _: provisioned(clients, settings), range(4))]
    assert set(states) <= {State.CREATED, State.UNCHANGED}
    assert versions(clients, settings) == 1


def test_provisioning_includes_it_where_an_image_is_set(clients: Clients, settings: Settings) -> None:
    """Without an image nothing can be launched, so there is no template; with one it comes last."""
    without = with_instances(settings, image_id=None)
    assert "launch template" not in {resource.kind for resource in provision(clients, without)}
    assert provision(clients, settings)[-1] == Resource("launch template", settings.launch_template, State.CREATED)
