"""The sections of the settings, each with its defaults and what makes no sense in it. `config.py` reads them.

A description says what a setting is for; `signalkeep config show` prints them all.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from signalkeep import limits
from signalkeep.errors import SettingsError
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Dimension, Rule, Severity
from signalkeep.rules.own import check_of
from signalkeep.sections.base import Port, Section, first_line

MONITOR_PORT = 7465

Network = IPv4Network | IPv6Network
UnknownDevices = Literal["quarantine", "register", "refuse"]


class TlsSettings(Section):
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


class GatewaySettings(Section):
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
        return {name: port for name, port in self.ports.items() if name in speaking_udp()}


class JournalSettings(Section):
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


class DatabaseSettings(Section):
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
        return first_line("database.dsn_file", self.dsn_file, "DSN") if self.dsn_file else self.dsn


class IngestSettings(Section):
    """From frames to rows."""

    processes: int = Field(default=1, ge=1, le=64, description="ingest processes; each drives journals of its own")
    batch_frames: int = Field(default=limits.INGEST_BATCH_FRAMES_MAX, ge=1, description="frames per transaction")
    retention_days: int = Field(default=0, ge=0, description="older records are `expired`; 0 keeps all")
    drop_months: bool = Field(
        default=False, description="drop what is stored, too, for good, month by month, when retention_days are over"
    )

    @model_validator(mode="after")
    def _says_when(self) -> IngestSettings:
        if self.drop_months and not self.retention_days:
            raise ValueError("drop_months needs retention_days: how old is what may go?")
        return self


class BrokerSettings(Section):
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
        url = first_line("broker.url_file", self.url_file, "URL") if self.url_file else self.url
        if not url.startswith(("amqp://", "amqps://")):
            raise SettingsError("broker.url_file: its first line does not begin with amqp:// or amqps://")
        return url


RuleValues = dict[str, Any]
"""What is set for a rule: `enabled`, and its limits by name."""


class OwnRule(Section):
    """A rule that users write: a condition, and how long it must hold. `signalkeep.rules.own` says what it may say."""

    id: str = Field(pattern=r"^[A-Z]{2,6}-[0-9]{2}$", description="such as OWN-01; keeps its meaning for ever")
    title: str = Field(min_length=1, max_length=80, description="a few words")
    when: str = Field(min_length=1, description="the condition, such as speed_kmh > 90 and not ignition")
    for_s: float = Field(default=0.0, ge=0, description="it must hold for so long")
    in_a_row: int = Field(default=1, ge=1, description="and for so many signals")
    dimension: Dimension = Field(default=Dimension.CONSISTENCY, description="what it is about")
    severity: Severity = Field(default=Severity.WARNING, description="how much a hit matters")
    models: tuple[str, ...] = Field(default=(), description="only devices of these models; empty: all")
    customers: tuple[str, ...] = Field(default=(), description="only vehicles of these customers; empty: all")
    error_type: int | None = Field(
        default=None, ge=1, le=limits.INTEGER_MAX, description="hits count for this error type"
    )
    meaning: str = Field(default="", description="what a hit says, for people")

    @field_validator("when")
    @classmethod
    def _understood(cls, value: str) -> str:
        check_of(value)  # a WrongCondition is a ValueError
        return value


class QualitySettings(Section):
    """What rules say of signals, at ingest and in sweeps."""

    enabled: bool = Field(default=True, description="judge signals when they are stored")
    sweep_every_s: float = Field(default=60.0, ge=1, description="how often the organizer looks at what is new")
    sweep_budget_s: float = Field(default=20.0, gt=0, description="how long it works then at most")
    sample_days: int = Field(
        default=20, ge=0, description="old days of devices that each sweep judges again, at random"
    )
    rules: dict[str, RuleValues] = Field(
        default_factory=dict, description="by rule: enabled, and its limits; `signalkeep rules list` names them"
    )
    models: dict[str, dict[str, RuleValues]] = Field(default_factory=dict, description="the same for a device model")
    customers: dict[str, dict[str, RuleValues]] = Field(default_factory=dict, description="the same for a customer")
    own: tuple[OwnRule, ...] = Field(default=(), description="rules of your own: condition and duration")

    @field_validator("rules")
    @classmethod
    def _known_limits(cls, value: dict[str, RuleValues]) -> dict[str, RuleValues]:
        _check({(rule_id,): values for rule_id, values in value.items()})
        return _in_capitals(value)

    @field_validator("models", "customers")
    @classmethod
    def _known_limits_of_some(cls, value: dict[str, dict[str, RuleValues]]) -> dict[str, dict[str, RuleValues]]:
        _check({(name, rule_id): values for name, rules in value.items() for rule_id, values in rules.items()})
        return {name: _in_capitals(rules) for name, rules in value.items()}

    @model_validator(mode="after")
    def _own_ids(self) -> QualitySettings:
        for place, rule in enumerate(self.own):
            if rule.id in BY_ID or rule.id in {other.id for other in self.own[:place]}:
                raise ValueError(f"own: {rule.id} is the id of another rule")
        return self


def _check(by_place: dict[tuple[str, ...], RuleValues]) -> None:
    """Values of rules that come with signalkeep; others are checked where they are known. Names every fault's place."""
    faults = [
        InitErrorDetails(
            type=PydanticCustomError("rule_value", "{said}", {"said": said}), loc=(*place, name), input=values[name]
        )
        for place, values in by_place.items()
        if (rule := BY_ID.get(place[-1].upper())) is not None
        for name, said in value_faults(rule, values).items()
    ]
    if faults:
        raise ValidationError.from_exception_data("quality", faults)


