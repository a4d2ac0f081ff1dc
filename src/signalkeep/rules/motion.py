"""KIN and UNI: does the way from point to point make sense? Judged against the last good point, in device time.

What needs a whole day (KIN-03, UNI-01) is in motion_days.py.
"""

from __future__ import annotations

from typing import Final

from signalkeep.rules import motion_days
from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.reading import Reading, Recent, number_of

SAME_PLACE_DEG: Final = 1e-6  # 0.1 m: a receiver that works never says the same twice while it moves


def teleport(_: Reading, recent: Recent, limits: Limits) -> Answer:
    """KIN-01."""
    implied_kmh, step_m = recent.implied_kmh, recent.step_m
    if implied_kmh is None or step_m is None:
        return None
    if implied_kmh <= limits["speed_kmh_max"] or step_m <= limits["distance_m"]:
        return False
    return f"{step_m / 1000:.3g} km in {recent.step_s:.0f} s: {implied_kmh:.0f} km/h"


def frozen(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """KIN-02. Revolutions prove no motion, since engines also run at lights; the engine control's speed does."""
    last = recent.last
    if last is None or not reading.fix_valid or not reading.on_globe:
        return None
    assert reading.latitude is not None
    assert reading.longitude is not None
    if (
        abs(reading.latitude - last.latitude) > SAME_PLACE_DEG
        or abs(reading.longitude - last.longitude) > SAME_PLACE_DEG
    ):
        return False
    slow_kmh, speed_kmh = limits["speed_kmh"], reading.speed_kmh
    if speed_kmh is not None and speed_kmh > slow_kmh:
        return _still(reading, f"speed {speed_kmh:.0f} km/h")
    engine_kmh = number_of(reading.attributes.get("obd_speed_kmh"))
    if engine_kmh is not None and engine_kmh > slow_kmh:
        return _still(reading, f"speed by the engine control {engine_kmh:.0f} km/h")
    odometer_kmh = _odometer_kmh(reading, recent)
    if odometer_kmh is not None and odometer_kmh > slow_kmh:
        return _still(reading, f"speed by odometer {odometer_kmh:.0f} km/h")
    return None if speed_kmh is None and engine_kmh is None and odometer_kmh is None else False


def _still(reading: Reading, but: str) -> str:
    return f"still at {reading.latitude:.6f}, {reading.longitude:.6f}, but {but}"


def _odometer_kmh(reading: Reading, recent: Recent) -> float | None:
    known, value = recent.known.get("odometer_m"), reading.attributes.get("odometer_m")
    if known is None or value is None or reading.time_s is None or reading.time_s <= known[0]:
        return None
    before_m, metres = number_of(known[1]), number_of(value)
    return None if before_m is None or metres is None else (metres - before_m) / (reading.time_s - known[0]) * 3.6


def speed_against_way(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """KIN-04. Both ends of the step count, and how far speed may have changed between: lights lie between points."""
    good, step_s, implied_kmh, end_kmh = recent.good, recent.step_s, recent.implied_kmh, reading.speed_kmh
    if good is None or step_s is None or implied_kmh is None or end_kmh is None or good.speed_kmh is None:
        return None
    if not limits["step_s_min"] <= step_s <= limits["step_s_max"]:
        return None
    begin_kmh = good.speed_kmh
    if begin_kmh > end_kmh:
        begin_kmh, end_kmh = end_kmh, begin_kmh
    if begin_kmh <= implied_kmh <= end_kmh:
        return False
    nearer_kmh = begin_kmh if implied_kmh < begin_kmh else end_kmh
    allowed_kmh = max(
        limits["difference_kmh"],
        limits["share"] * min(nearer_kmh, implied_kmh),
        limits["change_kmh_per_s"] * step_s,
    )
    if not abs(nearer_kmh - implied_kmh) > allowed_kmh:
        return False
    return f"{reading.speed_kmh:.0f} km/h sent, but {recent.step_m:.0f} m in {step_s:.0f} s: {implied_kmh:.0f} km/h"


def speed_range(reading: Reading, limits: Limits) -> Answer:
    """KIN-05."""
    speed_kmh = reading.speed_kmh
    if speed_kmh is None:
        return None
    return False if 0.0 <= speed_kmh <= limits["speed_kmh_max"] else f"{speed_kmh:g} km/h"


def acceleration(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """KIN-06."""
    last, speed_kmh = recent.last, reading.speed_kmh
    if last is None or last.speed_kmh is None or speed_kmh is None or reading.time_s is None or not reading.fix_valid:
        return None
    elapsed_s = reading.time_s - last.time_s
    if elapsed_s < limits["step_s_min"]:
        return None
    change_ms2 = (speed_kmh - last.speed_kmh) / 3.6 / elapsed_s
    if not abs(change_ms2) > limits["acceleration_ms2_max"]:
        return False
    return f"from {last.speed_kmh:.0f} to {speed_kmh:.0f} km/h in {elapsed_s:.1f} s: {change_ms2:+.0f} m/s²"


def speed_against_engine(reading: Reading, _: Recent, limits: Limits) -> Answer:
    """KIN-07."""
    engine_kmh, speed_kmh = number_of(reading.attributes.get("obd_speed_kmh")), reading.speed_kmh
    if engine_kmh is None or speed_kmh is None or not reading.fix_valid:
        return None
    if not abs(speed_kmh - engine_kmh) > limits["difference_kmh"]:
        return False
    return f"receiver {speed_kmh:.0f} km/h, engine control {engine_kmh:.0f} km/h"


TELEPORT: Final = Rule(
    id="KIN-01",
    title="Teleport",
    dimension=Dimension.ACCURACY,
    severity=Severity.ERROR,
    scope=Scope.RECENT,
    check=teleport,
    quiet=lambda limits: {"implied_kmh": (0, limits["speed_kmh_max"])},
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
)
FROZEN: Final = Rule(
    id="KIN-02",
    title="Frozen position",
    dimension=Dimension.ACCURACY,
    severity=Severity.ERROR,
    scope=Scope.RECENT,
    check=frozen,
    meaning="The position has been the same in five or more messages, although the speed, the engine control or the "
    "odometer says that the vehicle moves. Where it really is, nobody knows until the position changes.",
    causes=(
        "the receiver hangs and repeats its last fix",
        "the antenna is covered or its cable is loose, and the unit keeps the old place as valid",
        "the unit is built to hold the position at low speed",
    ),
    actions=(
        "have the unit restarted; if it comes back, update its firmware",
        "let the installer check the antenna and its cable",
        "if only slow driving is concerned, raise the limit speed_kmh for the model",
    ),
    source="traccar issue 3292; nuonic: a fixed place for hours, then a leap",
    limits={"speed_kmh": Limit(5.0, "km/h", "at most this fast, it may be standing")},
    in_a_row=4,  # five messages at one place repeat it four times
    for_s=3.0,  # several records of one second share its fix
    bit=33,
    spoils_position=True,
    tracks=("odometer_m",),
    error_type=1,
)
SPEED_AGAINST_WAY: Final = Rule(
    id="KIN-04",
    title="Speed does not fit the way",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=speed_against_way,
    meaning="The speed that was sent and the distance between positions have disagreed for three steps or more: one of "
    "them is wrong. Stops and starts between two points are allowed for.",
    causes=(
        "the speed is sent in another unit than the decoder reads",
        "the position hangs, or lags behind",
        "the speed comes from a sensor that is not adjusted",
    ),
    actions=(
        "compare both with the odometer for the same minutes: `signalkeep signals list`",
        "if it is so all day, see UNI-01; if the place does not change, see KIN-02",
        "if it follows the vehicle, let the installer adjust the speed input",
    ),
    source="field knowledge; the allowance for stops was tuned on simulated drives",
    limits={
        "difference_kmh": Limit(20.0, "km/h", "this much always passes"),
        "share": Limit(0.5, "", "so much of the smaller speed passes"),
        "change_kmh_per_s": Limit(1.0, "km/h per s", "this much per second of the step passes: it may have stopped"),
        "step_s_min": Limit(5.0, "s", "shorter steps are the noise of a receiver", least=1.0),
        "step_s_max": Limit(120.0, "s", "over longer steps too much may happen between"),
    },
    in_a_row=3,
    bit=35,
)
SPEED_RANGE: Final = Rule(
    id="KIN-05",
    title="Impossible speed",
    dimension=Dimension.VALIDITY,
    severity=Severity.WARNING,
    scope=Scope.SIGNAL,
    check=speed_range,
    quiet=lambda limits: {"speed_kmh": (0, limits["speed_kmh_max"])},
    meaning="The speed is below zero, or higher than such a vehicle can go. Sums and alarms built on it are wrong.",
    causes=(
        "a poor fix: few satellites, reflected signals",
        "the decoder expects another unit or scale",
        "a value that means 'no reading' was read as a speed",
    ),
    actions=(
        "look at satellites and HDOP of the same signal",
        "compare the raw bytes with the maker's protocol: `signalkeep decode`",
        "for trucks set the limit speed_kmh_max to 130",
    ),
    source="field knowledge: 250 km/h for cars, 130 for trucks",
    limits={"speed_kmh_max": Limit(250.0, "km/h", "the fastest that such a vehicle goes", least=1.0)},
    bit=36,
)
ACCELERATION: Final = Rule(
    id="KIN-06",
    title="Impossible acceleration",
    dimension=Dimension.ACCURACY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=acceleration,
    meaning="The speed changed faster than tyres can do it. Driver scores built on such a value blame the wrong one.",
    causes=(
        "a glitch of the receiver, mostly with a poor fix",
        "an accident: then it is real, and the readings behind it stand still",
    ),
    actions=(
        "look at the next readings: if the vehicle stands, call the driver first",
        "if it happens again and again, check the antenna's place",
    ),
    source="field knowledge: 10 m/s² is about 1 g, more than road tyres hold",
    limits={
        "acceleration_ms2_max": Limit(10.0, "m/s²", "more than this is no driving"),
        "step_s_min": Limit(1.0, "s", "over shorter steps whole km/h are too coarse", least=0.1),
    },
    bit=37,
)
SPEED_AGAINST_ENGINE: Final = Rule(
    id="KIN-07",
    title="Receiver and engine disagree on speed",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=speed_against_engine,
    needs=frozenset({"obd_speed_kmh"}),
    meaning="The speed of the satellite receiver and that of the engine control have differed for half a minute or "
    "more: one of the two sources is wrong.",
    causes=(
        "tyres of another size than the engine control was set for",
        "the receiver hangs, or has a poor fix",
        "the reading of the vehicle's bus has stopped, and the unit repeats the last value",
    ),
    actions=(
        "see which of the two fits the way between positions: KIN-04 then hits as well",
        "if the engine control is off by a steady factor, let the workshop set the tyre size",
        "if its value never changes, let the installer check the connection to the bus",
    ),
    source="field knowledge: 10 km/h for 30 s",
    limits={"difference_kmh": Limit(10.0, "km/h", "this much passes: speedometers show more than the truth")},
    in_a_row=3,  # one value that is late by a reading is none
    for_s=30.0,
    bit=38,
)

RULES: Final = (
    TELEPORT,
    FROZEN,
    motion_days.PARKED_DRIFT,
    SPEED_AGAINST_WAY,
    SPEED_RANGE,
    ACCELERATION,
    SPEED_AGAINST_ENGINE,
    motion_days.UNIT_MISTAKE,
)
