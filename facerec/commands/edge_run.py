"""`facerec edge run`, as a nucleus or a service manager starts it on the device, and `facerec edge health`."""

import os
import threading

import click

from facerec.background import on_stop_signals
from facerec.commands.terminal import json_option
from facerec.echo import echo, echo_json
from facerec.settings import Settings
from facerec.settings.edge import missing_nucleus_variables


@click.command("run")
def run() -> None:
    """Detect faces on this device, and send them to the cloud, until SIGTERM or Ctrl-C.

    It ends within some seconds: what could not be sent stays in the spool, and is sent after the next start. A second
    signal ends it at once, and loses no message either.

    \b
    Examples:
      set -a; . ./edge.env; set +a; facerec edge run
      FACEREC_EDGE__SOURCE=folder FACEREC_EDGE__FOLDER=/var/frames facerec edge run
    """  # noqa: D301 - \b is click's mark for a block that is not wrapped
    from facerec.edge.component import Component
    from facerec.edge.configuration import ConfigurationSource, EnvironmentOnly
    from facerec.engine.loading import load_artefact
    from facerec.engine.supervisor import SupervisedDetector
    from facerec.observability.logs import configure_logging

    settings = Settings.load()
    configure_logging(settings.log, process="edge")
    load_artefact(settings)  # it says what to do if there is none
    engines = settings.worker.engines or 1  # a device has other things to do on its cores
    settings = settings.changed(worker=settings.worker.model_copy(update={"engines": engines}))
    configuration: ConfigurationSource = EnvironmentOnly()
    if not missing_nucleus_variables():
        from facerec.edge.nucleus_configuration import NucleusConfiguration

        configuration = NucleusConfiguration()
    component = Component(
        settings,
        SupervisedDetector(settings, settings.model.dir),
        configuration,
        at_once=engines + 2,
    )
    stopping = threading.Event()
    on_stop_signals(stopping.set, second=lambda: os._exit(1))
    component.run(stopping)


@click.command("health")
@json_option
def health(*, as_json: bool) -> None:
    """Show what the component on this device does; exit status 1 unless it runs.

    It reads the state folder, also without a connection. `reasons` are what an operator should look at.

    \b
    Examples:
      facerec edge health
      facerec edge health --json | jq '.counters'
    """  # noqa: D301 - as above
    from facerec.edge.status import read_status

    status = read_status(Settings.load().edge.state_dir)
    if as_json:
        echo_json(status)
        return
    spool, link = status["spool"], status["link"]
    connected = "connected" if link["connected"] else "not connected"
    echo(f"{status['thing']} is {status['state']}, {connected}, {spool['messages']} messages in the spool")
    for reason in status["reasons"]:
        echo(f"- {reason}")