def _in_capitals(rules: dict[str, RuleValues]) -> dict[str, RuleValues]:
    """Ids as rules have them: from the environment they come in small letters, and go over those of the file."""
    found: dict[str, RuleValues] = {}
    for rule_id, values in rules.items():
        found[rule_id.upper()] = found.get(rule_id.upper(), {}) | values
    return found


def value_faults(rule: Rule, values: RuleValues) -> dict[str, str]:
    """What is wrong with the values that are set for a rule, by their names, for people."""
    faults = {}
    for name, value in values.items():
        limit = rule.limits.get(name)
        number = None
        with suppress(TypeError, ValueError, OverflowError):
            number = None if isinstance(value, bool) else float(value)
        if name == "enabled":
            if str(value).lower() not in {"true", "false"}:
                faults[name] = "true or false"
        elif limit is None:
            faults[name] = f"no such limit; there are {', '.join(['enabled', *rule.limits])}"
        elif number is None or not limit.least <= number <= limit.most:
            faults[name] = f"this is no number from {limit.least:g} to {limit.most:g}"
    return faults


class OrganizerSettings(Section):
    """The role that does what has to be done again and again: one of all that run works, the others wait."""

    enabled: bool = Field(default=True, description="`run` starts an organizer")
    runner: Literal["asyncio", "celery"] = Field(
        default="asyncio", description="who runs its jobs: this role, or workers of Celery over the broker"
    )


class MonitorSettings(Section):
    """Health and metrics of this core, over HTTP."""

    enabled: bool = Field(default=True, description="`run` starts the monitor")
    host: str = Field(default="127.0.0.1", description="address that the monitor listens on; it asks for no password")
    port: Port = Field(default=MONITOR_PORT, description="TCP port of /livez, /readyz and /metrics; 0: any free one")
    hung_after_s: float = Field(
        default=limits.HUNG_S, ge=3 * limits.HEARTBEAT_S, description="a role silent for longer counts as hung"
    )
    write_every_s: float = Field(
        default=limits.BEAT_WRITE_S, ge=0.2, le=limits.HOST_SILENT_S / 3,
        description="how often it writes what it sees into the database",
    )  # fmt: skip


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="less important is left out"
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: for people on a terminal, else JSON; json: every line is one JSON object"
    )


def speaking_udp() -> list[str]:
    """The protocols that have a UDP side."""
    from signalkeep.protocols.registry import PROTOCOLS

    return sorted(name for name, protocol in PROTOCOLS.items() if "udp" in protocol.transports)
