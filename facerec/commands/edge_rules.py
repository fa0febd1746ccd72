"""`facerec edge rules`: the rules of AWS IoT Core that pass messages of devices on to the queues."""

from dataclasses import asdict
from pathlib import Path

import click

from facerec.commands.stacks import approval, show_deleted, show_deployed, show_event
from facerec.commands.terminal import json_option, print_columns, write_documents, yes_option
from facerec.echo import confirm, echo, echo_json
from facerec.settings import Settings


@click.group("rules")
def command() -> None:
    """Pass the messages of devices on to the queues: deploy the rules of AWS IoT Core, look at them, remove them.

    \b
    Examples:
      facerec provision
      facerec edge rules deploy
      facerec edge rules status
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped


@command.command("template")
@click.option("--write", "folder", type=click.Path(path_type=Path, file_okay=False), help="Write rules.json there.")
def template(folder: Path | None) -> None:
    """Print the CloudFormation template of the rules; AWS is not called.

    \b
    Examples:
      facerec edge rules template > rules.json
      facerec edge rules template --write deploy/edge
      aws cloudformation deploy --stack-name facerec-edge-rules --template-file rules.json \\
        --capabilities CAPABILITY_NAMED_IAM
    """  # noqa: D301 - as above
    from facerec.provision.edge.rules import rules_template

    document = rules_template(Settings.load())
    if folder is None:
        echo_json(document)
        return
    write_documents(folder, {"rules": document})
    echo(f"the template is written to {folder / 'rules.json'}", err=True)


@command.command("deploy")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def deploy(*, dry_run: bool) -> None:
    """Create or update the rules, with their role and an alarm.

    CloudFormation makes all changes or none. The queues are those of `facerec provision`.

    \b
    Examples:
      facerec edge rules deploy --dry-run
      FACEREC_EDGE__ENABLED=true facerec edge rules deploy
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.rules_deployment import deploy_rules, nobody_takes_faces, rules_stack

    settings = Settings.load()
    aws = clients(settings)
    stack = rules_stack(aws, settings)

    changes = deploy_rules(aws, settings, stack, report=show_event, approve=approval(dry_run=dry_run))
    show_deployed(stack, changes, dry_run=dry_run)
    if dry_run:
        return
    if nobody_takes_faces(settings):
        echo(
            "note: FACEREC_EDGE__ENABLED is false and FACEREC_APP_TIER is ec2: faces wait in queue "
            f"{settings.faces_queue!r}, and neither workers nor functions take them",
            err=True,
        )


@command.command("status")
@json_option
def status(*, as_json: bool) -> None:
    """Show stack, rules, and what waits in the queues.

    \b
    Examples:
      facerec edge rules status
      facerec edge rules status --json | jq '.rules'
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.rules_deployment import rules_state

    settings = Settings.load()
    state = rules_state(clients(settings), settings)
    if as_json:
        echo_json(asdict(state))
        return
    echo(state.stack)
    echo("")
    print_columns([("rule", "state"), *state.rules.items()])
    echo("")
    print_columns(
        [
            ("queue", "visible", "in flight", "delayed"),
            *((name, *(counts.values() or ("absent", "", ""))) for name, counts in state.queues.items()),
        ]
    )


@command.command("remove")
@yes_option
def remove(*, yes: bool) -> None:
    """Delete the rules with their role and alarm: from then on AWS IoT Core drops what devices send.

    AWS IoT Core acknowledges these messages, so devices do not keep them. Stop the devices before.

    \b
    Examples:
      facerec edge rules remove
      facerec edge rules remove --yes
    """  # noqa: D301 - as above
    from facerec.bootstrap import clients
    from facerec.provision.edge.rules_deployment import rules_stack

    settings = Settings.load()
    stack = rules_stack(clients(settings), settings)
    if not yes:
        confirm(f"Delete the rules of {settings.prefix!r}? What devices send from then on is lost.")
    show_deleted(stack, found=stack.delete(show_event))
