"""`facerec fleet user-data`: what EC2 gives the app tier's instances at their first boot."""

import click

from facerec.settings import Settings


@click.command("user-data")
def user_data() -> None:
    """Print the user data of the app tier's EC2 instances, as `facerec provision` puts it into the launch template.

    It holds the settings of this deployment that a worker reads, a boot script and a systemd unit.

    \b
    Examples:
      facerec fleet user-data
      facerec fleet user-data > user-data.yaml && cloud-init schema --config-file user-data.yaml
      FACEREC_INSTANCES__PACKAGE=s3://my-bucket/facerec-1.0-py3-none-any.whl facerec fleet user-data
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.instance import user_data as instance

    click.echo(instance.user_data(Settings.load()), nl=False)
