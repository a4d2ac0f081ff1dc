"""Which rules should find which kind of planted fault, and what else it rightly sets off.

`must`: each of these should have a hit where such a fault was planted, and one there is right. `may`: what follows
from the fault as well (a position far off the way also makes nonsense of the speed between points); such hits are
neither right nor wrong. Everything else that hits there is a false alarm, and so is a `must` where the magnitude is
nothing to be told of. Kept apart from injector and rules, which must not know of each other.
"""

from __future__ import annotations

from typing import Final, NamedTuple

PLACE: Final = ("KIN-01", "KIN-04", "POS-09")  # a position that is elsewhere
ORDER: Final = ("TIM-07", "TIM-08", "TIM-09")  # records that seem to belong elsewhere in time, and are missed here
MIXED_UP: Final = (*ORDER, "KIN-01", "KIN-04", "KIN-06", "VEH-01", "VEH-02")  # they come between others


class Explains(NamedTuple):
    """Ids of rules."""

    must: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    all_day: tuple[str, ...] = ()  # add up over a day, so that they may hit anywhere in it


EXPLAINS: Final[dict[str, Explains]] = {
    # position
    "teleport": Explains(("KIN-01",), ("KIN-04", "POS-09", "KIN-03")),
    "frozen": Explains(("KIN-02",), ("KIN-01", "KIN-04", "VEH-02")),
    "swapped": Explains(("POS-07",), (*PLACE, "POS-01", "KIN-03")),
    "sign_flip": Explains(("POS-08",), (*PLACE, "KIN-03")),
    "null_island": Explains(("POS-02",), (*PLACE, "KIN-03")),
    "factory_default": Explains(("POS-10",), (*PLACE, "KIN-02", "KIN-03")),  # one place all the time, in motion
    "off_globe": Explains(("POS-01",)),
    "missing_position": Explains(("SCH-01",), ("POS-03",)),
    "few_satellites": Explains(("POS-04",)),
    "high_hdop": Explains(("POS-05",)),
    "altitude_range": Explains(("POS-11",)),
    "course_range": Explains(("POS-11",)),
    "no_fix": Explains(("DEV-01",), ("POS-03", "VEH-02"), all_day=("DEV-01",)),
    "parked_drift": Explains(("KIN-03",), ("VEH-06",)),
    "cloned": Explains(("ID-03",), (*PLACE, "KIN-03", "VEH-02", "VEH-06")),
    # time
    # a clock that is ahead by whole quarter hours for all of a day is in another zone as far as anybody can tell
    "future_clock": Explains(("TIM-02",), (*MIXED_UP, "TIM-05")),
    "past_clock": Explains(("TIM-03",), MIXED_UP),
    "week_rollover": Explains(("TIM-04",), (*ORDER, "TIM-03")),
    "time_zone": Explains(("TIM-05",), (*ORDER, "TIM-02")),
    "time_unit": Explains(("TIM-01",), (*MIXED_UP, "TIM-03", "TIM-04")),
    "same_time": Explains(("TIM-06",), ("ID-03", "KIN-03")),  # parked, its second position is elsewhere
    "out_of_order": Explains(("TIM-07",)),
    "late_record": Explains(("TIM-09",), ("TIM-07",)),
    "flood": Explains(("TIM-10",)),
    "gap": Explains(("TIM-08",), ("VEH-02",)),
    "acceleration": Explains(("KIN-06",), ("KIN-07",)),
    # vehicle
    "speed_range": Explains(("KIN-05",), ("KIN-04", "KIN-06", "KIN-07")),
    "speed_mismatch": Explains(("KIN-04",), ("KIN-06", "KIN-07")),
    "wrong_unit": Explains(("UNI-01",), ("KIN-04", "KIN-05", "KIN-06", "KIN-07")),
    "gps_obd_speed": Explains(("KIN-07",)),
    "odometer_decrease": Explains(("VEH-01",)),
    "odometer_jump": Explains(("VEH-02",)),
    "fuel_jump": Explains(("VEH-03",)),
    "fuel_drain": Explains(("VEH-03",)),
    "fuel_stuck": Explains(("VEH-09",), ("VEH-03",)),
    "low_voltage": Explains(("VEH-04",)),
    "over_voltage": Explains(("VEH-04",)),
    "unplugged": Explains(("VEH-04", "DEV-03"), ("VEH-05",)),
    "low_battery": Explains(("VEH-05",)),
    "ignition_off_moving": Explains(("VEH-06",), ("KIN-03",)),
    "tow": Explains(("VEH-06",), ("KIN-03",)),
    "rpm_zero": Explains(("VEH-07",)),
    "coolant_range": Explains(("VEH-08",)),
    "rpm_range": Explains(("VEH-08",)),
    "percent_range": Explains(("VEH-08",)),
    "constant_sensor": Explains(("VEH-09",)),
    # device
    "jamming": Explains(("DEV-02",)),
    "weak_signal": Explains(("DEV-04",)),
    "sim_changed": Explains(("ID-04",)),
    "unknown_event": Explains(("SCH-03",)),
    "sentinel": Explains(("SCH-04",), ("VEH-08", "VEH-03")),
    "lost_attribute": Explains(("SCH-02",)),
    "new_attribute": Explains(("SCH-02",)),
    # look-alikes
    "tunnel": Explains(),
    "cold_start": Explains(),
    "backlog": Explains(),
    "ferry": Explains(),
    "tow_asleep": Explains(),
}  # fmt: skip

# A rule that repeats what the device says of itself is right by definition, and is not measured.
REPEATS_THE_DEVICE: Final = frozenset({"POS-03"})
