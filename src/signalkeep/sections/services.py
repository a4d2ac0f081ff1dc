"""Sections about our own services: what the organizer watches, and how often it audits.

Everything here has a default that costs little; the canary alone is off, because its signals are rows like all.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from signalkeep import limits
from signalkeep.sections.base import Port, Section, first_line


class WatchSettings(Section):
    """A service of others that ours depend on, or that people look at here. Exactly one of tcp, http and sql."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="what people call it")
    tcp: str = Field(default="", description="HOST:PORT that must take a connection")
    http: str = Field(default="", description="http:// or https:// URL that must answer with `status`")
    status: int = Field(default=200, ge=100, le=599, description="the status that the URL must answer with")
    sql: str = Field(default="", description="a SELECT that must give a row whose first value is not false")
    dsn: str = Field(default="", description="where it is asked; empty: our database")
    dsn_file: Path | None = Field(default=None, description="a file whose first line is that DSN")
    every_s: float = Field(default=30.0, ge=1, description="how often")
    timeout_s: float = Field(default=5.0, gt=0, le=300, description="an answer that takes longer is none")

    @field_validator("tcp")
    @classmethod
    def _address(cls, value: str) -> str:
        if value and not (place := re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:]+):(\d{1,5})", value)):
            raise ValueError("this is no HOST:PORT")
        if value and place and not 1 <= int(place[2]) <= limits.PORT_MAX:
            raise ValueError("this is no HOST:PORT")
        return value

    @field_validator("http")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value:
            return value
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError("this is no http:// or https:// URL")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> WatchSettings:
        if sum(map(bool, (self.tcp, self.http, self.sql))) != 1:
            raise ValueError("give exactly one of tcp, http and sql")
        if (self.dsn or self.dsn_file) and not self.sql:
            raise ValueError("dsn and dsn_file are for sql")
        if self.dsn and self.dsn_file:
            raise ValueError("give dsn or dsn_file, not both")
        return self

    def resolved_dsn(self) -> str:
        """Where to ask, '' for our database. Raises SettingsError if the secret file cannot be read."""
        return first_line(f"services.watch {self.name}: dsn_file", self.dsn_file, "DSN") if self.dsn_file else self.dsn


class CanarySettings(Section):
    """A signal of our own, sent through the gateway's port and waited for as a row: the whole way, again and again."""

    enabled: bool = Field(default=False, description="send one; each is a stored signal of a device of ours")
    every_s: float = Field(default=60.0, ge=1, description="how often")
    deadline_s: float = Field(default=30.0, gt=0, le=600, description="until it must be acknowledged and be a row")
    host: str = Field(default="127.0.0.1", min_length=1, description="where gateways are reached")
    port: Port = Field(default=0, description="at which port; 0: as gateway.ports says")
    protocol: Literal["json", "teltonika"] = Field(default="json", description="what it speaks")
    device_number: str = Field(
        default="", description="its device; empty: canary-HOST, or for teltonika a number that no device has"
    )


class ServicesSettings(Section):
    """Are we working: how long something must be bad before people hear of it, and what else is looked at."""

    every_s: float = Field(default=limits.SERVICES_LOOK_S, ge=0.5, description="how often the organizer looks")
    bad_s: float = Field(default=limits.SERVICE_BAD_S, ge=0, description="what was bad for less is no incident")
    good_s: float = Field(default=limits.SERVICE_GOOD_S, ge=0, description="well for so long: the incident is over")
    watch: tuple[WatchSettings, ...] = Field(
        default=(), description="services of others: { name, tcp | http | sql, every_s, timeout_s }"
    )
    canary: CanarySettings = CanarySettings()

    @field_validator("watch")
    @classmethod
    def _names(cls, value: tuple[WatchSettings, ...]) -> tuple[WatchSettings, ...]:
        names = [one.name for one in value]
        if len(set(names)) != len(names):
            raise ValueError("two of one name")
        if len(names) > limits.WATCHES_MAX:
            raise ValueError(f"at most {limits.WATCHES_MAX}")
        return value


class AuditSettings(Section):
    """The audit that the organizer makes by itself."""

    every_s: float = Field(default=limits.AUDIT_S, ge=0, description="how often; 0: never")
