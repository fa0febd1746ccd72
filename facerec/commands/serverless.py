"""`facerec serverless`: the app tier as two Lambda functions."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facerec import __version__
from facerec.commands.stacks import approval, show_deleted, show_deployed, show_event
from facerec.commands.terminal import json_option, print_columns, write_documents, yes_option
from facerec.echo import confirm, echo, echo_json
from facerec.errors import FacerecError
from facerec.settings import Settings

if TYPE_CHECKING:
    from facerec.provision.serverless_deployment import DeploymentState

_STACKS = ("functions", "repository")


@click.group("serverless")
def command() -> None:
    """Run the app tier as two Lambda functions: push their image, deploy, look at them, remove them.

    FACEREC_APP_TIER says whether the functions take the tasks of the request queue.

    \b
    Examples:
      facerec serverless push facerec-lambda:1.0
      export FACEREC_SERVERLESS__IMAGE=…@sha256:…  # as push prints it
      FACEREC_APP_TIER=both facerec provision
      FACEREC_APP_TIER=both facerec serverless deploy
      facerec serverless status
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


@command.command("push")
@click.argument("image")
@click.option("--tag", help="Its tag in ECR, which never names another image.  [default: version and time]")
def push(image: str, tag: str | None) -> None:
    """Push the local IMAGE to ECR, and print its reference by digest.

    IMAGE is a name in the storage of docker, podman or buildah, an archive, or an OCI directory, for the processor of
    FACEREC_SERVERLESS__ARCHITECTURE. The repository is created if it does not exist. skopeo pushes, or docker or podman
    if skopeo is not installed.

    \b
    Examples:
      facerec serverless push facerec-lambda:1.0
      facerec serverless push build/lambda.tar --tag 1.0.3
      export FACEREC_SERVERLESS__IMAGE="$(facerec serverless push facerec-lambda)"
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.image_push import find_image, push_image
    from facerec.provision.serverless_deployment import ensure_repository, repository_stack

    settings = Settings.load()
    found = find_image(image, settings.serverless.architecture)
    aws = clients(settings)
    uri = ensure_repository(repository_stack(aws, settings), settings, show_event)
    reference = push_image(aws, uri, found, tag or f"{__version__}-{datetime.now(UTC):%Y%m%d-%H%M%S}")
    echo("Set FACEREC_SERVERLESS__IMAGE to this, and run `facerec serverless deploy`:", err=True)
    echo(reference)


@command.command("deploy")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def deploy(*, dry_run: bool) -> None:
    """Create or update both functions with their roles, logs, event sources, URL and alarms.

    CloudFormation makes all changes or none. Queues, buckets and tables are those of `facerec provision`.

    \b
    Examples:
      facerec serverless deploy --dry-run
      FACEREC_APP_TIER=both facerec serverless deploy
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.serverless_deployment import deploy_functions, functions_stack

    settings = Settings.load()
    aws = clients(settings)
    stack = functions_stack(aws, settings)

    changes = deploy_functions(aws, settings, stack, report=show_event, approve=approval(dry_run=dry_run))
    show_deployed(stack, changes, dry_run=dry_run)
    if dry_run:
        return
    takes = {"ec2": "the workers on EC2 take", "serverless": "the functions take", "both": "functions and workers take"}
    echo(f"FACEREC_APP_TIER is {settings.app_tier}: {takes[settings.app_tier]} the tasks", err=True)
    echo(stack.outputs()["DetectionUrl"])


@command.command("template")
@click.argument("stack", required=False, type=click.Choice(_STACKS))
@click.option("--write", "folder", type=click.Path(path_type=Path, file_okay=False), help="Write STACK.json there.")
def template(stack: str | None, folder: Path | None) -> None:
    """Print the CloudFormation template of STACK, or of both; AWS is not called.

    \b
    Examples:
      facerec serverless template functions > functions.json
      facerec serverless template --write deploy/serverless
      aws cloudformation deploy --stack-name facerec-serverless --template-file functions.json \\
        --capabilities CAPABILITY_NAMED_IAM --parameter-overrides Image=…@sha256:…
    """  # noqa: D301 - as above
    from facerec.provision.serverless_stack import functions_template, repository_template

    settings = Settings.load()
    made = {"functions": functions_template, "repository": repository_template}
    templates = {name: made[name](settings) for name in ([stack] if stack else _STACKS)}
    if folder is None:
        echo_json(templates[stack] if stack else templates)
        return
    write_documents(folder, templates)
    echo(f"{len(templates)} templates written to {folder}", err=True)


@command.command("status")
@json_option
def status(*, as_json: bool) -> None:
    """Show stack, functions, event sources, URL, and what waits in the queues.

    \b
    Examples:
      facerec serverless status
      facerec serverless status --json | jq '.event_sources'
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.serverless_deployment import deployment_state

    settings = Settings.load()
    state = deployment_state(clients(settings), settings)
    if as_json:
        echo_json(asdict(state))
    else:
        _print_state(state)


@command.command("remove")
@click.option("--images", is_flag=True, help="Delete the repository with all images, too.")
@click.option("--force", is_flag=True, help="Also while faces wait, which no worker takes.")
@yes_option
def remove(*, images: bool, force: bool, yes: bool) -> None:
    """Delete the functions with their roles, logs, URL and alarms; tasks stay in their queues.

    Deploy with FACEREC_APP_TIER=ec2 before, so that the workers take the tasks, and the functions finish the faces.

    \b
    Examples:
      FACEREC_APP_TIER=ec2 facerec serverless remove
      facerec serverless remove --images --yes
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.serverless_deployment import (
        functions_stack,
        remove_functions,
        repository_stack,
        waiting_faces,
    )

    settings = Settings.load()
    aws = clients(settings)
    waiting = 0 if force else waiting_faces(aws, settings)
    if waiting:
        raise FacerecError(
            f"{waiting} messages wait in queue {settings.faces_queue!r}, and only the functions take them: wait until "
            "`facerec serverless status` shows none, or use --force"
        )
    if not yes:
        what = "the functions, and the repository with all images" if images else "the functions"
        confirm(f"Delete {what} of {settings.prefix!r}?")
    stack = functions_stack(aws, settings)
    found = remove_functions(aws, settings, stack, show_event)
    show_deleted(stack, found=found)
    if images:
        repository = repository_stack(aws, settings)
        show_deleted(repository, found=repository.delete(show_event))


def _print_state(state: "DeploymentState") -> None:
    echo(state.stack)
    echo(f"URL: {state.url or 'none'}")
    echo("")
    print_columns(
        [
            ("function", "state", "MB", "code", "updated"),
            *((one.name, one.state, one.memory_mb, one.code, one.updated_at) for one in state.functions),
        ]
    )
    echo("")
    print_columns(
        [
            ("queue", "invokes", "state", "concurrency"),
            *((one.queue, one.function, one.state, one.max_concurrency or "-") for one in state.event_sources),
        ]
    )
    echo("")
    print_columns(
        [
            ("queue", "visible", "in flight", "delayed"),
            *((name, *(counts.values() or ("absent", "", ""))) for name, counts in state.queues.items()),
        ]
    )
