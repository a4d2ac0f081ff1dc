"""VEH-04 and VEH-05: the vehicle's supply and the unit's own battery.

Whether a vehicle has 12 or 24 volts nobody tells: what is above 18 volts is a 24-volt system, what is below a 12-volt
one. So a 24-volt battery that is down to 18 volts is taken for a 12-volt one that is overcharged: a hit either way.
"""

from __future__ import annotations

from typing import Final

from signalkeep.rules.contract import Answer, Dimension, Limit, Limits, Rule, Scope, Severity
from signalkeep.rules.reading import Reading, Recent, number_of
from signalkeep.rules.screen import INF


def supply(reading: Reading, _: Recent, limits: Limits) -> Answer:
    """VEH-04. Under load and in charging a battery shows more or less than it holds: that is told at rest alone."""
    volts = number_of(reading.attributes.get("power_v"))
    if volts is None:
        return None
    is_24 = volts > limits["system_24_v"]
    low_v, over_v = limits["low_24_v" if is_24 else "low_12_v"], limits["over_24_v" if is_24 else "over_12_v"]
    if low_v <= volts <= over_v:
        return False
    system = "24 V" if is_24 else "12 V"
    if volts > over_v:
        return f"{volts:.2f} V: too much for a system of {system}"
    if volts < limits["unplugged_v"]:
        return f"{volts:.2f} V: unplugged"
    if volts < limits["flat_24_v" if is_24 else "flat_12_v"]:
        return f"{volts:.2f} V: a flat battery of {system}"
    if reading.attributes.get("ignition") != 0:
        return False
    is_critical = not is_24 and volts < limits["critical_12_v"]
    return f"{volts:.2f} V at rest: {'critical' if is_critical else 'low'} for a battery of {system}"


def backup_battery(reading: Reading, limits: Limits) -> Answer:
    """VEH-05."""
    share_pct = number_of(reading.attributes.get("battery_pct"))
    if share_pct is not None:
        return f"{share_pct:.0f} %" if share_pct < limits["battery_pct"] else False
    volts = number_of(reading.attributes.get("battery_v"))
    if volts is None or volts < limits["none_v"]:
        return None
    return f"{volts:.2f} V" if volts < limits["battery_v"] else False


SUPPLY: Final = Rule(
    id="VEH-04",
    title="Supply voltage out of range",
    dimension=Dimension.VALIDITY,
    severity=Severity.WARNING,
    scope=Scope.RECENT,
    check=supply,
    needs=frozenset({"power_v"}),
    meaning="For two minutes or more the vehicle's supply has been low, flat, too high or gone. A flat battery will "
    "not start the engine, and soon the unit falls silent.",
    causes=(
        "a vehicle that stands for long, or a battery at the end of its life",
        "the unit was unplugged, or a fuse has blown",
        "a charging regulator that fails, where the voltage is too high",
    ),
    actions=(
        "let the driver start the engine or charge the battery",
        "if it is unplugged, see DEV-03 and ask who worked on the vehicle",
        "for models without supply wires that send 0 volts, switch the rule off",
    ),
    source="12 V at rest: TMF, FleetWitness (11.8 V for 2 minutes); 24 V, overvoltage and unplugged: field knowledge",
    limits={
        "unplugged_v": Limit(6.0, "V", "below this there is no supply"),
        "system_24_v": Limit(18.0, "V", "above this it is a 24-volt system", least=16.0, most=22.0),
        "low_12_v": Limit(12.2, "V", "12-volt battery at rest: below this it is low"),
        "critical_12_v": Limit(12.05, "V", "12-volt battery at rest: below this it may not start the engine"),
        "flat_12_v": Limit(11.8, "V", "12-volt battery: below this it is flat, at rest or not"),
        "over_12_v": Limit(16.0, "V", "12-volt system: above this the charger is broken"),
        "low_24_v": Limit(24.0, "V", "24-volt battery at rest: below this it is low"),
        "flat_24_v": Limit(23.6, "V", "24-volt battery: below this it is flat, at rest or not"),
        "over_24_v": Limit(32.0, "V", "24-volt system: above this the charger is broken"),
    },
    for_s=120.0,  # a starter draws the voltage down for seconds
    bit=43,
)
BACKUP_BATTERY: Final = Rule(
    id="VEH-05",
    title="Backup battery low",
    dimension=Dimension.VALIDITY,
    severity=Severity.INFO,
    scope=Scope.SIGNAL,
    check=backup_battery,
    needs=frozenset({"battery_pct", "battery_v"}),
    quiet=lambda limits: {"battery_pct": (limits["battery_pct"], INF), "battery_v": (limits["battery_v"], INF)},
    meaning="The unit's own battery is nearly empty: without the vehicle's supply it will say nothing, not even that "
    "somebody unplugged it.",
    causes=(
        "the supply has been off for hours",
        "the battery has aged, or it is too cold to charge",
    ),
    actions=(
        "see whether the unit has its supply: VEH-04, DEV-03",
        "if it has, and the battery stays low, have the battery changed",
    ),
    source="20 %: Wialon; 3.5 V of a single lithium cell: field knowledge",
    limits={
        "battery_pct": Limit(20.0, "%", "less is low", most=100.0),
        "battery_v": Limit(3.5, "V", "the same where only the voltage is sent"),
        "none_v": Limit(1.0, "V", "below this no battery is fitted"),
    },
    bit=44,
)
