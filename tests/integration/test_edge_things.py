"""`facerec edge provision`, `revoke` and `remove` against the emulated AWS, and what a device can do then."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from facerec.aws.clients import Clients
from facerec.cli import cli
from facerec.errors import ConfigurationError, FacerecError
from facerec.local.emulator import EmulatorKind
from facerec.provision.edge.thing_folder import ThingFolder
from facerec.provision.edge.things import Things
from facerec.provision.iam_policies import policy
from facerec.provision.iam_statements import Place
from facerec.settings import Settings
from tests.support.devices import Refused, connected
from tests.support.emulated import EmulatedAws, emulated_aws
from tests.support.iam import allowed

THING = "gate"
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    """An emulator of its own, with MQTT."""
    with emulated_aws(EmulatorKind.MINISTACK, tmp_path_factory.mktemp("things"), mqtt=True) as aws:
        yield aws


@pytest.fixture
def run(fresh: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs `facerec edge …` on things of its own."""
    monkeypatch.setenv("FACEREC_PREFIX", fresh.prefix)

    def run(*arguments: str, stdin: str = "") -> Result:
        return CliRunner().invoke(cli, ["edge", *arguments], input=stdin, catch_exceptions=False)

    yield run
    for thing in (THING, f"{THING}-2"):
        run("remove", thing, "--yes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the device's files are."""
    return tmp_path / "device"


def device(folder: Path, *, end: str = "0123abcd") -> Any:
    """The device whose files are in the folder."""
    lines = (line.split("=", 1) for line in (folder / "edge.env").read_text().splitlines())
    values = {name.removeprefix("FACEREC_EDGE__"): value for name, value in lines}
    assert values["ENDPOINT"] == "127.0.0.1"
    return connected(
        int(values["PORT"]),
        ca=Path(values["CA_FILE"]),
        client_id=f"{values['THING']}-{end}",
        certificate=Path(values["CERTIFICATE_FILE"]),
        key=Path(values["KEY_FILE"]),
    )


def states(result: Result) -> dict[str, str]:
    """What a provisioning did, by the kind of resource."""
    found = (line.split() for line in result.stdout.splitlines() if "note:" not in line)
    return {kind: state for state, kind, _ in found}


def test_device_is_provisioned_once(run: Run, folder: Path) -> None:
    """It can then connect; the same again changes nothing, and says so. Only its owner can read the key."""
    made = run("provision", THING, "--to", str(folder))
    assert states(made) == dict.fromkeys(("thing", "policy", "certificate", "settings"), "created")
    assert (folder / "private.key").read_text() not in made.output
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (folder, *folder.iterdir())} == {
        "device": "0o700",
        "ca.pem": "0o600",
        "certificate.pem": "0o600",
        "edge.env": "0o600",
        "private.key": "0o600",
    }
    with device(folder) as connection:
        assert connection.publish(f"facerec/{THING}/faces", "{}") == "SUCCESS"
    before = {path: path.read_text() for path in folder.iterdir()}
    assert set(states(run("provision", THING, "--to", str(folder))).values()) == {"unchanged"}
    assert {path: path.read_text() for path in folder.iterdir()} == before


def test_device_uses_its_own_topics_and_client_ids_alone(run: Run, folder: Path, tmp_path: Path) -> None:
    """Also if the other thing's name begins with its own."""
    run("provision", THING, "--to", str(folder))
    run("provision", f"{THING}-2", "--to", str(tmp_path / "second"))
    with device(folder) as connection:
        own = [f"facerec/{THING}/faces", f"facerec/{THING}/status"]
        assert [connection.publish(topic, "{}") for topic in own] == ["SUCCESS", "SUCCESS"]
        for topic in (f"facerec/{THING}-2/faces", f"facerec/{THING}/results", f"clients/{THING}"):
            assert connection.publish(topic, "{}") == "NOT_AUTHORIZED"
        assert connection.subscribe(f"clients/{THING}") == "GRANTED_QOS_1"
        assert connection.subscribe(f"facerec/{THING}/results") == "GRANTED_QOS_1"
        for topic in (f"clients/{THING}-2", "clients/+", f"facerec/{THING}/faces", "#"):
            assert connection.subscribe(topic) == "NOT_AUTHORIZED"
    with pytest.raises(Refused), device(folder, end="2-0123abcd"):
        pass


