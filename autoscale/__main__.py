"""`python -m autoscale` runs `facerec autoscale`."""

import sys

from autoscale.commands.autoscale import command
from facerec.echo import echo_error
from facerec.errors import FacerecError


def main() -> None:
    """Run the command; an error of ours becomes one line on stderr and exit status 1."""
    try:
        command(prog_name="python -m autoscale")
    except FacerecError as exc:
        echo_error(str(exc), several_lines=exc.several_lines, program="autoscale")
        sys.exit(1)


if __name__ == "__main__":
    main()
