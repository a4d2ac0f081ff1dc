"""`signalkeep` as a person calls it, on a database of a test. Every refusal must say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from signalkeep.cli.main import app
from signalkeep.errors import CallerError

RULES = "signalkeep.rulebook.RULES"


class Commands:
    """All with the same database and settings."""

    def __init__(self, dsn: str, data: Path, **environment: str) -> None:
        self.dsn = dsn
        self._data = data
        self._environment = {f"SIGNALKEEP_{name}": value for name, value in environment.items()}

    def result(self, *arguments: object) -> Result:
        environment = {"SIGNALKEEP_DATABASE__DSN": self.dsn, "SIGNALKEEP_DATA": str(self._data), "COLUMNS": "300"}
        return CliRunner().invoke(app, [str(one) for one in arguments], env=environment | self._environment)

    def __call__(self, *arguments: object, expect: int = 0) -> str:
        """What it prints on standard output."""
        done = self.result(*arguments)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == expect, done.output
        return done.stdout

    def json(self, *arguments: object, expect: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", expect=expect))

    def refused(self, *arguments: object) -> str:
        """What a wrong call is told, and what to do."""
        done = self.result(*arguments)
        if isinstance(done.exception, CallerError):  # `main` makes it exit code 2 with both
            assert done.exception.hint, f"{done.exception.message}: and what to do?"
            return f"{done.exception.message}\n{done.exception.hint}"
        assert done.exit_code == 2, (done.exit_code, done.exception, done.output)
        assert done.stderr
        return done.stderr


def lines_of(text: str) -> list[list[str]]:
    """A table as words, without its head."""
    return [line.split() for line in text.splitlines()[1:]]
