"""POS: is the position one, and can it be believed? What a reading shows by itself; `places` has what needs more.

How good a fix is (satellites, dilution, accuracy) is asked only where the device claims one: one that says that it has
none is honest, and POS-03 says so.
"""

from __future__ import annotations

from typing import Final

from signalkeep.rules import places
from signalkeep.rules.contract import Answer, Caution, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.reading import Reading
from signalkeep.rules.screen import INF, NEVER

OTHER_SOURCES: Final = {
    "cell": "from cell towers",
    "wifi": "from wireless networks",
    "dead_reckoning": "carried on from the last fix by sensors",
}
GNSS_WITHOUT_FIX: Final = 2  # Teltonika's element 69
HDOP_MOST: Final = 50.0  # of Teltonika's element 182, whose raw values are tenths up to 500


def range_of(reading: Reading, _: Limits) -> Answer:
    """POS-01."""
    latitude, longitude = reading.latitude, reading.longitude
    if latitude is None or longitude is None:
        return None
    return False if reading.on_globe else f"latitude {latitude:g}, longitude {longitude:g}"


def null_island(reading: Reading, limits: Limits) -> Answer:
    """POS-02."""
    latitude, longitude = reading.latitude, reading.longitude
    if latitude is None or longitude is None:
        return None
    near = limits["degrees"]
    if not (-near < latitude < near and -near < longitude < near):
        return False
    return f"latitude {latitude:g}, longitude {longitude:g}"


def without_fix(reading: Reading, _: Limits) -> Answer:
    """POS-03."""
    if reading.latitude is None or reading.longitude is None:
        return None
    if not reading.fix_valid:
        return "the device calls its position not valid"
    get = reading.attributes.get
    source = get("position_source")
    if source is not None and type(source) is str and source in OTHER_SOURCES:
        detail = f"the position is {OTHER_SOURCES[source]}"
        return Caution(detail) if source == "dead_reckoning" else detail
    if get("gnss_status") == GNSS_WITHOUT_FIX:
        return "the receiver says that it has no fix"
    return False


def few_satellites(reading: Reading, limits: Limits) -> Answer:
    """POS-04."""
    satellites = reading.satellites
    if satellites is None or not reading.fix_valid:
        return None
    if satellites >= limits["satellites_min"]:
        return False
    detail = f"a fix from {satellites} satellite{'' if satellites == 1 else 's'}"
    return detail if satellites < limits["satellites_fix_min"] else Caution(detail)


def high_dilution(reading: Reading, limits: Limits) -> Answer:
    """POS-05."""
    hdop = reading.attributes.get("hdop")
    if hdop is None or not reading.fix_valid or type(hdop) not in (int, float) or hdop == 0:
        return None  # some devices send 0 where they have no value
    if 0 < hdop <= limits["hdop_max"]:
        return False
    if not 0 < hdop <= HDOP_MOST:
        return f"horizontal dilution {str(hdop)[:12]}, which cannot be: perhaps sent in another scale"
    detail = f"horizontal dilution {hdop:g}"
    return detail if hdop > limits["hdop_usable_max"] else Caution(detail)


def poor_accuracy(reading: Reading, limits: Limits) -> Answer:
    """POS-06."""
    accuracy_m = reading.attributes.get("accuracy_m")
    if accuracy_m is None or not reading.fix_valid or type(accuracy_m) not in (int, float):
        return None
    if 0 <= accuracy_m <= limits["accuracy_m_max"]:
        return False
    return f"accurate to {accuracy_m:g} m"


def strange_altitude_or_course(reading: Reading, limits: Limits) -> Answer:
    """POS-11."""
    altitude_m, course_deg = reading.altitude_m, reading.course_deg
    if altitude_m is None and course_deg is None:
        return None
    altitude_fits = altitude_m is None or limits["altitude_m_min"] <= altitude_m <= limits["altitude_m_max"]
    course_fits = course_deg is None or 0 <= course_deg <= limits["course_deg_max"]
    if altitude_fits and course_fits:
        return False
    found = []
    if not altitude_fits:
        found.append(f"altitude {altitude_m:g} m")
    if not course_fits:
        found.append(f"course {course_deg:g} degrees")
    return ", ".join(found)


