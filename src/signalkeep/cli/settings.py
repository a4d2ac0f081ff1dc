"""`config show`: every setting with its value and where it comes from, as it is now in force."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from typing import Any

import typer
from pydantic import BaseModel

from signalkeep import config
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, print_json, print_rows
from signalkeep.store.postgres import redact

app = typer.Typer(help="Settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Settings."""


@app.command()
def show(data: DataOption = None, config_file: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show every setting, its value and its origin. Passwords are masked."""
    settings = config.load(data, config_file)
    file = config.settings_file(settings.data, config_file, os.environ)
    values = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    rows = [
        {
            "setting": ".".join(path),
            "value": redact(str(value)) if path[-1] == "dsn" else value,
            "origin": "argument" if path == ("data",) else config.origin(path, os.environ, values),
            "meaning": meaning,
        }
        for path, value, meaning in _leaves(settings, ())
    ]
    if as_json:
        print_json({row["setting"]: {"value": _plain(row["value"]), "origin": row["origin"]} for row in rows})
        return
    shown = [{**row, "value": _plain(row["value"])} for row in rows]
    print_rows(shown, ("setting", "value", "origin", "meaning"), as_json=False, empty="")


def _leaves(section: BaseModel, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value, field.description or ""


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str, dict)) or value is None else str(value)
