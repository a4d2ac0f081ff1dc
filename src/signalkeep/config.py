"""Settings: one tree, from one TOML file and the environment. Every wrong setting is named at once, with its place.

Precedence: environment (`SIGNALKEEP_JOURNAL__SEGMENT_BYTES=...`), then the file, then the default. The file is the
one given by `--config` or `SIGNALKEEP_CONFIG`, else `signalkeep.toml` in the data directory if there is one. Unknown
keys are refused: a misspelt setting must not be a silent one. A secret can stand in a file of its own:
`database.dsn_file`. Reading settings changes nothing on the disk.
"""

from __future__ import annotations

import os
import shlex
import sys
import tomllib
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from signalkeep import limits
from signalkeep.errors import SettingsError
from signalkeep.sections import (
    BrokerSettings,
    DatabaseSettings,
    GatewaySettings,
    IngestSettings,
    JournalSettings,
    LogSettings,
    MonitorSettings,
    OrganizerSettings,
    QualitySettings,
    UnknownDevices,
    speaking_udp,
)
from signalkeep.sections.base import Section
from signalkeep.sections.devices import DevicesSettings
from signalkeep.sections.notify import NotifySettings
from signalkeep.sections.push_back import PushBackSettings
from signalkeep.sections.services import AuditSettings, ServicesSettings

ENV_PREFIX = "SIGNALKEEP_"
NOT_SETTINGS = {"SIGNALKEEP_DATA", "SIGNALKEEP_CONFIG", "SIGNALKEEP_VECTORS"}
PASSWORD_MASK = "********"  # noqa: S105 - what is shown instead of one


class Settings(BaseSettings):
    """The whole tree. `data` is where everything lives that must survive."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__", case_sensitive=False
    )

    data: Path
    unknown_devices: UnknownDevices = Field(default="quarantine", description="what an unregistered device gets")
    gateway: GatewaySettings = GatewaySettings()
    journal: JournalSettings = JournalSettings()
    database: DatabaseSettings = DatabaseSettings()
    ingest: IngestSettings = IngestSettings()
    broker: BrokerSettings = BrokerSettings()
    quality: QualitySettings = QualitySettings()
    devices: DevicesSettings = DevicesSettings()
    push_back: PushBackSettings = PushBackSettings()
    organizer: OrganizerSettings = OrganizerSettings()
    notify: NotifySettings = NotifySettings()
    monitor: MonitorSettings = MonitorSettings()
    services: ServicesSettings = ServicesSettings()
    audit: AuditSettings = AuditSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _celery_has_its_broker(self) -> Settings:
        if self.organizer.runner == "celery" and not self.broker.enabled:
            fault = PydanticCustomError("runner", "Celery's tasks go through the broker: set broker.url")
            detail = InitErrorDetails(type=fault, loc=("organizer", "runner"), input="celery")
            raise ValidationError.from_exception_data("organizer", [detail])
        return self

    @property
    def journal_root(self) -> Path:
        return self.data / "journal"

    @property
    def evidence_root(self) -> Path:
        return self.data / "evidence"

    @property
    def run_root(self) -> Path:
        return self.data / "run"

    @property
    def lanes(self) -> int:
        """Of the journals that gateways open."""
        return limits.LANES_WITH_BROKER if self.broker.enabled else 1

    @property
    def erasures_file(self) -> Path:
        return self.data / "erasures.jsonl"

    @property
    def embedded(self) -> bool:
        return not self.database.resolved_dsn()


def default_data_directory() -> Path:
    """The one place that every command looks in unless told otherwise.

    root: /var/lib/signalkeep. Others: the user's data directory of the platform.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/signalkeep")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "signalkeep"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "signalkeep"


def data_option(settings: Settings) -> str:
    """` --data DIR` for a command line that is shown to a person; nothing for the default directory."""
    return "" if settings.data == default_data_directory() else f" --data {shlex.quote(str(settings.data))}"


