"""`config`: every setting with its value, meaning and the place it comes from; a file to begin with; a check of one.

Values are shown as they would stand in the settings file. What is secret is masked, wherever it came from. Nothing here
changes a file.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit, urlunsplit

import typer
from pydantic import BaseModel, SecretStr

from signalkeep import __version__, config
from signalkeep.broker.address import redact as redact_broker
from signalkeep.cli.common import ConfigOption, DataOption, JsonOption, out, print_json, print_rows
from signalkeep.config import PASSWORD_MASK, Settings
from signalkeep.errors import SettingsError
from signalkeep.store.postgres import redact

SECRET: Final = re.compile(r"(^|_)(password|secret|token|key)$")
BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")

app = typer.Typer(help="Settings.", no_args_is_help=True)

OriginOption = Annotated[bool, typer.Option("--origin", help="where each value comes from, instead of its meaning")]


@app.callback()
def _group() -> None:
    """Settings."""


@app.command()
def show(
    data: DataOption = None, config_file: ConfigOption = None, origin: OriginOption = False, as_json: JsonOption = False
) -> None:
    """Show every setting as it is in force, with its meaning or its origin. Passwords are masked."""
    settings = config.load(data, config_file)
    file = config.settings_file(settings.data, config_file, os.environ)
    values = tomllib.loads(file.read_text(encoding="utf-8")) if file else {}
    rows = []
    for path, plain, meaning in leaves(settings):
        place = _data_origin(data) if path == ("data",) else config.place_of(path, os.environ, file, values)
        value, place = _dsn(settings, place) if path == ("database", "dsn") else (plain, place)
        rows.append({"setting": ".".join(path), "value": masked(path, value), "meaning": meaning, "origin": place})
    about = "origin" if origin else "meaning"
    if as_json:
        print_json({row["setting"]: {"value": _plain(row["value"]), about: row[about]} for row in rows})
        return
    print_rows(
        [{**row, "value": toml_value(row["value"])} for row in rows],
        ("setting", "value", about),
        as_json=False,
        empty="",
    )


@app.command()
def example() -> None:
    """Print a settings file with every setting, its meaning and its default. As it stands, it changes nothing."""
    out.print(example_file(), markup=False, end="")


@app.command()
def check(file: Annotated[Path, typer.Argument(help="settings file", exists=False)]) -> None:
    """Check a settings file without using it; every fault is named at once. Exit code 2 if there is one."""
    config.load(None, file, {}).database.resolved_dsn()
    out.print(f"{file}: every setting in it can be used", markup=False)


def leaves(section: BaseModel, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """Path, value and meaning of every setting."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*above, name))
        elif isinstance(value, Mapping) and any(isinstance(part, BaseModel) for part in value.values()):
            for key, part in value.items():
                yield from leaves(part, (*above, name, key))
        else:
            yield (*above, name), value, field.description or ""


def masked(path: tuple[str, ...], value: Any) -> Any:
    """The value as it may be shown."""
    if path[-1] == "dsn" and value:
        return redact(str(value))
    if path[0] == "broker" and path[-1] in {"url", "management_url"} and value:
        return redact_broker(str(value))
    if isinstance(value, SecretStr):
        kind, colon, _ = value.get_secret_value().partition("://")
        return f"{kind}://{PASSWORD_MASK}" if colon else PASSWORD_MASK if kind else ""
    if path == ("services", "watch"):
        return [_masked_watch(one.model_dump(mode="json", exclude_defaults=True)) for one in value]
    return PASSWORD_MASK if value and SECRET.search(path[-1]) else value


def _masked_watch(values: dict[str, Any]) -> dict[str, Any]:
    """A DSN and a URL may hold passwords."""
    if values.get("dsn"):
        values["dsn"] = redact(values["dsn"])
    if "http" in values:
        parts = urlsplit(values["http"])
        login, at, place = parts.netloc.rpartition("@")
        user = login.partition(":")[0]
        netloc = f"{user}:{PASSWORD_MASK}@{place}" if at and ":" in login else parts.netloc
        query = PASSWORD_MASK if parts.query else ""
        values["http"] = urlunsplit((parts.scheme, netloc, parts.path, query, ""))
    return values


def toml_value(value: Any) -> str:
    """As it stands in a settings file; nothing for what is not set."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{key if BARE_KEY.fullmatch(key) else json.dumps(key)} = {toml_value(v)}" for key, v in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False)  # JSON's strings are TOML's


def example_file() -> str:
    """Every value is commented out, so that a newer version's defaults count; with the marks gone it says the same."""
    lines = [
        f"# Settings of signalkeep {__version__}: put this file at DATA/signalkeep.toml, or name it with --config.",
        "# Take the # away from what you change. `signalkeep config check FILE` says whether it can be used.",
        "",
    ]
    defaults = {name: (field.default, field.description or "") for name, field in Settings.model_fields.items()}
    del defaults["data"]
    return "\n".join([*lines, *_table("", defaults)]).rstrip() + "\n"


def _table(path: str, defaults: Mapping[str, tuple[Any, str]]) -> list[str]:
    """Values first, then the tables below it: what follows a table's head in TOML belongs to that table."""
    lines = []
    for name, (value, meaning) in defaults.items():
        if not isinstance(value, BaseModel):
            lines += _entry(name, value, meaning)
    for name, (value, _) in defaults.items():
        if isinstance(value, BaseModel):
            lines += [f"[{path}{name}]", *_comment(type(value).__doc__ or ""), ""]
            fields = type(value).model_fields.items()
            lines += _table(
                f"{path}{name}.", {key: (getattr(value, key), field.description or "") for key, field in fields}
            )
    return lines


def _entry(name: str, value: Any, meaning: str) -> list[str]:
    return [*_comment(meaning), f"#{name} = " if value is None else f"#{name} = {toml_value(value)}", ""]


def _comment(text: str) -> list[str]:
    return [f"# {line.strip()}" for line in text.strip().splitlines()]


def _dsn(settings: Settings, place: str) -> tuple[str, str]:
    """The DSN that is in force, wherever it stands."""
    secret = settings.database.dsn_file
    if secret is None:
        return settings.database.dsn, place
    try:
        return settings.database.resolved_dsn(), f"secret file {secret}"
    except SettingsError as error:
        return "", error.message


def _data_origin(data: Path | None) -> str:
    named = os.environ.get("SIGNALKEEP_DATA")
    if named and (data is None or Path(named) == data):
        return "environment SIGNALKEEP_DATA"
    return "--data" if data else "default"


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str, dict, list)) or value is None else str(value)
