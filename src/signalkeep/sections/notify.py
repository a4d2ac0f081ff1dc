"""The section `[notify]`: over which channels people are told, who is told of what, and when others are.

What a channel's address says beyond its kind is a secret, as passwords and tokens stand there: it can be in a file, and
is never shown. A name that is no channel is a fault of the settings, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from signalkeep import limits
from signalkeep.kinds import Grade
from signalkeep.sections.base import Section, first_line

CHANNEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")  # small: variables of the environment are, too
NO_SECRET: Final = SecretStr("")


class ChannelSettings(Section):
    """One way to reach people, or a program that does."""

    apprise: SecretStr = Field(default=NO_SECRET, description="where Apprise sends to, such as mailto://...")
    apprise_file: Path | None = Field(default=None, description="a file whose first line is that")
    webhook: SecretStr = Field(default=NO_SECRET, description="http(s):// address that gets messages as JSON")
    secret: SecretStr = Field(default=NO_SECRET, description="signs what a webhook gets, so that it knows us")
    secret_file: Path | None = Field(default=None, description="a file whose first line is that")
    timeout_s: float = Field(
        default=20.0, gt=0, le=limits.NOTIFY_TIMEOUT_S_MAX, description="a message must be taken within this time"
    )
    per_hour_max: int = Field(
        default=limits.NOTIFY_PER_HOUR, ge=1, description="more messages than that come together in one"
    )

    @model_validator(mode="after")
    def _one_way(self) -> ChannelSettings:
        ways = [bool(self.apprise.get_secret_value()), bool(self.apprise_file), bool(self.webhook.get_secret_value())]
        if sum(ways) != 1:
            raise ValueError("give one of apprise, apprise_file and webhook")
        if self.apprise.get_secret_value() and "://" not in self.apprise.get_secret_value():
            raise ValueError("apprise must be an address such as mailto://...")
        if self.is_webhook and not self.webhook.get_secret_value().startswith(("http://", "https://")):
            raise ValueError("webhook must begin with http:// or https://")
        if (self.secret.get_secret_value() or self.secret_file) and not self.is_webhook:
            raise ValueError("a secret signs what a webhook gets; this is none")
        if self.secret.get_secret_value() and self.secret_file:
            raise ValueError("give secret or secret_file, not both")
        return self

    @property
    def is_webhook(self) -> bool:
        return bool(self.webhook.get_secret_value())

    def address(self) -> str:
        """Where it sends to: a secret. Raises SettingsError if its file cannot be read."""
        if self.apprise_file:
            return first_line("notify.channels.*.apprise_file", self.apprise_file, "address")
        return self.webhook.get_secret_value() or self.apprise.get_secret_value()

    def signing_key(self) -> str:
        """'' if nothing is signed. Raises SettingsError if its file cannot be read."""
        if self.secret_file:
            return first_line("notify.channels.*.secret_file", self.secret_file, "secret")
        return self.secret.get_secret_value()


class NotifySettings(Section):
    """Who is told of incidents, and how."""

    channels: dict[str, ChannelSettings] = Field(default_factory=dict, description="ways to reach people, by name")
    admins: tuple[str, ...] = Field(default=(), description="channels of those who run this: services, storage, rest")
    customers: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="channels of customers, by their names; of others admins are told"
    )
    min_severity: Grade = Field(default=Grade.WARNING, description="of lesser incidents nobody is told")
    escalate_after_s: float = Field(
        default=1800.0, ge=0, description="when nobody has taken an incident for so long, others are told; 0: never"
    )
    escalate_to: tuple[str, ...] = Field(default=(), description="channels of those others")
    remind_every_s: float = Field(
        default=24 * 3600.0, ge=0, description="what is still open and nobody has taken is told again; 0: never"
    )
    database_away_s: float = Field(
        default=30.0, gt=0, description="admins are told when the database has been away for longer"
    )

    @model_validator(mode="after")
    def _channels_are_there(self) -> NotifySettings:
        faults = [
            InitErrorDetails(type=PydanticCustomError("channel", "{said}", {"said": said}), loc=place, input=None)
            for place, said in self._faults()
        ]
        if faults:
            raise ValidationError.from_exception_data("notify", faults)
        return self

    def _faults(self) -> Iterator[tuple[tuple[str, ...], str]]:
        for name in self.channels:
            if not CHANNEL_NAME.fullmatch(name):
                yield ("channels", name), "a channel's name is made of small letters, digits, - and _"
        if self.channels and not self.admins:
            yield ("admins",), "somebody must be told of services and storage: name a channel"
        named = [("admins", self.admins), ("escalate_to", self.escalate_to)]
        for place, channels in [*(((one,), names) for one, names in named),
                                *((("customers", one), names) for one, names in self.customers.items())]:  # fmt: skip
            known = ", ".join(self.channels) or "none"
            yield from (
                (place, f"there is no channel {name!r}; there are: {known}")
                for name in channels
                if name not in self.channels
            )
