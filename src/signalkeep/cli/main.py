"""The command `signalkeep`: registers every command and turns errors into words and exit codes.

Exit codes: 0 done, 1 something is wrong with the world or an audit found something, 2 the call was wrong.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from signalkeep import __version__, telemetry
from signalkeep.cli.audit import audit
from signalkeep.cli.backup import app as backup_app
from signalkeep.cli.common import exit_code_of
from signalkeep.cli.decode import decode
from signalkeep.cli.demo import fleet
from signalkeep.cli.devices import app as devices_app
from signalkeep.cli.devices_edit import assign, retire, set_, unassign
from signalkeep.cli.devices_erase import erase
from signalkeep.cli.devices_health import health
from signalkeep.cli.devices_import import import_
from signalkeep.cli.doctor import doctor
from signalkeep.cli.errors import app as errors_app
from signalkeep.cli.events import app as events_app
from signalkeep.cli.findings import app as findings_app
from signalkeep.cli.fleet import customers_app, vehicles_app
from signalkeep.cli.incidents import app as incidents_app
from signalkeep.cli.migrate import migrate
from signalkeep.cli.notify import app as notify_app
from signalkeep.cli.organizer import app as organizer_app
from signalkeep.cli.psql import psql
from signalkeep.cli.quarantine import app as quarantine_app
from signalkeep.cli.replay import app as replay_app
from signalkeep.cli.restore import restore
from signalkeep.cli.retention import app as retention_app
from signalkeep.cli.roles import gateway, ingest, monitor, relay
from signalkeep.cli.rules import app as rules_app
from signalkeep.cli.run import run
from signalkeep.cli.scores import scores
from signalkeep.cli.send import send
from signalkeep.cli.settings import app as config_app
from signalkeep.cli.signals import app as signals_app
from signalkeep.cli.simulate import simulate
from signalkeep.cli.status import status
from signalkeep.cli.upgrade import upgrade_database
from signalkeep.errors import SignalkeepError

app = typer.Typer(
    name="signalkeep",
    help="The IoT core for vehicle fleets that loses nothing it has acknowledged, and can prove it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False,
) -> None:
    if version:
        print(f"signalkeep {__version__}")
        raise typer.Exit


for command in (run, gateway, relay, ingest, monitor, status, audit, doctor, migrate, decode, send, simulate):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(psql)
app.command()(restore)
app.command("upgrade-database")(upgrade_database)
app.command(hidden=True)(fleet)
devices_app.command("set")(set_)
devices_app.command("import")(import_)
devices_app.command()(health)
devices_app.command()(retire)
devices_app.command()(erase)
devices_app.command()(assign)
devices_app.command()(unassign)
app.add_typer(backup_app, name="backup")
app.add_typer(devices_app, name="devices")
app.add_typer(vehicles_app, name="vehicles")
app.add_typer(customers_app, name="customers")
app.add_typer(events_app, name="events")
app.add_typer(signals_app, name="signals")
app.add_typer(quarantine_app, name="quarantine")
app.add_typer(replay_app, name="replay")
app.add_typer(rules_app, name="rules")
app.command()(scores)
app.add_typer(findings_app, name="findings")
app.add_typer(errors_app, name="errors")
app.add_typer(incidents_app, name="incidents")
app.add_typer(notify_app, name="notify")
app.add_typer(organizer_app, name="organizer")
app.add_typer(retention_app, name="retention")
app.add_typer(config_app, name="config")


def main() -> None:
    """Entry point: runs the command; an error that we raise on purpose is shown without a traceback."""
    try:
        app()
    except SignalkeepError as error:
        sys.exit(exit_code_of(error))
    except BrokenPipeError:  # `signalkeep signals list | head` is no error
        sys.stderr.close()
        sys.exit(1)
    except Exception:
        if not telemetry.only_json():
            raise
        telemetry.get_logger().exception("ended by a mistake of ours")
        sys.exit(1)
