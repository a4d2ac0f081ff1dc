"""`[devices]`: from when on a device counts as unwell, and many of them as one shared fault.

Every limit of a trouble can be set for all devices and for those of a model; `rules.troubles` has the defaults, with
what each means. A kind of trouble that is not enabled is not looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import Field, ValidationError, field_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from signalkeep.rules import shared
from signalkeep.rules.troubles import LIMITS, Trouble, defaults
from signalkeep.sections.base import Section

TroubleValues = dict[str, Any]
"""What is set for a kind of trouble: `enabled`, and its limits by name."""


class DevicesSettings(Section):
    """Are devices well? What ails one, and what ails many at once."""

    enabled: bool = Field(default=True, description="the organizer looks after devices")
    every_s: float = Field(default=60.0, ge=1, description="how often")
    troubles: dict[str, TroubleValues] = Field(
        default_factory=dict, description="by kind of trouble: enabled, and its limits; docs/devices.md names them"
    )
    models: dict[str, dict[str, TroubleValues]] = Field(default_factory=dict, description="the same for a device model")
    group: dict[str, float] = Field(
        default_factory=dict, description="what makes a shared fault: devices, fleet_share, share, within_s"
    )

    @field_validator("troubles")
    @classmethod
    def _known(cls, value: dict[str, TroubleValues]) -> dict[str, TroubleValues]:
        _check({(kind,): values for kind, values in value.items()})
        return value

    @field_validator("models")
    @classmethod
    def _known_of_models(cls, value: dict[str, dict[str, TroubleValues]]) -> dict[str, dict[str, TroubleValues]]:
        _check({(model, kind): values for model, kinds in value.items() for kind, values in kinds.items()})
        return value

    @field_validator("group")
    @classmethod
    def _known_of_groups(cls, value: dict[str, float]) -> dict[str, float]:
        for name, number in value.items():
            limit = shared.LIMITS.get(name)
            if limit is None:
                raise ValueError(f"{name}: no such limit; there are {', '.join(shared.LIMITS)}")
            if not limit.least <= number <= limit.most:
                raise ValueError(f"{name}: this is no number from {limit.least:g} to {limit.most:g}")
        return value

    def limits_of(self, model: str) -> dict[Trouble, dict[str, float]]:
        """What holds for devices of a model; troubles that are off are not in it."""
        of_model: dict[str, TroubleValues] = {}
        for name, kinds in self.models.items():  # in small letters where they come from the environment
            if name.casefold() == model.casefold():
                for kind, values in kinds.items():
                    of_model[kind] = of_model.get(kind, {}) | values
        found: dict[Trouble, dict[str, float]] = {}
        for trouble in Trouble:
            values = self.troubles.get(trouble, {}) | of_model.get(trouble, {})
            if str(values.get("enabled", True)).lower() == "true":
                numbers = {name: float(value) for name, value in values.items() if name != "enabled"}
                found[trouble] = defaults(trouble) | numbers
        return found

    @property
    def group_limits(self) -> dict[str, float]:
        """All of them."""
        return {name: limit.default for name, limit in shared.LIMITS.items()} | self.group


def _check(by_place: Mapping[tuple[str, ...], TroubleValues]) -> None:
    """Names every fault's place."""
    faults = [
        InitErrorDetails(
            type=PydanticCustomError("trouble_value", "{said}", {"said": said}), loc=(*place, *below), input=found
        )
        for place, values in by_place.items()
        for below, said, found in _faults(place[-1], values)
    ]
    if faults:
        raise ValidationError.from_exception_data("devices", faults)


def _faults(kind: str, values: TroubleValues) -> list[tuple[tuple[str, ...], str, Any]]:
    if kind not in set(Trouble):
        return [((), f"no such kind of trouble; there are {', '.join(Trouble)}", None)]
    limits = LIMITS[Trouble(kind)]
    faults: list[tuple[tuple[str, ...], str, Any]] = []
    for name, value in values.items():
        limit, number = limits.get(name), None
        with suppress(TypeError, ValueError, OverflowError):
            number = None if isinstance(value, bool) else float(value)
        said = ""
        if name == "enabled":
            said = "" if str(value).lower() in {"true", "false"} else "true or false"
        elif limit is None:
            said = f"no such limit; there are {', '.join(['enabled', *limits])}"
        elif number is None or not limit.least <= number <= limit.most:
            said = f"this is no number from {limit.least:g} to {limit.most:g}"
        if said:
            faults.append(((name,), said, value))
    return faults
