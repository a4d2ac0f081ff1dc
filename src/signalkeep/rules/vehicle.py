"""VEH: do the values of the vehicle agree with each other and with what is possible?

Here is what compares with the reading before: odometer, fuel, ignition, revolutions. The supply is in vehicle_power.py,
the engine control's values are in vehicle_bus.py.
"""

from __future__ import annotations

from typing import Final

from signalkeep.rules import vehicle_bus, vehicle_power
from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.reading import Reading, Recent, number_of
from signalkeep.rules.screen import INF
from signalkeep.rules.vehicle_bus import BATTERY_DRIVEN, FUEL_TYPE, drives_electric


def odometer_decrease(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """VEH-01."""
    before = recent.known_number("odometer_m")
    if before is None or recent.same_time:
        return None
    metres = number_of(reading.attributes.get("odometer_m"))
    if metres is None:
        return None
    if before[1] - metres <= limits["fall_m"] or metres < limits["reset_m"]:
        return False
    return f"odometer from {before[1] / 1000:.3f} to {metres / 1000:.3f} km"


def odometer_jump(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """VEH-02. Positions count only over short steps: behind a longer one a way may have turned back."""
    metres = number_of(reading.attributes.get("odometer_m"))
    if metres is None or recent.same_time or reading.time_s is None:
        return None
    before = recent.known_number("odometer_m")
    if before is None:
        return None
    before_s, before_m = before
    counted_m, elapsed_s = metres - before_m, reading.time_s - before_s
    if counted_m <= limits["slack_m"]:
        return False
    if counted_m > limits["slack_m"] + limits["speed_kmh_max"] / 3.6 * elapsed_s:
        return f"{counted_m / 1000:.1f} km by odometer in {elapsed_s:.0f} s"
    good, step_s, step_m = recent.good, recent.step_s, recent.step_m
    if good is None or step_s is None or step_m is None or step_s > limits["step_s_max"] or before_s < good.time_s:
        return False
    if counted_m <= limits["slack_m"] + limits["share"] * step_m:
        return False
    return f"{counted_m / 1000:.1f} km by odometer, {step_m / 1000:.1f} km by position, in {step_s:.0f} s"


def fuel(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """VEH-03. A level of 0 is taken for no reading: that is what most units send while the engine control sleeps."""
    name, unit, jump = "fuel_pct", "%", limits["jump_pct"]
    level = number_of(reading.attributes.get(name))
    if level is None:
        name, unit, jump = "fuel_l", "l", limits["jump_l"]
        level = number_of(reading.attributes.get(name))
        if level is None:
            return None
    before, speed_kmh = recent.known_number(name), reading.speed_kmh
    if before is None or speed_kmh is None or reading.time_s is None or recent.same_time:
        return None
    before_s, before_level = before
    if level <= 0 or before_level <= 0:
        return None
    change, elapsed_s = level - before_level, reading.time_s - before_s
    if abs(change) <= jump:
        return False
    numbers = f"from {before_level:.0f} to {level:.0f} {unit} in {elapsed_s:.0f} s"
    if speed_kmh > limits["speed_kmh"]:
        moved_before = recent.last is not None and (recent.last.speed_kmh or 0.0) > limits["speed_kmh"]
        return f"noise: {numbers} while moving" if moved_before and elapsed_s < limits["noise_s"] else False
    if recent.step_m is not None and recent.step_m > limits["parked_m"]:
        return False  # driven in between, unseen
    return f"{'filled' if change > 0 else 'drained'}: {numbers}, standing"


def ignition_against_motion(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """VEH-06."""
    ignition = reading.attributes.get("ignition")
    if ignition == 0:
        speed_kmh, implied_kmh = reading.speed_kmh, recent.implied_kmh
        if speed_kmh is None:
            return None
        if speed_kmh <= limits["speed_kmh"]:
            return False
        if implied_kmh is None:
            return None
        if not implied_kmh > limits["implied_kmh"]:
            return False
        return f"ignition off, but {speed_kmh:.0f} km/h, and {recent.step_m:.0f} m in {recent.step_s:.0f} s"
    if ignition != 1:
        return None
    since_s = recent.idle_since_s
    if since_s is None or reading.time_s is None or (reading.speed_kmh or 0.0) > limits["speed_kmh"]:
        return False
    idle_h = (reading.time_s - since_s) / 3600
    return f"ignition on without motion for {idle_h:.1f} h" if idle_h > limits["idle_h"] else False


def engine_against_motion(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """VEH-07."""
    rpm = number_of(reading.attributes.get("rpm"))
    if rpm is None:
        return None
    if rpm != 0:
        return False
    speed_kmh = reading.speed_kmh
    if speed_kmh is None or not reading.fix_valid or reading.attributes.get("ignition") == 0:
        return None
    if not speed_kmh > limits["speed_kmh"]:
        return False
    known = {name: value for name, (_, value) in recent.known.items()}
    if drives_electric(reading.attributes) or drives_electric(known):
        return None
    return f"{speed_kmh:.0f} km/h with the engine at 0 rpm"


ODOMETER_DECREASE: Final = Rule(
    id="VEH-01",
    title="Odometer runs backwards",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=odometer_decrease,
    needs=frozenset({"odometer_m"}),
    meaning="The odometer is lower than in the reading before. Distances and service intervals across this point are "
    "wrong. A start from below the limit reset_m counts as set back on purpose.",
    causes=(
        "the unit was changed, or lost its memory without power",
        "somebody set the odometer in the unit or in the dashboard",
        "the unit switched between its own count and that of the vehicle",
    ),
    actions=(
        "ask the installer whether the unit was changed or set on that day",
        "have the odometer set to the dashboard's once more",
        "reckon distances from the parts before and behind",
    ),
    source="asr-solutions: a meter must neither go backwards nor jump",
    limits={
        "fall_m": Limit(0.0, "m", "a fall of this much passes"),
        "reset_m": Limit(1000.0, "m", "a count below this was begun anew on purpose"),
    },
    bit=40,
    tracks=("odometer_m",),
)
ODOMETER_JUMP: Final = Rule(
    id="VEH-02",
    title="Odometer jumps",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=odometer_jump,
    needs=frozenset({"odometer_m"}),
    meaning="The odometer has grown by more than the positions show, or than can be driven in the time since the "
    "reading before. Distances across this point are wrong.",
    causes=(
        "the odometer was set, or the unit was changed",
        "the position is wrong, and the odometer right",
        "the unit switched between its own count and that of the vehicle",
    ),
    actions=(
        "look for a wrong position at the same time",
        "ask the installer whether the odometer was set",
        "if it comes back, have the unit use one source for its odometer",
    ),
    source="share and slack: field knowledge; Loopit flags what cannot be driven in half an hour",
    limits={
        "share": Limit(1.3, "", "so many times the line between positions passes", least=1.0),
        "slack_m": Limit(1000.0, "m", "so much more passes: some odometers count whole kilometres"),
        "step_s_max": Limit(60.0, "s", "positions farther apart in time say nothing of the way"),
        "speed_kmh_max": Limit(200.0, "km/h", "faster than this is no driving", least=1.0),
    },
    bit=41,
    tracks=("odometer_m",),
)
FUEL: Final = Rule(
    id="VEH-03",
    title="Fuel level jumps",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=fuel,
    needs=frozenset({"fuel_pct", "fuel_l"}),
    meaning="The fuel level changed by more than it can from one reading to the next. In standing, fuel was filled in "
    "or taken out; in motion, the sensor is at fault. For a gauge that never moves see VEH-09.",
    causes=(
        "a refill, or fuel stolen from the tank, where the vehicle stands",
        "fuel that sloshes, or a loose sensor wire, where it moves",
        "a sensor that was never calibrated",
    ),
    actions=(
        "compare with the fuel card; if fuel is missing, ask the driver",
        "if it jumps in motion again and again, let the installer check the sensor and its damping",
        "with a level in litres, set the limit jump_l to a tenth of the tank",
    ),
    source="Wialon's fuel sensors; a tenth of the tank: field knowledge",
    limits={
        "jump_pct": Limit(10.0, "%", "a change of this much passes"),
        "jump_l": Limit(20.0, "l", "the same for levels in litres: a tenth of the tank"),
        "noise_s": Limit(60.0, "s", "in motion, slower changes than within this time pass"),
        "speed_kmh": Limit(5.0, "km/h", "at most this fast, it stands"),
        "parked_m": Limit(200.0, "m", "farther from the last place it did not stand in between"),
    },
    bit=42,
    tracks=("fuel_pct", "fuel_l"),
)
IGNITION_AGAINST_MOTION: Final = Rule(
    id="VEH-06",
    title="Ignition and motion disagree",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=ignition_against_motion,
    needs=frozenset({"ignition"}),
    meaning="The vehicle has moved for a minute with its ignition off, or has stood for half a day with it on. Trips "
    "and idle times, which follow the ignition, are wrong here.",
    causes=(
        "the ignition wire is not connected, or to the wrong point",
        "the vehicle is towed, on a ferry or on a train, or stolen",
        "the engine was left running, or the unit takes a charger's voltage for ignition",
    ),
    actions=(
        "call the driver: is it being towed or shipped?",
        "if it is so on every trip, let the installer check the ignition wire",
        "for plant that works in standing, raise the limit idle_h",
    ),
    source="field knowledge: 100 m in a minute, 12 h",
    limits={
        "speed_kmh": Limit(5.0, "km/h", "at most this fast, it stands"),
        "implied_kmh": Limit(6.0, "km/h", "slower from point to point, it stands: 100 m in a minute"),
        "idle_h": Limit(12.0, "h", "so long it may stand with the ignition on"),
    },
    for_s=60.0,
    bit=45,
)
ENGINE_AGAINST_MOTION: Final = Rule(
    id="VEH-07",
    title="Moves with the engine at rest",
    dimension=Dimension.CONSISTENCY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=engine_against_motion,
    needs=frozenset({"rpm"}),
    quiet=lambda _: {"rpm": (1, INF)},
    meaning="The engine has been at 0 revolutions for half a minute, with the ignition on, while the vehicle moves. "
    "Vehicles that say that they are electric or hybrid are left out.",
    causes=(
        "the reading of the vehicle's bus has stopped, and the unit sends 0",
        "an electric or hybrid vehicle that does not say so",
        "it rolls with the engine off: sailing, a long descent",
    ),
    actions=(
        "for electric and hybrid models, switch the rule off",
        "let the installer check the connection to the bus",
        "if all of a model show it, its engine data are read by the wrong program",
    ),
    source="field knowledge: 30 s, longer than cars sail",
    limits={"speed_kmh": Limit(10.0, "km/h", "at most this fast, it may be pushed or roll")},
    in_a_row=3,
    for_s=30.0,
    bit=46,
    tracks=(*BATTERY_DRIVEN, FUEL_TYPE),
)

RULES: Final = (
    ODOMETER_DECREASE,
    ODOMETER_JUMP,
    FUEL,
    vehicle_power.SUPPLY,
    vehicle_power.BACKUP_BATTERY,
    IGNITION_AGAINST_MOTION,
    ENGINE_AGAINST_MOTION,
    vehicle_bus.RANGES,
    vehicle_bus.CONSTANT,
)
