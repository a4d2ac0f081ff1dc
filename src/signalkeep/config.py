"""Settings: one tree, from one TOML file and the environment. Every wrong setting is named at once, with its place.

Precedence: environment (`SIGNALKEEP_JOURNAL__SEGMENT_BYTES=...`), then the file, then the default. The file is the
one given by `--config` or `SIGNALKEEP_CONFIG`, else `signalkeep.toml` in the data directory if there is one. Unknown
keys are refused: a misspelt setting must not be a silent one. A secret can stand in a file of its own:
`database.dsn_file`. Reading settings changes nothing on the disk.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from signalkeep import limits
from signalkeep.errors import SettingsError

ENV_PREFIX = "SIGNALKEEP_"
NOT_SETTINGS = {"SIGNALKEEP_DATA", "SIGNALKEEP_CONFIG", "SIGNALKEEP_VECTORS"}
MONITOR_PORT = 7465
PASSWORD_MASK = "********"  # noqa: S105 - what is shown instead of one

Port = Annotated[int, Field(ge=0, le=limits.PORT_MAX)]
Network = IPv4Network | IPv6Network
UnknownDevices = Literal["quarantine", "register", "refuse"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(_Section):
    """Ports on which devices speak TLS."""

    ports: tuple[str, ...] = Field(default=(), description="protocols whose TCP port expects TLS")
    certificate: Path | None = Field(default=None, description="PEM file: our certificate and those above it")
    key: Path | None = Field(default=None, description="PEM file: its private key, without a password")
    client_ca: Path | None = Field(
        default=None, description="PEM file: who may sign certificates of devices; set, every device must have one"
    )

    @model_validator(mode="after")
    def _complete(self) -> TlsSettings:
        if self.ports and not (self.certificate and self.key):
            raise ValueError("ports need certificate and key")
        return self


class GatewaySettings(_Section):
    """How devices reach us. Limits hold for each gateway process by itself."""

    host: str = Field(default="0.0.0.0", description="address that device ports listen on")  # noqa: S104 - devices call from outside
    ports: dict[str, Port] = Field(
        default_factory=lambda: {"teltonika": 5027, "json": 2006},
        description="TCP port of each protocol; a protocol that is not named is not served",
    )
    udp_ports: dict[str, Port] | None = Field(
        default=None,
        description="UDP port of each protocol; not set: those of `ports` that speak UDP, at the same numbers",
    )
    processes: int = Field(
        default=1, ge=1, le=limits.GATEWAY_PROCESSES_MAX, description="gateway processes that share the ports"
    )
    connections_max: int = Field(default=limits.CONNECTIONS_MAX, ge=1, description="open connections per process")
    connections_per_address_max: int = Field(
        default=limits.CONNECTIONS_PER_ADDRESS_MAX, ge=1, description="of these, from one address"
    )
    handshake_s: float = Field(default=limits.HANDSHAKE_S_MAX, gt=0, description="time to the first whole message")
    frame_s: float = Field(
        default=limits.MESSAGE_S_MAX, gt=0, description="time for one message once begun, and for taking an answer"
    )
    idle_s: float = Field(default=limits.IDLE_S_MAX, gt=0, description="a connection silent for longer is closed")
    frame_bytes_max: int = Field(
        default=limits.FRAME_BYTES_MAX, ge=1, le=limits.FRAME_BYTES_MAX, description="a longer message is refused"
    )
    unknown_bytes_per_device: int = Field(
        default=limits.UNKNOWN_BYTES_PER_DEVICE_MAX, ge=0, description="what a device nobody registered may leave here"
    )
    unknown_bytes_per_address: int = Field(
        default=limits.UNKNOWN_BYTES_PER_ADDRESS_MAX, ge=0, description="and all such devices of one address"
    )
    unknown_bytes_total: int = Field(
        default=limits.UNKNOWN_BYTES_TOTAL_MAX, ge=0, description="and all of them together, per process"
    )
    proxy_protocol: tuple[str, ...] = Field(
        default=(), description="protocols whose TCP port is behind a load balancer that sends PROXY protocol 2"
    )
    proxy_from: tuple[Network, ...] = Field(
        default=(), description="addresses or networks of such load balancers; nobody else is heard there"
    )
    tls: TlsSettings = TlsSettings()

    @model_validator(mode="after")
    def _consistent(self) -> GatewaySettings:
        if self.proxy_protocol and not self.proxy_from:
            raise ValueError("proxy_protocol needs proxy_from: who may say where a connection comes from")
        for name, protocols in (("proxy_protocol", self.proxy_protocol), ("tls.ports", self.tls.ports)):
            for protocol in protocols:
                if protocol not in self.ports:
                    raise ValueError(f"{name} names {protocol}, which has no TCP port in gateway.ports")
        return self

    def served_udp(self) -> dict[str, int]:
        """UDP ports by protocol."""
        if self.udp_ports is not None:
            return self.udp_ports
        return {name: port for name, port in self.ports.items() if name in _speaking_udp()}


class JournalSettings(_Section):
    """Where acknowledged bytes are safe until the database has them, and for the replay window after that."""

    segment_bytes: int = Field(
        default=limits.SEGMENT_BYTES, ge=limits.SEGMENT_BYTES_MIN, multiple_of=limits.JOURNAL_BLOCK_BYTES
    )
    replay_window_h: float = Field(default=limits.JOURNAL_REPLAY_WINDOW_H, ge=0, description="kept at least this long")
    keep_bytes: int = Field(default=limits.JOURNAL_KEEP_BYTES, ge=0, description="above it, ingested segments go")
    cap_bytes: int = Field(default=limits.JOURNAL_CAP_BYTES, ge=0, description="above it, sockets are not read")
    disk_free_bytes: int = Field(default=limits.DISK_FREE_BYTES_MIN, ge=0, description="below it, sockets are not read")
    archive_dir: Path | None = Field(default=None, description="segments go there instead of being unlinked")
    allow_unsafe: bool = Field(
        default=False, description="work in memory or over a network, where a sync is no promise"
    )


class DatabaseSettings(_Section):
    """Where rows go: the embedded server unless a DSN is given."""

    dsn: str = Field(default="", description="postgresql://... of a PostgreSQL 14 or newer; empty: the embedded server")
    dsn_file: Path | None = Field(default=None, description="a file whose first line is the DSN")
    allow_unsafe: bool = Field(default=False, description="work with fsync, synchronous_commit or full_page_writes off")
    bin_dir: Path | None = Field(default=None, description="bin folder of an installed PostgreSQL to embed")
    run_as: str = Field(default="", description="user for the embedded server when started as root")
    listen: str = Field(
        default="", description="ADDRESS:PORT of the embedded server for programs that only read; empty: none"
    )
    reader_password_file: Path | None = Field(
        default=None, description="a file with the password for that; default: one is made in the data directory"
    )
    listen_certificate: Path | None = Field(default=None, description="certificate (PEM) for TLS on that address")
    listen_key: Path | None = Field(default=None, description="its private key (PEM)")

    @field_validator("listen")
    @classmethod
    def _address_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        named = re.fullmatch(r"[^\s:,'\"\[\]]+|\[[0-9A-Fa-f:.]+\]", host)
        if value and not (colon and named and port.isdecimal() and 1 <= int(port) <= limits.PORT_MAX):
            raise ValueError("this is no ADDRESS:PORT, such as 127.0.0.1:5433 or [::1]:5433")
        return value

    @model_validator(mode="after")
    def _one_dsn(self) -> DatabaseSettings:
        if self.dsn and self.dsn_file:
            raise ValueError("give dsn or dsn_file, not both")
        if bool(self.listen_certificate) != bool(self.listen_key):
            raise ValueError("listen_certificate and listen_key belong together")
        if (self.dsn or self.dsn_file) and self.listen:
            raise ValueError("listen is of the embedded server: where another server listens is set there")
        return self

    def resolved_dsn(self) -> str:
        """The DSN to use, '' for the embedded server. Raises SettingsError if the secret file cannot be read."""
        return _first_line("database.dsn_file", self.dsn_file, "DSN") if self.dsn_file else self.dsn


def _first_line(setting: str, file: Path, what: str) -> str:
    """A secret that stands in a file of its own. Raises SettingsError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise SettingsError(
            f"{setting}: {file}: {error.strerror}", hint="Make the file readable to this user."
        ) from error
    if not lines or not lines[0].strip():
        raise SettingsError(f"{setting}: {file} is empty", hint=f"Put the {what} on its first line.")
    return lines[0].strip()


