"""`facerec local`: the whole system on this machine."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from facerec.echo import echo_document, make_console
from facerec.settings import AppTier

if TYPE_CHECKING:
    from facerec.local.edge.device import DeviceOptions

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
    help="With --tier edge: the archive for the nucleus.  [default: `facerec edge package` makes it]",
)
_nucleus = click.option(
    "--nucleus/--no-nucleus",
    default=True,
    show_default=True,
    help="With --tier edge: a local Greengrass nucleus installs and runs the packaged component; otherwise `facerec "
    "edge run` starts at once.",
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
@_nucleus
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
    nucleus: bool,
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
    from facerec.local.shown_commands import device_rows, function_call
    from facerec.local.state import StateDirectory
    from facerec.local.system import Options, local_system

    progress = Progress(make_console())
    ready = False
    directory = StateDirectory(state)
    try:
        app_tier, device = _parts(tier, component, nucleus=nucleus)
        options = Options(workers, EmulatorKind(kind), port, boot_seconds, autoscaler, flower, app_tier, device)
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
                "call": function_call(system, probe),
                **device_rows(system, directory.logs),
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
@_nucleus
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
    *,
    nucleus: bool,
) -> None:
    """Start everything, enrol the sample people, upload the sample photos, and check the replies.

    Without --workers the fleet starts with zero instances, and must be back at zero at the end. With --tier edge the
    photos are frames of a device, and the replies come from the response queue.

    \b
    Examples:
      facerec local demo
      facerec local demo --tier serverless
      facerec local demo --tier edge
      facerec local demo --tier edge --no-nucleus
      facerec local demo --workers 2 --emulator moto --state /tmp/kept
    """  # noqa: D301 - as above
    from facerec.local.demo import Samples, demo_directory, demonstrate
    from facerec.local.emulator import EmulatorKind
    from facerec.local.progress import Progress
    from facerec.local.state import StateDirectory
    from facerec.local.system import Options, local_system

    progress = Progress(make_console())
    samples = Samples(examples.resolve())
    samples.expected()
    app_tier, device = _parts(tier, component, nucleus=nucleus)
    # With a device, the demonstration itself reads the response queue.
    options = Options(workers, EmulatorKind(kind), port=0, app_tier=app_tier, device=device, web=device is None)
    environ = {"FACEREC_AUTOSCALE__COOLDOWN_SECONDS": "2", **os.environ, "FACEREC_REPLY_STYLE": "sentence"}
    try:
        with (
            demo_directory(state) as directory,
            local_system(options, environ, state=StateDirectory(directory), progress=progress) as system,
        ):
            demonstrate(system, samples, progress)
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None
    progress.line("DEMO OK")


def _parts(
    tier: AppTier | Literal["edge"] | None, component: Path | None, *, nucleus: bool
) -> "tuple[AppTier | None, DeviceOptions | None]":
    """The app tier, if it is not that of FACEREC_APP_TIER, and the device, if there is one."""
    from facerec.local.edge.device import DeviceOptions
    from facerec.provision.edge.artefact import EdgeArtefact

    if component is not None and not nucleus:
        raise click.BadOptionUsage("--component", "--component is for the nucleus: leave out --no-nucleus")
    if tier == "edge":
        if component is not None:
            EdgeArtefact.read(component)  # it refuses any other file before anything is started
        return None, DeviceOptions(nucleus, component)
    if component is not None or not nucleus:
        name = "--no-nucleus" if component is None else "--component"
        raise click.BadOptionUsage(name, f"{name} is for --tier edge")
    return tier, None
