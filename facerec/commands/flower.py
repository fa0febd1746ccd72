"""`facerec flower`: workers, tasks and queues in a browser."""

import click

from facerec.settings import Settings


@click.command("flower")
def command() -> None:
    """Show workers, tasks and queues in a browser with Flower, until it is stopped.

    /workers, /tasks and /broker for people, /api/… and /metrics for programs, all behind one user and password; where
    FACEREC_FLOWER__PASSWORD is not set, a password is made and printed here. Run exactly one: a second one would take
    half of the events. What Flower could order workers to do is off, for SQS has no broadcast.

    \b
    Examples:
      facerec flower
      FACEREC_FLOWER__PORT=8080 FACEREC_FLOWER__PASSWORD=$(cat password) facerec flower
      FACEREC_FLOWER__DATABASE=/var/lib/facerec/flower/tasks facerec flower
      curl -u facerec:$PASSWORD http://127.0.0.1:5555/api/queues/length
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.flower.process import run

    run(Settings.load(), click.echo)
