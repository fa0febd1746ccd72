"""`facerec local`: the whole system on this machine."""

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from facerec.echo import echo, echo_document, make_console
from facerec.edge_messages import frames_topic
from facerec.errors import FacerecError
from facerec.settings import AppTier

if TYPE_CHECKING:
    from facerec.local.system import LocalSystem

_STATE = Path(".local")
_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_INTERRUPTED = 130
"""The exit status that shells give a command which ended by Ctrl-C."""


@click.group("local")
def command() -> None:
    """Run the whole system on this machine against an emulated AWS.

    \b
    Examples:
      facerec local up --workers 2
      eval "$(facerec local env)" && facerec enrol "Jane Doe" jane.jpg
      facerec local demo
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


_workers = click.option(
    "--workers",
    type=click.IntRange(0, 16),
    help="A fixed number of worker processes.  [default: an elastic fleet, 0 to FACEREC_AUTOSCALE__MAX_INSTANCES]",
)
_tier = click.option(
    "--tier",
    type=click.Choice(["ec2", "serverless", "both", "edge"]),
    help="What takes the tasks: workers on EC2, both Lambda functions, or both; `edge` adds a device, whose faces the "
    "app tier takes.  [default: FACEREC_APP_TIER]",
)
_component = click.option(
    "--component",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --tier edge: an archive of `facerec edge package`, which a local Greengrass nucleus installs and runs.  "
    "[default: the device runs `facerec edge run`]",
)
_emulator = click.option(
    "--emulator",
    "kind",
    type=click.Choice(["ministack", "moto"]),
    default="ministack",
    show_default=True,
    help="ministack keeps its state on disk; moto forgets everything when it stops.",
)


@command.command("up")
@_tier
@_component
@_workers
@click.option(
    "--boot-seconds",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    help="How long an emulated instance boots before its worker starts.",
)
@click.option(
    "--autoscaler/--no-autoscaler", default=True, show_default=True, help="Whether to run `facerec autoscale`, too."
)
@click.option("--flower/--no-flower", default=True, show_default=True, help="Whether to run `facerec flower`, too.")
@_emulator
@click.option(
    "--state",
    type=_DIRECTORY,
    default=_STATE,
    show_default=True,
    help="Directory of the emulator's state and the logs; the gallery and the results stay there.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port of the web tier; 0 takes free ports for all.  [default: FACEREC_WEB__PORT]",
)
def up(
    tier: AppTier | Literal["edge"] | None,
    component: Path | None,
    workers: int | None,
    boot_seconds: float,
    kind: str,
    state: Path,
    port: int | None,
    *,
    autoscaler: bool,
    flower: bool,
) -> None:
    """Start everything, print the addresses, and run until Ctrl-C.

    Without --workers no worker runs while there is no task: the first upload launches an instance of the emulated
    EC2, which is a worker process here, and `facerec fleet status` shows it. With --tier serverless two Lambda
    functions do the work instead; their instances run under AWS's own emulator of the runtime. With --tier edge there
    is a device, too: it detects the faces, and sends them over MQTT to the emulated AWS IoT Core.

    \b
    Examples:
      facerec local up
      facerec local up --tier serverless
      facerec local up --tier edge
      FACEREC_AUTOSCALE__COOLDOWN_SECONDS=10 facerec local up --boot-seconds 20
      FACEREC_REPLY_STYLE=name facerec local up --workers 2 --port 9000
    """  # noqa: D301 - as above
    from facerec.local.emulator import EmulatorKind
    from facerec.local.progress import Progress
    from facerec.local.state import StateDirectory
    from facerec.local.system import Options, local_system

    progress = Progress(make_console())
    ready = False
    directory = StateDirectory(state)
    try:
        app_tier, edge = _parts(tier, component)
        options = Options(
            workers, EmulatorKind(kind), port, boot_seconds, autoscaler, flower, app_tier, edge, component=component
        )
        with local_system(options, os.environ, state=directory, progress=progress) as system:
            system.start_cloud()
            system.start_tiers()
            system.announce()
            ready = True
            probe = next(iter(sorted(Path("examples/probes").glob("*.jpg"))), Path("photo.jpg"))
            where = "" if state == _STATE else f" --state {shlex.quote(str(state))}"
            key = '-H "x-api-key: $KEY" ' if system.asks_for_keys else ""
            needed = "needed: `facerec keys create NAME --scope recognise`, or FACEREC_WEB__AUTH=open"
            rows = {
                "web": system.web_url,
                "keys": needed if key else "",
                "Flower": system.flower or "",
                "function": system.function_url or "",
                "call": _function_call(system, probe),
                **_device_rows(system),
                "AWS": system.emulator_url,
                "logs": str(directory.logs),
                "try": f"curl {key}-F inputFile=@{probe} {system.web_url}/",
                "commands": f'eval "$(facerec local env{where})" points `facerec` and the AWS CLI here',
                "stop": "Ctrl-C",
            }
            progress.line()
            for name, text in rows.items():
                if text:
                    progress.line(f"  {name:<10}{text}")
            system.wait()
    except KeyboardInterrupt:
        raise SystemExit(0 if ready else _INTERRUPTED) from None


@command.command("env")
@click.option("--state", type=_DIRECTORY, default=_STATE, show_default=True, help="As given to `facerec local up`.")
def env(state: Path) -> None:
    """Print the variables that point other commands at the running system.

    \b
    Examples:
      eval "$(facerec local env)"
      facerec local env --state /tmp/other
    """  # noqa: D301 - as above
    from facerec.local.environment import export_lines
    from facerec.local.state import StateDirectory

    echo_document(export_lines(StateDirectory(state).running().variables))


@command.command("aws")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=4566, show_default=True, help="Port to listen on.")
@click.option(
    "--name",
    "names",
    multiple=True,
    help="A host name that clients may address it by, beside those of loopback; can be given several times.",
)
@click.option("--state", type=_DIRECTORY, default=_STATE / "aws", show_default=True, help="Directory of its state.")
def aws(host: str, port: int, names: tuple[str, ...], state: Path) -> None:
    """Run the emulated AWS alone, for parts that are started in another way, until SIGTERM or Ctrl-C.

    It checks no signature, so only trusted programs may reach its port.

    \b
    Examples:
      facerec local aws
      facerec local aws --host 0.0.0.0 --name aws   # in a container of that name
    """  # noqa: D301 - as above
    from facerec.local.emulator import ministack_command

    emulator = ministack_command(host=host, port=port, names=names, state=state, environ=os.environ)
    os.execve(emulator.argv[0], emulator.argv, emulator.environ)  # noqa: S606 - no shell is needed


@command.command("demo")
@_tier
@_component
@_workers
@_emulator
@click.option("--state", type=_DIRECTORY, help="Directory to keep.  [default: a temporary one]")
@click.option(
    "--examples",
    type=_DIRECTORY,
    default=Path("examples"),
    show_default=True,
    help="Folder with gallery, probes and expected.csv.",
)
def demo(
    tier: AppTier | Literal["edge"] | None,
    component: Path | None,
    workers: int | None,
    kind: str,
    state: Path | None,
    examples: Path,
) -> None:
    """Start everything, enrol the sample people, upload the sample photos, and check the replies.

    Without --workers the fleet starts with zero instances, and must be back at zero at the end. With --tier edge the
    photos are frames of a device, and the replies come from the response queue.

    \b
    Examples:
      facerec local demo
      facerec local demo --tier serverless
      facerec local demo --tier edge
      facerec local demo --tier edge --component dist/facerec-edge-x86_64.zip
      facerec local demo --workers 2 --emulator moto --state /tmp/kept
    """  # noqa: D301 - as above
    from facerec.local.demo import Samples, demonstrate
    from facerec.local.emulator import EmulatorKind
    from facerec.local.progress import Progress
    from facerec.local.state import StateDirectory
    from facerec.local.system import Options, local_system

    progress = Progress(make_console())
    samples = Samples(examples.resolve())
    samples.expected()
    app_tier, edge = _parts(tier, component)
    # With a device, the demonstration itself reads the response queue.
    options = Options(
        workers, EmulatorKind(kind), port=0, app_tier=app_tier, edge=edge, web=not edge, component=component
    )
    environ = {"FACEREC_AUTOSCALE__COOLDOWN_SECONDS": "2", **os.environ, "FACEREC_REPLY_STYLE": "sentence"}
    try:
        with (
            _directory(state) as directory,
            local_system(options, environ, state=StateDirectory(directory), progress=progress) as system,
        ):
            demonstrate(system, samples, progress)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    progress.line("DEMO OK")


def _parts(tier: AppTier | Literal["edge"] | None, component: Path | None) -> tuple[AppTier | None, bool]:
    """The app tier, if it is not that of FACEREC_APP_TIER, and whether there is a device."""
    if component is not None and tier != "edge":
        raise click.BadOptionUsage("--component", "--component is for --tier edge")
    return (None, True) if tier == "edge" else (tier, False)


def _function_call(system: "LocalSystem", photo: Path) -> str:
    """A shell command that sends a photo to the detection function's URL; empty without functions."""
    if system.function_url is None:
        return ""
    region, user = (system.variables[name] for name in ("AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"))
    secret = system.variables["AWS_SECRET_ACCESS_KEY"]
    signing = f"--aws-sigv4 aws:amz:{region}:lambda --user {user}:{secret} " if system.signs_function_calls else ""
    return (
        f"""printf '{{"request_id":"%s","filename":"%s","content":"%s"}}' "$(cat /proc/sys/kernel/random/uuid)" """
        f"""{photo.name} "$(base64 -w0 {photo})" | curl {signing}-H 'Content-Type: application/json' """
        f"--data-binary @- {system.function_url}"
    )