def load(data: Path | None = None, config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Settings from the arguments, the environment and the file. Raises SettingsError naming every fault."""
    environ = os.environ if environ is None else environ
    directory = (data or Path(environ.get("SIGNALKEEP_DATA") or default_data_directory())).expanduser().absolute()
    file = settings_file(directory, config, environ)
    from_file = _read_toml(file) if file else {}
    from_env = _read_environment(environ)
    faults = _unknown_environment(environ)
    merged = _merge(from_file, from_env)
    if "data" in from_file:
        faults.append(f"{file}: data: the data directory is chosen by --data or SIGNALKEEP_DATA, not in the file")
    merged["data"] = directory
    try:
        settings = _Explicit(**merged)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            path = ".".join(str(part) for part in item["loc"])
            place = _place(item["loc"], from_env, file)
            said = "no such setting" if item["type"] == "extra_forbidden" else item["msg"]
            secret = path.startswith("notify.channels.")  # whatever is wrong there may be half of a password
            faults.append(f"{place}: {path}: {said}{'' if secret else _shown(item.get('input'))}")
    faults += _unknown_protocols(merged, from_env, file)
    if faults:
        raise SettingsError(
            "these settings cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults),
            hint="`signalkeep config show` lists every setting with its default.",
        )
    return settings


def settings_file(directory: Path, config: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file that settings are read from, if any."""
    if config or environ.get("SIGNALKEEP_CONFIG"):
        return config or Path(environ["SIGNALKEEP_CONFIG"])
    usual = directory / "signalkeep.toml"
    return usual if usual.is_file() else None


def origin(settings_path: tuple[str, ...], environ: Mapping[str, str], file_values: Mapping[str, Any]) -> str:
    """Where a setting's value comes from: 'environment', 'file' or 'default'."""
    if _holds(_read_environment(environ), settings_path):
        return "environment"
    return "file" if _holds(file_values, settings_path) else "default"


def place_of(
    settings_path: tuple[str, ...], environ: Mapping[str, str], file: Path | None, file_values: Mapping[str, Any]
) -> str:
    """The same with the place itself: the variables, the file."""
    match origin(settings_path, environ, file_values):
        case "environment":
            return f"environment {', '.join(_variables_of(settings_path, environ))}"
        case "file":
            return f"file {file}"
        case _:
            return "default"


def _variables_of(settings_path: tuple[str, ...], environ: Mapping[str, str]) -> list[str]:
    """Variables that give a setting: itself, a part of it, or a table that it stands in."""
    found = []
    for name in sorted(environ):
        if name.upper().startswith(ENV_PREFIX) and name not in NOT_SETTINGS:
            parts = tuple(name[len(ENV_PREFIX) :].lower().split("__"))
            common = min(len(parts), len(settings_path))
            if parts[:common] == settings_path[:common]:
                found.append(name)
    return found


class _Explicit(Settings):
    """`Settings` built from the merged values alone: the sources were read, and their places noted, before."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def _unknown_protocols(merged: Mapping[str, Any], from_env: Mapping[str, Any], file: Path | None) -> list[str]:
    from signalkeep.protocols.registry import PROTOCOLS

    faults = []
    for setting, known in (("ports", sorted(PROTOCOLS)), ("udp_ports", speaking_udp())):
        given = merged["gateway"][setting] if _holds(merged, ("gateway", setting)) else None
        if not isinstance(given, Mapping):
            continue  # if it is given at all, its type is the fault
        faults += [
            f"{_place(('gateway', setting, name), from_env, file)}: gateway.{setting}.{name}: no such protocol"
            f"{' over UDP' if setting == 'udp_ports' else ''}; there are {', '.join(known)}"
            for name in given
            if name not in known
        ]
    return faults


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}", hint="Check --config and SIGNALKEEP_CONFIG.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    class Source(EnvSettingsSource):
        def _load_env_vars(self) -> Mapping[str, str | None]:
            return {name.lower(): value for name, value in environ.items() if name not in NOT_SETTINGS}

    try:
        values = Source(Settings)()
    except ValueError as error:  # a JSON value (ports) that does not parse
        raise SettingsError(f"environment: {error}", hint="Tables are given as JSON.") from error
    return {key: value for key, value in values.items() if key != "data"}


def _unknown_environment(environ: Mapping[str, str]) -> list[str]:
    sections = {name: isinstance(field.default, Section) for name, field in Settings.model_fields.items()}
    del sections["data"]
    faults = []
    for name in sorted(environ):
        if not name.upper().startswith(ENV_PREFIX) or name in NOT_SETTINGS:
            continue
        first, *below = name[len(ENV_PREFIX) :].lower().split("__")
        if first not in sections or (below and not sections[first]):
            faults.append(f"environment {name}: no such setting")
    return faults


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _holds(values: Any, path: tuple[Any, ...]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def _place(loc: tuple[int | str, ...], from_env: Mapping[str, Any], file: Path | None) -> str:
    named = tuple(takewhile(lambda part: isinstance(part, str), loc))  # a list is one variable, whatever is in it
    if _holds(from_env, named):
        return f"environment {ENV_PREFIX}{'__'.join(map(str, named)).upper()}"
    return str(file) if file else "settings"


def _shown(value: Any) -> str:
    return "" if value is None or isinstance(value, (dict, BaseModel)) or "://" in str(value) else f" (found {value!r})"