RULES: Final = (
    Rule(
        id="POS-01",
        title="Position off the globe",
        dimension=Dimension.VALIDITY,
        severity=Severity.ERROR,
        scope=Scope.SIGNAL,
        check=range_of,
        quiet=lambda _: {},
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
    Rule(
        id="POS-02",
        title="Null island",
        dimension=Dimension.VALIDITY,
        severity=Severity.ERROR,
        scope=Scope.SIGNAL,
        check=null_island,
        quiet=lambda limits: {"off_equator": (limits["degrees"], INF)},
        meaning="Latitude and longitude are both next to 0, in the Gulf of Guinea. Devices send this where they know "
        "no position, and software shows it as one.",
        causes=(
            "the receiver has had no fix since it was switched on",
            "the antenna is not connected or is covered",
            "an integrator's program fills missing coordinates with 0",
        ),
        actions=(
            "if it ends within minutes of a start, nothing has to be done: such positions are not used",
            "else have the installer check the antenna",
            "if an integrator sends the data, have them leave the coordinates out",
        ),
        source="Navixy and AerTrak drop 0, 0; the width is field knowledge",
        limits={"degrees": Limit(0.01, "degrees", "as near to 0 as this on both axes", most=1.0)},
        bit=12,
        spoils_position=True,
        error_type=1,
    ),
    Rule(
        id="POS-03",
        title="Position without a fix",
        dimension=Dimension.ACCURACY,
        severity=Severity.INFO,
        scope=Scope.SIGNAL,
        check=without_fix,
        quiet=lambda _: {"position_source": NEVER, "gnss_status": (-INF, GNSS_WITHOUT_FIX - 1)},
        meaning="The device sends a position and says itself that it is not from a fix: the last one it knew, one "
        "from cell towers, or one that sensors carried on. It is not where the vehicle was, or only roughly.",
        causes=(
            "a tunnel, a garage, or the first minute after a start",
            "the device is set to report cell towers where it has no fix",
            "the antenna is covered or broken",
        ),
        actions=(
            "nothing, while it passes: such positions are not used for tracks",
            "if a device has no fix for an hour on the road, see DEV-01",
        ),
        source="as sent; Wialon's filter of invalid positions",
        bit=13,
        spoils_position=True,
    ),
    Rule(
        id="POS-04",
        title="Fix from too few satellites",
        dimension=Dimension.ACCURACY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=few_satellites,
        quiet=lambda limits: {"satellites": (limits["satellites_min"], INF)},
        meaning="The device claims a fix, but with fewer satellites than a position in space needs. With three the "
        "height is a guess and the place may be off by hundreds of metres; with none there is no fix at all.",
        causes=(
            "a narrow view of the sky: a yard, a street between high houses, a load above the antenna",
            "the antenna lies under metal or a heated windscreen, or its cable is damaged",
            "the firmware goes on sending an old fix",
        ),
        actions=(
            "compare with other devices at the same place: if they see more, it is the device",
            "have the installer move or change the antenna",
        ),
        source="4: Wialon and MiX; 0 is not valid for Navixy",
        limits={
            "satellites_min": Limit(4.0, "", "fewer are a weak fix"),
            "satellites_fix_min": Limit(1.0, "", "fewer are no fix, and the position is not used"),
        },
        bit=14,
        spoils_position=True,
        error_type=1,
    ),
    Rule(
        id="POS-05",
        title="High dilution of precision",
        dimension=Dimension.ACCURACY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=high_dilution,
        quiet=lambda limits: {"hdop": (0, limits["hdop_max"])},
        needs=frozenset({"hdop"}),
        meaning="The satellites stand badly for a fix, so its error is several times the usual one. From about 10 on "
        "a position may be off by a street or more, and is not used.",
        causes=(
            "a narrow view of the sky",
            "the antenna lies under metal or on its side",
            "the value is sent in tenths, and the decoder does not know that of this model",
        ),
        actions=(
            "if it is all devices of one model, compare the raw bytes with the maker's protocol: `signalkeep decode`",
            "if it is one device everywhere, have the installer check the antenna's place",
        ),
        source="2: MiX; 10: field knowledge; 50: range of Teltonika's element 182",
        limits={
            "hdop_max": Limit(2.0, "", "above it a fix is weak", most=HDOP_MOST),
            "hdop_usable_max": Limit(10.0, "", "above it the position is not used", most=HDOP_MOST),
        },
        bit=15,
        spoils_position=True,
        error_type=1,
    ),
    Rule(
        id="POS-06",
        title="Inaccurate position",
        dimension=Dimension.ACCURACY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=poor_accuracy,
        quiet=lambda limits: {"accuracy_m": (0, limits["accuracy_m_max"])},
        needs=frozenset({"accuracy_m"}),
        meaning="The device itself gives its position a radius in which a vehicle cannot be found, as positions from "
        "cell towers have it.",
        causes=(
            "a position from cell towers or wireless networks that is sent as a fix",
            "the first fix after a start, which has not settled",
        ),
        actions=(
            "switch positions from the network off in the device's settings, if you need the exact place",
            "if it never gets better outdoors, have the installer check the antenna",
        ),
        source="100 m: Blecon, AWS Location",
        limits={"accuracy_m_max": Limit(100.0, "m", "a larger radius is no fix")},
        bit=16,
        error_type=1,
    ),
    *places.RULES,
    Rule(
        id="POS-11",
        title="Impossible altitude or course",
        dimension=Dimension.VALIDITY,
        severity=Severity.WARNING,
        scope=Scope.SIGNAL,
        check=strange_altitude_or_course,
        quiet=lambda limits: {
            "altitude_m": (limits["altitude_m_min"], limits["altitude_m_max"]),
            "course_deg": (0, limits["course_deg_max"]),
        },
        meaning="Altitude or course lies beyond what there is for a vehicle on the earth. The position may be sound, "
        "but these values are not, and say that something else may be read wrongly, too.",
        causes=(
            "a fix from too few satellites, whose height is a guess",
            "the decoder reads another scale or a signed number as an unsigned one",
        ),
        actions=(
            "look whether POS-04 or POS-05 hits with it: then it is a weak fix",
            "else compare the raw bytes with the maker's protocol: `signalkeep decode`",
        ),
        source="course: GTFS-realtime validator E027; altitude: field knowledge",
        limits={
            "altitude_m_min": Limit(-500.0, "m", "no road lies lower", least=-20_000.0, most=100_000.0),
            "altitude_m_max": Limit(9000.0, "m", "no road lies higher", least=-20_000.0, most=100_000.0),
            "course_deg_max": Limit(360.0, "degrees", "a full turn", most=65_535.0),
        },
        bit=21,
    ),
)