def _device_rows(system: "LocalSystem") -> dict[str, str]:
    """The folders of the device, and a shell command that sends a frame to it; nothing without a device."""
    device = system.device
    if device is None:
        return {}
    frame = (
        f"""printf '{{"request_id":"%s","filename":"%s","encoded":"%s"}}' "$(cat /proc/sys/kernel/random/uuid)" """
        """photo.jpg "$(base64 -w0 photo.jpg)" | aws iot-data publish --cli-binary-format raw-in-base64-out """
        f"--topic {frames_topic(device.thing)} --payload file:///dev/stdin"
    )
    return {
        "frames": f"move pictures into {device.frames}",
        "device": f"{device.files} has its certificate; {device.thing} is its name",
        "MQTT": f"FACEREC_EDGE__SOURCE=topic at the start, then: {frame}",
    }


@contextmanager
def _directory(state: Path | None) -> Iterator[Path]:
    """The given directory, or a temporary one that stays only after an error."""
    if state is not None:
        yield state
        return
    scratch = Path(tempfile.mkdtemp(prefix="facerec-demo-"))
    kept = False
    try:
        yield scratch
    except FacerecError:
        kept = True
        echo(f"the logs are kept in {scratch / 'logs'}", err=True)
        raise
    finally:
        if not kept:
            shutil.rmtree(scratch)
