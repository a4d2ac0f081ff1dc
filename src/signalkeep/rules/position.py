"""POS: is the position one, and can it be believed? What a reading shows by itself comes first."""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Answer, Dimension, Limits, Rule, Scope, Severity
from signalkeep.rules.reading import Reading


def range_of(reading: Reading, _: Limits) -> Answer:
    """POS-01."""
    latitude, longitude = reading.latitude, reading.longitude
    if latitude is None or longitude is None:
        return None
    return False if reading.on_globe else f"latitude {latitude:g}, longitude {longitude:g}"


RULES: Final = (
    Rule(
        id="POS-01",
        title="Position off the globe",
        dimension=Dimension.VALIDITY,
        severity=Severity.ERROR,
        scope=Scope.SIGNAL,
        check=range_of,
        meaning="Latitude is not within -90 to 90 degrees, or longitude not within -180 to 180: no such place exists.",
        causes=(
            "the decoder expects another format or scale than this firmware sends",
            "a sensor or serial line delivers damaged values",
        ),
        actions=(
            "compare the raw bytes with the maker's protocol: `signalkeep decode`",
            "if only one firmware does it, ask the maker; until then its positions stay doubted",
        ),
        source="definition; GTFS-realtime validator E026, Movebank",
        bit=11,
        spoils_position=True,
        error_type=1,
    ),
)
