"""Settings of the push-back: how what waits in quarantine is tried again by itself."""

from __future__ import annotations

from pydantic import Field

from signalkeep.sections.base import Section


class PushBackSettings(Section):
    """What is in quarantine for a reason that may have passed is tried again by itself."""

    enabled: bool = Field(default=True, description="the organizer tries again what may have become storable")
    every_s: float = Field(default=60.0, ge=1, description="how often it looks for what may be tried")
    rate_max: float = Field(default=500.0, ge=1, description="records per second at most, so that new ones come first")
    attempts_max: int = Field(
        default=10, ge=1, le=1000, description="tries of a record, then it waits for a person or another version"
    )
