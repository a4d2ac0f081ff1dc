"""What the tests of deployments share: whether a command line and an environment are ones that signalkeep takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import typer
from typer.main import get_group

from signalkeep import config
from signalkeep.cli.main import app
from signalkeep.config import Settings


def accepts(command: Sequence[str]) -> None:
    """Raises AssertionError unless there is such a command that takes these options. It is not carried out."""
    name, *arguments = command
    group = get_group(app)
    context = typer.Context(group)
    found = group.get_command(context, name)
    assert found is not None, f"no such command: {name}"
    try:
        found.make_context(name, list(arguments), parent=context)
    except Exception as error:
        raise AssertionError(f"{' '.join(command)}: {type(error).__name__}: {error}") from error


def loads(environment: Mapping[str, str]) -> Settings:
    """The settings that processes with this environment get, and no file."""
    return config.load(environ=dict(environment))