class IngestSettings(_Section):
    """From frames to rows."""

    processes: int = Field(default=1, ge=1, le=64, description="ingest processes; each drives journals of its own")
    batch_frames: int = Field(default=limits.INGEST_BATCH_FRAMES_MAX, ge=1, description="frames per transaction")
    retention_days: int = Field(default=0, ge=0, description="older records are `expired`; 0 keeps all")


class BrokerSettings(_Section):
    """RabbitMQ between gateways and ingest, for fleets that outgrow one machine. Without a URL there is none."""

    url: str = Field(default="", description="amqp:// or amqps:// of RabbitMQ 3.10 or newer; empty: no broker")
    url_file: Path | None = Field(default=None, description="a file whose first line is the URL, with its password")
    ca_file: Path | None = Field(default=None, description="PEM file: who may have signed the broker's certificate")
    certificate: Path | None = Field(default=None, description="PEM file: our certificate, if the broker asks for one")
    key: Path | None = Field(default=None, description="PEM file: its private key")
    management_url: str = Field(
        default="", description="http(s):// of its management plugin, to see policies; empty: the usual port is tried"
    )
    queues: int = Field(
        default=limits.BROKER_QUEUES, ge=1, le=limits.LANES_WITH_BROKER,
        description="queues that share the lanes; as many workers can work at a time. The same for all processes",
    )  # fmt: skip
    window_bytes: int = Field(
        default=limits.BROKER_WINDOW_BYTES, ge=limits.BROKER_MESSAGE_BYTES_MAX,
        description="sent and not yet in the database, per journal and queue",
    )  # fmt: skip
    publish_signals: bool = Field(
        default=False, description="publish stored signals to the topic exchange signalkeep.signals"
    )

    @model_validator(mode="after")
    def _complete(self) -> BrokerSettings:
        if self.url and self.url_file:
            raise ValueError("give url or url_file, not both")
        if self.url and not self.url.startswith(("amqp://", "amqps://")):
            raise ValueError("url must begin with amqp:// or amqps://")
        if bool(self.certificate) != bool(self.key):
            raise ValueError("certificate and key belong together")
        if self.publish_signals and not (self.url or self.url_file):
            raise ValueError("publish_signals needs a broker: set url")
        return self

    @property
    def enabled(self) -> bool:
        return bool(self.url or self.url_file)

    def resolved_url(self) -> str:
        """The URL to use. Raises SettingsError if the secret file cannot be used."""
        url = _first_line("broker.url_file", self.url_file, "URL") if self.url_file else self.url
        if not url.startswith(("amqp://", "amqps://")):
            raise SettingsError("broker.url_file: its first line does not begin with amqp:// or amqps://")
        return url


