"""KIN and UNI: does the way from point to point make sense? Judged against the last good point, in device time."""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.reading import Reading, Recent


def teleport(_: Reading, recent: Recent, limits: Limits) -> Answer:
    """KIN-01."""
    implied_kmh, step_m = recent.implied_kmh, recent.step_m
    if implied_kmh is None or step_m is None:
        return None
    if implied_kmh <= limits["speed_kmh_max"] or step_m <= limits["distance_m"]:
        return False
    return f"{step_m / 1000:.3g} km in {recent.step_s:.0f} s: {implied_kmh:.0f} km/h"


RULES: Final = (
    Rule(
        id="KIN-01",
        title="Teleport",
        dimension=Dimension.ACCURACY,
        severity=Severity.ERROR,
        scope=Scope.RECENT,
        check=teleport,
        meaning="To be here, the device would have had to travel faster than such a vehicle can since its last good "
        "position. Points that follow are compared with that one too, until three in a row agree with each other.",
        causes=(
            "reflected signals between buildings, or a first fix that had not settled",
            "a position from cell towers among satellite fixes",
            "two devices that use the same number",
        ),
        actions=(
            "look at the point and its neighbours on a map",
            "if it keeps happening, check the antenna's place and cable",
            "with two places in turn, see ID-03",
        ),
        source="200 km/h: usual filter for cars; traccar issue 3739 uses 250",
        limits={
            "speed_kmh_max": Limit(200.0, "km/h", "faster than this is no travel", least=1.0),
            "distance_m": Limit(100.0, "m", "shorter steps are the noise of a receiver"),
        },
        bit=32,
        spoils_position=True,
        reanchors=True,
        error_type=1,
    ),
)
