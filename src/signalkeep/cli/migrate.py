"""`migrate`: bring the database's schema to the version of this signalkeep.

Roles do it by themselves at a start; this is for those who want to see it done first. It also lets the role
signalkeep_reader read, where that was not possible before. It never takes a schema back to an older version.
"""

from __future__ import annotations

from signalkeep import config
from signalkeep.cli.common import ConfigOption, DataOption, err, run_async, with_database
from signalkeep.store.postgres import dsn_of, redact
from signalkeep.store.readers import grant_reader
from signalkeep.store.schema import HEAD, ensure_schema


def migrate(data: DataOption = None, config_file: ConfigOption = None) -> None:
    """Bring the database schema to this version's. Does nothing if it is."""
    settings = config.load(data, config_file)
    dsn = dsn_of(settings)
    changed = run_async(ensure_schema(dsn, settings.database))
    done = "is now at" if changed else "is already at"
    err.print(f"the schema of {redact(dsn)} {done} version {HEAD}", markup=False)
    problem = with_database(data, config_file, grant_reader, application="signalkeep migrate")
    if problem:
        err.print(problem, markup=False)