def test_rotation_replaces_the_certificate(run: Run, folder: Path, tmp_path: Path) -> None:
    """The former one is good for nothing then."""
    run("provision", THING, "--to", str(folder))
    former = tmp_path / "former"
    former.mkdir()
    for path in folder.iterdir():
        (former / path.name).write_text(path.read_text().replace(str(folder), str(former)))
    rotated = run("provision", THING, "--to", str(folder), "--rotate")
    assert states(rotated)["certificate"] == "created"
    assert "is inactive now: restart the component" in rotated.stdout
    with device(folder):
        pass
    with pytest.raises(Refused), device(former):
        pass
    assert set(states(run("provision", THING, "--to", str(folder))).values()) == {"unchanged"}


@pytest.mark.parametrize("step", ["attach_policy", "attach_thing_principal", "update_certificate"])
def test_interrupted_provisioning_is_completed(
    run: Run, fresh: Settings, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No second certificate is made."""
    clients = Clients(fresh)

    def interrupted(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(clients.iot, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        Things(clients, fresh).provision(THING, ThingFolder(folder))
    assert not (folder / "certificate.pem").exists()
    made = (folder / "pending" / "certificate.pem").read_text()
    assert states(run("provision", THING, "--to", str(folder)))["certificate"] == "created"
    assert (folder / "certificate.pem").read_text() == made
    with device(folder):
        pass


def test_of_two_runs_at_once_one_wins(
    run: Run, fresh: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is told, and takes no certificate away, also when it is repeated."""
    clients, another = Clients(fresh), tmp_path / "another"
    attach = clients.iot.attach_thing_principal

    def overtaken(**parameters: Any) -> None:
        attach(**parameters)
        run("provision", THING, "--to", str(another), "--rotate")

    monkeypatch.setattr(clients.iot, "attach_thing_principal", overtaken)
    with pytest.raises(ConfigurationError, match="another run has replaced certificate"):
        Things(clients, fresh).provision(THING, ThingFolder(folder))
    with pytest.raises(ConfigurationError, match="whose key is not in this folder"):
        run("provision", THING, "--to", str(folder))
    with device(another):
        pass


def test_revoked_device_can_connect_no_more(run: Run, folder: Path) -> None:
    """It gets a new certificate only if that is asked for."""
    run("provision", THING, "--to", str(folder))
    assert "is inactive" in run("revoke", THING, stdin="y\n").stdout
    with pytest.raises(Refused), device(folder):
        pass
    with pytest.raises(ConfigurationError, match="was revoked: `--rotate`"):
        run("provision", THING, "--to", str(folder))
    run("provision", THING, "--to", str(folder), "--rotate")
    with device(folder):
        pass


def test_device_in_the_field_keeps_its_certificate(run: Run, folder: Path, tmp_path: Path) -> None:
    """A run with another folder does not replace it by mistake."""
    run("provision", THING, "--to", str(folder))
    with pytest.raises(ConfigurationError, match="whose key is not in this folder"):
        run("provision", THING, "--to", str(tmp_path / "another"))
    with device(folder):
        pass


def test_removed_thing_leaves_nothing_in_aws(run: Run, fresh: Settings, folder: Path) -> None:
    """Also a policy of several versions. Removing twice is no error, and then the thing can be made again."""
    iot = Clients(fresh).iot

    def certificates() -> int:
        return len(iot.list_certificates()["certificates"])

    before = certificates()  # inactive ones of other tests
    run("provision", THING, "--to", str(folder))
    iot.create_policy_version(
        policyName=f"{fresh.prefix}-{THING}",
        policyDocument='{"Version": "2012-10-17", "Statement": []}',
        setAsDefault=True,
    )
    assert states(run("provision", THING, "--to", str(folder)))["policy"] == "updated"
    removed = run("remove", THING, stdin="y\n").stdout
    assert removed.count("is deleted") == 3
    assert iot.list_things()["things"] == []
    assert certificates() == before
    assert "there is no thing" in run("remove", THING, "--yes").stdout
    with pytest.raises(FacerecError, match="there is no thing"):
        run("revoke", THING, "--yes")
    assert states(run("provision", THING, "--to", str(folder)))["certificate"] == "created"
    with device(folder):
        pass


def test_thing_is_removed_as_soon_as_aws_has_detached_it(
    run: Run, fresh: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS IoT answers before a certificate is detached, and refuses to delete it for some seconds."""
    run("provision", THING, "--to", str(folder))
    clients = Clients(fresh)
    refusals = {"delete_certificate": "DeleteConflictException", "delete_thing": "InvalidRequestException"}
    for name, code in refusals.items():
        monkeypatch.setattr(clients.iot, name, _refusing_once(getattr(clients.iot, name), code))
    removed = Things(clients, fresh, poll_seconds=0.01).remove(THING)
    assert [what.split()[0] for what in removed] == ["certificate", "thing", "policy"]


def _refusing_once(call: Callable[..., Any], code: str) -> Callable[..., Any]:
    refused = False

    def refuse_once(**arguments: Any) -> Any:
        nonlocal refused
        if not refused:
            refused = True
            raise ClientError({"Error": {"Code": code, "Message": "still attached"}}, "Delete")
        return call(**arguments)

    return refuse_once


def test_greengrass_core_keeps_the_policy_of_its_nucleus(run: Run, fresh: Settings, folder: Path) -> None:
    """Also if it is provisioned again without the option. It goes with the thing."""
    made = run("provision", THING, "--to", str(folder), "--greengrass")
    assert "note: this endpoint does not support role aliases" in made.stdout
    run("provision", THING, "--to", str(folder), "--rotate")
    clients = Clients(fresh)
    [principal] = clients.iot.list_thing_principals(thingName=THING)["principals"]
    attached = clients.iot.list_attached_policies(target=principal)["policies"]
    names = [f"{fresh.prefix}-{THING}", f"{fresh.prefix}_nucleus-{THING}"]
    assert sorted(policy["policyName"] for policy in attached) == names
    with device(folder):
        pass
    assert run("remove", THING, "--yes").stdout.count("policy") == 2
    assert clients.iot.list_policies()["policies"] == []


def test_operator_may_do_all_that_is_called_here(fresh: Settings, folder: Path) -> None:
    """On the things, policies and certificates that the calls name."""
    clients, place = Clients(fresh), Place(fresh, "000000000000")
    granted, refused = policy("edge-operator", place), set()

    def look(params: dict[str, Any], model: Any, **_: Any) -> None:
        action, resource = f"iot:{model.name}", _resource(place, params)
        if allowed(granted, action, resource) is None:
            refused.add((action, resource))

    clients.iot.meta.events.register("before-parameter-build.iot", look)
    things = Things(clients, fresh, poll_seconds=0.01)
    things.provision(THING, ThingFolder(folder), greengrass=True)
    things.provision(THING, ThingFolder(folder), rotate=True)
    things.revoke(THING)
    things.remove(THING)
    assert refused == set()


def _resource(place: Place, params: dict[str, Any]) -> str:
    """What IAM asks the permission for, in a call with these parameters."""
    if arn := params.get("target") or params.get("principal"):
        return str(arn)
    names = {"thingName": "thing", "policyName": "policy", "certificateId": "cert", "roleAlias": "rolealias"}
    return next((place.iot(kind, params[name]) for name, kind in names.items() if name in params), "*")


def test_name_that_is_no_thing_is_refused(run: Run) -> None:
    """The name is part of topics and of file names."""
    result = run("provision", "a/b")
    assert result.exit_code == 2
    assert "is no name of a thing" in result.stderr
