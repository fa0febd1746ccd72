"""`facerec edge package`, `recipe`, `deploy` and `status`: the Greengrass component of a device."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from facerec import __version__
from facerec.commands.edge_things import thing_argument
from facerec.commands.terminal import FILE, json_option, print_columns
from facerec.echo import echo, echo_document, echo_json
from facerec.errors import ConfigurationError, FacerecError
from facerec.provision.edge.recipe import PLATFORMS, Architecture, artefact_key, recipe, recipe_text
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.provision.edge.deployment import DeviceState

_ARCHITECTURES = get_args(Architecture)
_DIST = Path("dist")
_OLDEST_MINOR = 11
"""Of Python 3, as `python_requires` has it."""


def _check_pythons(_context: click.Context, _option: click.Parameter, versions: tuple[str, ...]) -> tuple[str, ...]:
    for version in versions:
        if not re.fullmatch(r"3\.\d{2}", version) or int(version.removeprefix("3.")) < _OLDEST_MINOR:
            raise click.BadParameter(
                f"{version!r} is no version such as 3.13; facerec needs 3.{_OLDEST_MINOR} or newer"
            )
    return versions


def _check_wheel(_context: click.Context, _option: click.Parameter, wheel: Path | None) -> Path | None:
    if wheel is not None and not wheel.match("facerec-*.whl"):
        raise click.BadParameter(f"{wheel} is no wheel of facerec, such as `make release` builds")
    return wheel


@click.command("package")
@click.option(
    "--architecture", type=click.Choice(_ARCHITECTURES), default="arm64", show_default=True, help="Of the device."
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    callback=_check_pythons,
    default=("3.13",),
    show_default=True,
    help="Version of Python on the device; several are possible, the preferred one first.",
)
@click.option("--no-model", is_flag=True, help="The device pulls the model from the model bucket.")
@click.option("--wheel", type=FILE, callback=_check_wheel, help="Wheel of facerec.  [default: made of this checkout]")
@click.option("--constraints", type=FILE, help="Tested versions.  [default: constraints.txt of this checkout]")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), default=_DIST, show_default=True, help="Its folder."
)
def package(
    architecture: Architecture,
    pythons: tuple[str, ...],
    wheel: Path | None,
    constraints: Path | None,
    output: Path,
    *,
    no_model: bool,
) -> None:
    """Write the archive of the component: facerec, all that it needs, and the model.

    pip downloads the packages. Equal inputs make equal archives.

    \b
    Examples:
      facerec edge package
      facerec edge package --architecture x86_64 --python 3.12 --python 3.11
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.engine.loading import load_artefact
    from facerec.provision.edge.artefact import archive_name, build_artefact, checkout_folder
    from model.artefact import ArtefactError, file_sha256

    checkout = checkout_folder()
    if constraints is None:
        if checkout is None:
            raise ConfigurationError("this is no checkout of facerec: name the tested versions by --constraints")
        constraints = checkout / "constraints.txt"
    archive = output / archive_name(architecture)
    try:
        output.mkdir(parents=True, exist_ok=True)  # before pip has worked for a minute
        described = build_artefact(
            archive,
            architecture,
            pythons=pythons,
            wheel=wheel,
            constraints=constraints,
            model=None if no_model else load_artefact(Settings.load()),
        )
    except ArtefactError as exc:
        raise ConfigurationError(str(exc)) from exc
    except OSError as exc:
        raise FacerecError(f"cannot write {exc.filename or archive}: {exc.strerror}") from exc
    wheels = sum(name.startswith("wheels/") for name in described.files)
    model = described.model or "no model"
    echo(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB, {wheels} wheels, {model}", err=True)
    echo(f"{archive}#sha256={file_sha256(archive)}")


@click.command("recipe")
@click.option("--write", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write it there.")
def show_recipe(file: Path | None) -> None:
    """Print the component's recipe, without an archive: `deploy` puts in version and hashes. AWS is not called.

    \b
    Examples:
      facerec edge recipe
      facerec edge recipe --write deploy/edge/recipe.json
    """  # noqa: D301 - as above
    settings = Settings.load()
    uris = {one: f"s3://{settings.model_bucket}/{artefact_key(f'SHA256-OF-{one.upper()}')}" for one in PLATFORMS}
    text = recipe_text(recipe(settings, __version__, uris))
    if file is None:
        echo_document(text)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise FacerecError(f"cannot write {file}: {exc.strerror}") from exc


@click.command("deploy")
@thing_argument
@click.option(
    "--archive",
    "archives",
    type=FILE,
    multiple=True,
    help="Of `facerec edge package`; several are for several processors.  [default: those in dist]",
)
@click.option("--memory-mb", type=click.IntRange(128), default=512, show_default=True, help="Memory that it may use.")
@click.option(
    "--cpus", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Processor cores that it may use."
)
def deploy(thing: str, archives: tuple[Path, ...], memory_mb: int, cpus: float) -> None:
    """Deploy the component to the device THING with the FACEREC_EDGE__* that are set here.

    What is there already is not sent or made again. Other components of the device stay.

    \b
    Examples:
      FACEREC_EDGE__SOURCE=camera facerec edge deploy gate-1
      facerec edge deploy gate-1 --archive dist/facerec-edge-arm64.zip --memory-mb 700
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.deployment import ResourceLimits
    from facerec.provision.edge.deployment import deploy as deploy_component

    found = archives or tuple(sorted(_DIST.glob("facerec-edge-*.zip")))
    if not found:
        raise ConfigurationError("there is no archive in dist: make one with `facerec edge package`, or use --archive")
    settings = Settings.load()
    deployed = deploy_component(
        clients(settings),
        settings,
        thing,
        found,
        ResourceLimits(memory_mb, cpus),
        report=lambda line: echo(line, err=True),
    )
    done = "deployed to" if deployed.changed else "is already deployed to"
    echo(f"version {deployed.version} {done} {thing}: deployment {deployed.deployment_id}")


@click.command("status")
@thing_argument
@json_option
def status(thing: str, *, as_json: bool) -> None:
    """Show what Greengrass knows of the device THING: its health, components and deployments.

    Counters and connection of the component are on the topic `facerec/THING/status`.

    \b
    Examples:
      facerec edge status gate-1
      facerec edge status gate-1 --json | jq '.components'
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.deployment import device_state

    state = device_state(clients(Settings.load()), thing)
    if as_json:
        echo_json(asdict(state), default=str)
    else:
        _print_state(state)


def _print_state(state: "DeviceState") -> None:
    echo(f"{state.thing}: {state.status}")
    if state.reported_at is not None:
        echo(f"nucleus {state.nucleus} on {state.platform}, reported at {state.reported_at:%Y-%m-%d %H:%M:%S %Z}")
    echo("")
    print_columns(
        [
            ("component", "version", "state", "details"),
            *((one.name, one.version, one.state, one.details) for one in state.components),
        ]
    )
    echo("")
    print_columns([("deployment", "status", "reason"), *state.deployments])