class MonitorSettings(_Section):
    """Health and metrics of this core, over HTTP."""

    enabled: bool = Field(default=True, description="`run` starts the monitor")
    host: str = Field(default="127.0.0.1", description="address that the monitor listens on; it asks for no password")
    port: Port = Field(default=MONITOR_PORT, description="TCP port of /livez, /readyz and /metrics; 0: any free one")
    hung_after_s: float = Field(
        default=limits.HUNG_S, ge=3 * limits.HEARTBEAT_S, description="a role silent for longer counts as hung"
    )


class LogSettings(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="less important is left out"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: for people on a terminal, else JSON; json: every line is one JSON object"
    )


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
    monitor: MonitorSettings = MonitorSettings()
    log: LogSettings = LogSettings()

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
            faults.append(f"{place}: {path}: {said}{_shown(item.get('input'))}")
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
    for setting, known in (("ports", sorted(PROTOCOLS)), ("udp_ports", _speaking_udp())):
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


def _speaking_udp() -> list[str]:
    from signalkeep.protocols.registry import PROTOCOLS

    return sorted(name for name, protocol in PROTOCOLS.items() if "udp" in protocol.transports)


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
    sections = {name: isinstance(field.default, _Section) for name, field in Settings.model_fields.items()}
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
    if _holds(from_env, loc):
        return f"environment {ENV_PREFIX}{'__'.join(str(part) for part in loc).upper()}"
    return str(file) if file else "settings"


def _shown(value: Any) -> str:
    return "" if value is None or isinstance(value, (dict, BaseModel)) or "://" in str(value) else f" (found {value!r})"
