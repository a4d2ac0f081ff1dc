"""DEV: is the device well? Its antenna, its power, its network, and whether somebody disturbs it.

A device says much of this itself; where it cannot, its readings of a whole day do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.days import DayHit, DeviceDay
from signalkeep.rules.reading import Reading, Recent, number_of
from signalkeep.rules.screen import INF, NEVER

GNSS_RESTS: Final = frozenset({0, 3})  # off, asleep: then no fix is no fault
GNSS_ANTENNA_FAULT: Final = 5  # Teltonika's older families: the antenna draws too much current
TAMPERED: Final = frozenset({"power_cut", "tampering", "removing"})
HOUR_S: Final = 3600.0
LEVELS: Final = (0, 5)  # of gsm_rssi, where it counts bars; other scales leave this range


def antenna(day: DeviceDay, limits: Limits) -> Iterable[DayHit]:
    """DEV-01."""
    blind: list[int] = []
    blind_s = 0.0
    faults: list[int] = []
    before_s: float | None = None
    for place, reading in enumerate(day.readings):
        if reading.attributes.get("gnss_status") == GNSS_ANTENNA_FAULT or (
            reading.attributes.get("alarm") == "gps_antenna_cut"
        ):
            faults.append(place)
        if reading.time_s is None:
            continue
        elapsed_s = 0.0 if before_s is None else reading.time_s - before_s
        before_s = reading.time_s
        if not reading.fix_valid and moves_without_fix(reading, limits["speed_kmh"]):
            blind.append(place)
            blind_s += min(elapsed_s, limits["step_s_max"])
    if faults:
        yield DayHit(faults, "the device says that its antenna is cut or shorted")
    if blind_s >= limits["blind_min"] * 60:
        yield DayHit(blind, f"moved for {blind_s / 60:.0f} min without a fix")


def moves_without_fix(reading: Reading, speed_kmh: float) -> bool:
    """By what does not depend on satellites, and with a receiver that is on."""
    status = number_of(reading.attributes.get("gnss_status"))
    if status in GNSS_RESTS or reading.truth("ignition") is False:
        return False
    engine_kmh = reading.number("obd_speed_kmh")
    return reading.truth("motion") is True or (engine_kmh is not None and engine_kmh > speed_kmh)


def level_of(value: Any) -> float | None:
    """Of an event: 0 is its end; some devices say true and false."""
    return float(value) if type(value) is bool else number_of(value)


def jamming(reading: Reading, limits: Limits) -> Answer:
    """DEV-02."""
    attributes = reading.attributes
    satellites, network = level_of(attributes.get("gnss_jamming")), level_of(attributes.get("jamming"))
    alarm = attributes.get("alarm")
    if satellites is not None and satellites >= limits["level_min"]:
        return f"satellite signals are jammed: level {satellites:g}"
    if network is not None and network >= limits["level_min"]:
        return f"the mobile network is jammed: level {network:g}"
    if alarm == "jamming":
        return "alarm: jamming"
    return None if satellites is None and network is None and alarm is None else False


def unplugged(reading: Reading, recent: Recent, limits: Limits) -> Answer:
    """DEV-03. A device that still speaks without its supply runs on its battery: no need to watch that fall."""
    get = reading.attributes.get
    event, alarm = get("unplugged"), get("alarm")
    if event is not None:
        event = level_of(event)
        if event is not None and event >= 1:
            return "the device says that it was unplugged"
    if alarm is not None and type(alarm) is str and alarm in TAMPERED:
        return f"alarm: {alarm}"
    volts = number_of(get("power_v"))
    if volts is None or "power_v" not in recent.known:
        return None if event is None and alarm is None else False
    if volts > limits["gone_v"]:
        return False
    before = recent.known_number("power_v")
    if before is not None and before[1] >= limits["supplied_v"]:
        return f"supply from {before[1]:.1f} to {volts:.1f} V"
    return False


def network(day: DeviceDay, limits: Limits) -> Iterable[DayHit]:
    """DEV-04."""
    hours = len({reading.received_s // HOUR_S for reading in day.readings})
    if hours and day.connections > limits["connections_per_h"] * hours:
        rate = day.connections / hours
        yield DayHit((), f"{day.connections} connections in {hours} h with data: {rate:.0f} an hour")
    levels = [level for reading in day.readings if (level := reading.number("gsm_rssi")) is not None]
    least, most = LEVELS
    if len(levels) < limits["readings_min"] or min(levels) < least or max(levels) > most:
        return
    weak = sum(level <= limits["level_max"] for level in levels)
    if weak > limits["share"] * len(levels):
        yield DayHit((), f"weak network in {weak} of {len(levels)} readings: {100 * weak / len(levels):.0f} %")


ANTENNA: Final = Rule(
    id="DEV-01",
    title="Antenna of the receiver",
    dimension=Dimension.ACCURACY,
    severity=Severity.ERROR,
    scope=Scope.DAY,
    check=antenna,
    meaning="The vehicle moved for an hour of this day, or more, while its receiver was on and had no fix; or the "
    "device itself says that the antenna is broken. Where it was, nobody knows.",
    causes=(
        "the antenna is disconnected, damaged or covered with metal",
        "the receiver is broken",
        "long ways underground, or somebody jams the signals: see DEV-02",
    ),
    actions=(
        "let the installer check the antenna, its cable and its place",
        "if other devices of the area have none either, see FLT-03 first",
    ),
    source="FMCSA's rule for logging devices: 60 minutes in 24 hours; Teltonika's receiver status",
    limits={
        "blind_min": Limit(60.0, "min", "so long without a fix in motion", least=1.0),
        "speed_kmh": Limit(5.0, "km/h", "faster by the engine control, it moves"),
        "step_s_max": Limit(600.0, "s", "of a longer silence only so much counts", least=1.0),
    },
    bit=49,
    error_type=1,
)
JAMMING: Final = Rule(
    id="DEV-02",
    title="Device reports jamming",
    dimension=Dimension.ACCURACY,
    severity=Severity.WARNING,
    scope=Scope.SIGNAL,
    check=jamming,
    needs=frozenset({"gnss_jamming", "jamming", "alarm"}),
    quiet=lambda _: {"gnss_jamming": (-INF, 0), "jamming": (-INF, 0), "alarm": NEVER},
    meaning="The device says that somebody disturbs its satellite signals or its network. Positions may be missing or "
    "wrong, and this is not the device's fault.",
    causes=(
        "a jammer in the vehicle, or in one nearby",
        "interference over a whole region, near borders and airports",
        "the vehicle's own electronics, close to the antenna",
    ),
    actions=(
        "if several devices of the area say so, see FLT-03: wait, and trust no positions",
        "if it follows one vehicle, talk to its driver",
        "if it comes with the same place in the vehicle, let the installer move the antenna",
    ),
    source="Teltonika AVL 318 and 249: 1 or more",
    limits={"level_min": Limit(1.0, "", "the level from which it counts: 2 is critical", least=1.0)},
    bit=50,
)
UNPLUGGED: Final = Rule(
    id="DEV-03",
    title="Unplugged or tampered with",
    dimension=Dimension.COMPLETENESS,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=unplugged,
    needs=frozenset({"unplugged", "alarm", "power_v"}),
    meaning="The device has just lost the vehicle's supply, or says that somebody tampers with it. It lives on its "
    "battery for hours at most, then nothing more will come.",
    causes=(
        "work on the vehicle: battery changed or main switch off",
        "the unit was unplugged on purpose",
        "theft of the vehicle",
    ),
    actions=(
        "call the driver: is somebody working on the vehicle?",
        "if nobody is, treat it as theft while the position still comes",
        "for trucks whose main switch is turned off every night, mute it",
    ),
    source="Geotab fault 136, Rand McNally; 4 V and 9 V: field knowledge",
    limits={
        "gone_v": Limit(4.0, "V", "at most this is no supply: open wires show a volt or two"),
        "supplied_v": Limit(9.0, "V", "at least this was one"),
    },
    bit=51,
    tracks=("power_v",),
)
NETWORK: Final = Rule(
    id="DEV-04",
    title="Restarts or weak network",
    dimension=Dimension.TIMELINESS,
    severity=Severity.INFO,
    scope=Scope.DAY,
    check=network,
    meaning="The device connected anew again and again, or had hardly any network for most of the day. Its data come "
    "late, and cost more than they should.",
    causes=(
        "the antenna of the modem is covered or loose",
        "a unit that restarts for want of power",
        "a SIM or a plan without roaming where the vehicle drives",
        "a unit that is set to connect for every record",
    ),
    actions=(
        "see whether the supply falters: VEH-04",
        "if several devices with the same kind of SIM show it, ask the operator",
        "let the installer check the modem's antenna",
    ),
    source="field knowledge: 10 an hour, 1 bar of 5",
    limits={
        "connections_per_h": Limit(10.0, "1/h", "more connections per hour with data are too many", least=1.0),
        "level_max": Limit(1.0, "", "of 5 bars, at most so many are weak", most=4.0),
        "share": Limit(0.5, "", "weak in more than this share of the readings", most=1.0),
        "readings_min": Limit(20.0, "", "fewer readings say nothing", least=1.0),
    },
)

RULES: Final = (ANTENNA, JAMMING, UNPLUGGED, NETWORK)
