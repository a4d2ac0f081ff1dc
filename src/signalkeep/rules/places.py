"""POS-07 to POS-10: does the position lie where this device can be? Compared with its last good point, or its area.

The mistakes of signs and order are told from a jump by what the mended position would be: next to the last good point,
and many times nearer than what was sent.
"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.geo import distance_m
from signalkeep.rules.reading import Point, Reading, Recent

DEFAULT_POINTS: Final = (
    (37.3875111, -121.97232, "SiRF, San Jose"),  # the example of its command to set a receiver up, often left as it is
    (24.0, 121.0, "GlobalTop, Taiwan"),  # built into its receivers
    (24.35, 24.35, "Dragino LGT-92"),  # what it makes of a sentence without coordinates
    (42.056, 42.056, "Dragino LGT-92"),
    (37.751, -97.822, "middle of the United States"),  # what tables of network addresses say where they know no more
)


def mended(reading: Reading, recent: Recent, limits: Limits, places: tuple[tuple[float, float, str], ...]) -> Answer:
    """Whether one of these places is where the device must have been, rather than the one that it sent."""
    good = recent.good
    assert good is not None
    assert reading.time_s is not None
    assert reading.latitude is not None
    assert reading.longitude is not None
    travelled_m = limits["speed_kmh_max"] / 3.6 * (reading.time_s - good.time_s)
    near_m = max(limits["near_m"], travelled_m)
    if recent.step_m is not None:
        near_m = min(near_m, recent.step_m / limits["times_nearer"])
    best_m, how = min((good_to(good, latitude, longitude), how) for latitude, longitude, how in places)
    if best_m > near_m:
        return False
    sent = f"latitude {reading.latitude:g}, longitude {reading.longitude:g}"
    away = "" if recent.step_m is None else f" is {recent.step_m / 1000:.4g} km from the last good point"
    return f"{sent}{away}; {how} it would be {best_m / 1000:.3g} km"


def good_to(good: Point, latitude: float, longitude: float) -> float:
    """How far a place is from the last good point."""
    return distance_m(good.latitude, good.longitude, latitude, longitude)


def swapped(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """POS-07."""
    implied_kmh = recent.implied_kmh
    if implied_kmh is not None and implied_kmh <= limits["speed_kmh_max"]:
        return False
    latitude, longitude = reading.latitude, reading.longitude
    if recent.good is None or latitude is None or longitude is None or (implied_kmh is None and reading.on_globe):
        return None
    if not (-90 <= longitude <= 90 and -180 <= latitude <= 180):
        return False
    return mended(reading, recent, limits, ((longitude, latitude, "with both exchanged"),))


def sign_flipped(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """POS-08."""
    implied_kmh = recent.implied_kmh
    if implied_kmh is None:
        return None
    if implied_kmh <= limits["speed_kmh_max"]:
        return False
    latitude, longitude = reading.latitude, reading.longitude
    assert latitude is not None
    assert longitude is not None
    places = (
        (latitude, -longitude, "with longitude's sign turned"),
        (-latitude, longitude, "with latitude's sign turned"),
        (-latitude, -longitude, "with both signs turned"),
    )
    return mended(reading, recent, limits, places)


def outside_area(reading: Reading, limits: Limits) -> Answer:
    """POS-09."""
    radius_km = limits["radius_km"]
    if radius_km == float("inf") or not reading.on_globe or not reading.fix_valid:
        return None
    assert reading.latitude is not None
    assert reading.longitude is not None
    away_m = distance_m(limits["latitude"], limits["longitude"], reading.latitude, reading.longitude)
    outside_m = away_m - radius_km * 1000
    return f"{outside_m / 1000:.4g} km outside the area" if outside_m > limits["outside_m"] else False


def factory_default(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """POS-10."""
    step_m = recent.step_m
    if step_m is None:
        return None
    if step_m <= limits["away_m"]:
        return False
    assert reading.latitude is not None
    assert reading.longitude is not None
    for latitude, longitude, name in DEFAULT_POINTS:
        if distance_m(latitude, longitude, reading.latitude, reading.longitude) <= limits["near_m"]:
            return f"at a default point ({name}), {step_m / 1000:.4g} km from the last good point"
    return False


MENDED_LIMITS: Final = {
    "speed_kmh_max": Limit(200.0, "km/h", "to be where it says, it would have been faster than this", least=1.0),
    "near_m": Limit(5000.0, "m", "so near to the last good point the mended position may always be"),
    "times_nearer": Limit(10.0, "", "and so many times nearer than the one that was sent", least=1.0),
}

RULES: Final = (
    Rule(
        id="POS-07",
        title="Latitude and longitude exchanged",
        dimension=Dimension.VALIDITY,
        severity=Severity.ERROR,
        scope=Scope.RECENT,
        check=swapped,
        quiet=lambda limits: {"implied_kmh": (0, limits["speed_kmh_max"])},
        meaning="The device cannot be where it says, but with latitude and longitude exchanged it is where it should "
        "be. Everything that is made of such positions is on another continent.",
        causes=(
            "an integrator's program sends longitude first, as many mapping tools have it",
            "the decoder takes the fields of this firmware in the wrong order",
        ),
        actions=(
            "if an integrator sends the data, have them change the order",
            "else compare the raw bytes with the maker's protocol: `signalkeep decode`",
        ),
        source="field knowledge; near: as for POS-08",
        limits=MENDED_LIMITS,
        bit=17,
        spoils_position=True,
        error_type=1,
    ),
    Rule(
        id="POS-08",
        title="Wrong hemisphere",
        dimension=Dimension.VALIDITY,
        severity=Severity.ERROR,
        scope=Scope.RECENT,
        check=sign_flipped,
        quiet=lambda limits: {"implied_kmh": (0, limits["speed_kmh_max"])},
        meaning="The device cannot be where it says, but with the sign of latitude, longitude or both turned it is "
        "where it should be: north for south, or east for west.",
        causes=(
            "the firmware sends the wrong hemisphere bit or letter, often with a weak fix",
            "the decoder reads the bit of another version of the protocol",
        ),
        actions=(
            "compare the raw bytes of this signal and of a good one: `signalkeep decode`",
            "report it to the maker with both, if the bit is wrong in the bytes",
        ),
        source="traccar issue 3739: a jump of 11,078 km of which turning the sign leaves 83 m",
        limits=MENDED_LIMITS,
        bit=18,
        spoils_position=True,
        error_type=1,
    ),
    Rule(
        id="POS-09",
        title="Outside the operating area",
        dimension=Dimension.ACCURACY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=outside_area,
        meaning="The position lies outside the area that was set for these devices. Either it is wrong, or the vehicle "
        "is where it should not be.",
        causes=(
            "the vehicle is on an unusual trip, or stolen",
            "the area was set too small",
            "the position is wrong; then another rule of this family mostly hits, too",
        ),
        actions=(
            "look at the track on a map, then ask the driver",
            "widen the area if the trip is in order",
        ),
        source="a mile beyond the area: GTFS-realtime validator E028; the area has no default, so nothing is checked",
        limits={
            "latitude": Limit(0.0, "degrees", "middle of the area", least=-90.0, most=90.0),
            "longitude": Limit(0.0, "degrees", "middle of the area", least=-180.0, most=180.0),
            "radius_km": Limit(float("inf"), "km", "of the area; endless: nothing is checked"),
            "outside_m": Limit(1609.0, "m", "so far beyond the area is still tolerated"),
        },
        bit=19,
    ),
    Rule(
        id="POS-10",
        title="At a factory's default point",
        dimension=Dimension.ACCURACY,
        severity=Severity.ERROR,
        scope=Scope.RECENT,
        check=factory_default,
        quiet=lambda limits: {"step_m": (0, limits["away_m"])},
        meaning="The device is suddenly at a point that receivers of some makers report before they have a fix. The "
        "vehicle is where it last was for sure.",
        causes=(
            "the receiver was reset and has no fix yet",
            "the antenna is not connected, so that it never gets one",
        ),
        actions=(
            "if it ends within minutes of a start, nothing has to be done: such positions are not used",
            "else have the installer check the antenna",
        ),
        source="points from forum threads, issue lists and field knowledge; Nuonic describes the effect",
        limits={
            "near_m": Limit(300.0, "m", "as near to a default point as this"),
            "away_m": Limit(50_000.0, "m", "and farther than this from the last good point"),
        },
        bit=20,
        spoils_position=True,
        error_type=1,
    ),
)
