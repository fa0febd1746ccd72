"""`facerec provision`: the buckets, queues, tables and the launch template."""

from dataclasses import asdict
from pathlib import Path

import click

from facerec.commands.terminal import write_documents
from facerec.echo import echo, echo_json
from facerec.provision.iam_policies import ROLES, policy
from facerec.provision.iam_statements import Place
from facerec.settings import Settings


@click.command("provision")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per resource.")
def command(*, as_json: bool) -> None:
    """Create the buckets, queues and tables, and the instances' launch template; repeating it changes nothing.

    Existing resources stay, and attributes that differ are repaired. The names come from the settings. The launch
    template is provisioned if FACEREC_INSTANCES__IMAGE_ID names an image.

    \b
    Examples:
      facerec provision
      FACEREC_PREFIX=staging facerec provision --json
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.aws.clients import Clients
    from facerec.provision.provisioning import provision
    from facerec.provision.resources import Resource

    def report(resource: Resource) -> None:
        if as_json:
            echo_json(asdict(resource), indent=None)
            return
        echo(f"{resource.state:<10} {resource.kind:<15} {resource.name}")
        for note in resource.notes:
            echo(f"{'':<10} note: {note}")

    settings = Settings.load()
    provision(Clients(settings), settings, report)


@click.command("policies")
@click.argument("role", required=False, type=click.Choice(sorted(ROLES)))
@click.option(
    "--account", required=True, metavar="ID", help="AWS account, 12 digits: `aws sts get-caller-identity` shows it."
)
@click.option("--write", "folder", type=click.Path(path_type=Path, file_okay=False), help="Write ROLE.json there.")
def policies(role: str | None, account: str, folder: Path | None) -> None:
    """Print the least-privilege IAM policy of ROLE, or of all roles.

    The resources are those that the settings name; AWS is not called. Instances launch with the role that has the name
    of FACEREC_INSTANCES__PROFILE (default `<prefix>-worker`).

    \b
    Examples:
      facerec policies worker --account 123456789012
      facerec policies --account 123456789012 --write iam
      aws iam put-role-policy --role-name facerec-web --policy-name facerec --policy-document \\
        "$(facerec policies web --account 123456789012)"
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    if len(account) != 12 or not account.isdecimal():  # noqa: PLR2004 - in every AWS account's number
        raise click.BadParameter(f"{account!r} is not an AWS account of 12 digits", param_hint="--account")
    place = Place(Settings.load(), account)
    documents = {name: policy(name, place) for name in ([role] if role else sorted(ROLES))}
    if folder is not None:
        write_documents(folder, documents)
        echo(f"{len(documents)} policies written to {folder}", err=True)
    else:
        echo_json(documents[role] if role else documents)
