"""What the IO elements of Teltonika records mean: tables of ids, sizes, scales and names, and their alarms.

Source: the makers' public "AVL ID" pages for the FMB family (permanent, eventual, OBD and CAN elements).

A number is known by its id *and* its size: the record does not say which model sent it, and other families use some
ids for other things, mostly in another size. What is not known, or carries a value that means "no reading", stays
under `ioN` as it was sent: numbers unsigned, variable elements as hexadecimal. So does a second element with a name
that the record has already; of one id that comes again under `ioN` the last counts. Pure tables and functions: never
raises on any bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any, Final, NamedTuple, TypeAlias


class Form(Enum):
    """What a raw number becomes."""

    NUMBER = auto()
    FLAG = auto()  # true unless 0
    IDENTITY = auto()  # hexadecimal text of 8 bytes
    IDENTITY_REVERSED = auto()  # the same of a number that is sent with its lowest byte first


class Element(NamedTuple):
    """A number with a meaning: raw / `divisor` * `factor`. `is_reading`: False for raw values that are none."""

    io_id: int
    size_bytes: int
    name: str
    form: Form = Form.NUMBER
    signed: bool = False
    divisor: int = 1
    factor: int = 1
    is_reading: Callable[[int], bool] | None = None


def is_dallas_reading(raw: int) -> bool:
    """Within -55.0 to 125.0 degrees Celsius, which is all that the sensor can measure; the rest are error codes."""
    return -550 <= raw <= 1250


def is_ble_reading(raw: int) -> bool:
    """None of the error codes: no data, not found, failed, low battery."""
    return raw not in {2000, 3000, 4000, 5000}


FLAG, IDENTITY = Form.FLAG, Form.IDENTITY

PERMANENT: Final = (
    Element(239, 1, "ignition", FLAG),
    Element(240, 1, "motion", FLAG),
    Element(303, 1, "instant_motion", FLAG),
    Element(80, 1, "data_mode"),
    Element(21, 1, "gsm_rssi"),
    Element(200, 1, "sleep_mode"),
    Element(69, 1, "gnss_status"),
    Element(181, 2, "pdop", divisor=10),
    Element(182, 2, "hdop", divisor=10),
    Element(66, 2, "power_v", divisor=1000),
    Element(67, 2, "battery_v", divisor=1000),
    Element(68, 2, "battery_current_a", divisor=1000),
    Element(113, 1, "battery_pct"),
    Element(24, 2, "gnss_speed_kmh"),
    Element(205, 2, "gsm_cell_id"),
    Element(206, 2, "gsm_area_code"),
    Element(636, 4, "lte_cell_id"),
    Element(241, 4, "operator_code"),
    Element(237, 1, "network_type"),
    Element(199, 4, "trip_m"),
    Element(16, 4, "odometer_m"),
    Element(449, 4, "ignition_on_s"),
    *(Element(number, 1, f"in{number}", FLAG) for number in (1, 2, 3, 4)),
    Element(179, 1, "out1", FLAG),
    Element(180, 1, "out2", FLAG),
    Element(380, 1, "out3", FLAG),
    Element(9, 2, "adc1_v", divisor=1000),
    Element(6, 2, "adc2_v", divisor=1000),
    Element(10, 2, "adc2_v", divisor=1000),
    Element(11, 8, "iccid_part1"),
    Element(14, 8, "iccid_part2"),
    Element(17, 2, "axis_x_mg", signed=True),
    Element(18, 2, "axis_y_mg", signed=True),
    Element(19, 2, "axis_z_mg", signed=True),
    Element(12, 4, "fuel_used_gnss_l", divisor=1000),
    Element(13, 2, "fuel_rate_gnss_l_per_100km", divisor=100),
    Element(15, 2, "eco_score", divisor=100),
    *(
        Element(io_id, 4, f"temp{number}_c", signed=True, divisor=10, is_reading=is_dallas_reading)
        for number, io_id in enumerate((72, 73, 74, 75), 1)
    ),
    *(Element(io_id, 8, f"temp{number}_sensor_id", IDENTITY) for number, io_id in enumerate((62, 63, 64, 65), 1)),
    Element(78, 8, "driver_id", Form.IDENTITY_REVERSED, is_reading=bool),  # 0: no key is there
    Element(207, 8, "rfid", IDENTITY, is_reading=bool),
    Element(238, 8, "user_id", is_reading=bool),
    *(
        Element(io_id, 2, f"ble_temp{number}_c", signed=True, divisor=100, is_reading=is_ble_reading)
        for number, io_id in enumerate((25, 26, 27, 28), 1)
    ),
    *(
        Element(io_id, 2, f"ble_humidity{number}_pct", divisor=10, is_reading=is_ble_reading)
        for number, io_id in enumerate((86, 104, 106, 108), 1)
    ),
    *(Element(io_id, 1, f"ble_battery{number}_pct") for number, io_id in enumerate((29, 20, 22, 23), 1)),
)

EVENTUAL: Final = (
    *(Element(154 + number, 1, f"geofence_zone{number}") for number in range(1, 6)),
    Element(175, 1, "auto_geofence"),
    Element(236, 1, "panic"),
    Element(243, 2, "green_driving_ms"),
    Element(246, 1, "towing"),
    Element(247, 1, "crash"),
    Element(248, 1, "immobilizer"),
    Element(249, 1, "jamming"),
    Element(250, 1, "trip"),
    Element(251, 1, "idling"),
    Element(252, 1, "unplugged"),
    Element(253, 1, "green_driving_type"),
    Element(254, 1, "green_driving_g", divisor=100),
    Element(255, 1, "over_speeding"),
    Element(318, 1, "gnss_jamming"),
)

OBD: Final = (
    Element(30, 1, "dtc_count"),
    Element(31, 1, "engine_load_pct"),
    Element(32, 1, "coolant_c", signed=True),
    Element(33, 1, "short_fuel_trim_pct", signed=True),
    Element(34, 2, "fuel_pressure_kpa"),
    Element(35, 1, "map_kpa"),
    Element(36, 2, "rpm"),
    Element(37, 1, "obd_speed_kmh"),
    Element(38, 1, "timing_advance_deg", signed=True),
    Element(39, 1, "intake_temp_c", signed=True),
    Element(40, 2, "maf_gps", divisor=100),
    Element(41, 1, "throttle_pct"),
    Element(42, 2, "engine_run_s"),
    Element(43, 2, "mil_distance_km"),
    Element(44, 2, "fuel_rail_relative_kpa", divisor=10),
    Element(45, 2, "fuel_rail_direct_kpa", factor=10),
    Element(46, 1, "egr_pct"),
    Element(47, 1, "egr_error_pct", signed=True),
    Element(48, 1, "fuel_pct"),
    Element(49, 2, "codes_cleared_distance_km"),
    Element(50, 1, "barometric_kpa"),
    Element(51, 2, "control_module_v", divisor=1000),
    Element(52, 2, "absolute_load_pct"),
    Element(53, 1, "ambient_c", signed=True),
    Element(54, 2, "mil_time_min"),
    Element(55, 2, "codes_cleared_time_min"),
    Element(56, 2, "fuel_rail_absolute_kpa", factor=10),
    Element(57, 1, "hybrid_battery_pct"),
    Element(58, 1, "oil_c"),
    Element(59, 2, "injection_timing_deg", signed=True, divisor=100),
    Element(60, 2, "fuel_rate_lph", divisor=100),
    Element(540, 1, "throttle_group_pct"),
    Element(541, 1, "equivalence_ratio", divisor=100),
    Element(542, 2, "map_kpa"),
    Element(543, 2, "hybrid_v"),
    Element(544, 2, "hybrid_a", signed=True),
    Element(759, 1, "fuel_type"),
    Element(389, 4, "oem_odometer_km"),
    Element(390, 4, "fuel_l", divisor=10),
    Element(402, 4, "oem_service_distance_km"),
    Element(410, 1, "charging", FLAG),
    Element(411, 1, "vehicle_battery_pct"),
)

CAN_ADAPTER: Final = (
    Element(81, 1, "obd_speed_kmh"),
    Element(82, 1, "pedal_pct"),
    Element(83, 4, "fuel_used_l", divisor=10),
    Element(84, 2, "fuel_l", divisor=10),
    Element(85, 2, "rpm"),
    Element(87, 4, "can_odometer_m"),
    Element(89, 1, "fuel_pct"),
    Element(90, 2, "doors"),
    Element(100, 4, "can_program"),
    Element(102, 4, "engine_hours_s", factor=60),
    Element(107, 4, "fuel_counted_l", divisor=10),
    Element(110, 2, "fuel_rate_lph", divisor=10),
    Element(115, 2, "coolant_c", signed=True, divisor=10),
    Element(132, 8, "security_flags"),
)

ELEMENTS: Final = (*PERMANENT, *EVENTUAL, *OBD, *CAN_ADAPTER)


class Divided:
    """Turns a raw number into its part. Division rounds correctly: 12835 / 1000 is 12.835."""

    __slots__ = ("divisor",)

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor

    def __call__(self, raw: int) -> float:
        return raw / self.divisor


def converter(element: Element) -> Callable[[int], Any] | None:
    """What turns the unsigned raw number into the value, which is None where it is no reading. None: nothing to do."""
    _, size_bytes, _, form, signed, divisor, factor, is_reading = element
    if form is Form.FLAG:
        return bool
    if not signed and is_reading is None and form is Form.NUMBER:
        if divisor > 1:
            return Divided(divisor)
        return None if factor == 1 else lambda raw: raw * factor
    half, whole = 1 << (size_bytes * 8 - 1), 1 << (size_bytes * 8)

    def convert(raw: int) -> Any:
        number = raw - whole if signed and raw >= half else raw
        if is_reading is not None and not is_reading(number):
            return None
        if form is Form.IDENTITY:
            return f"{number:016X}"
        if form is Form.IDENTITY_REVERSED:
            return number.to_bytes(8, "little").hex().upper()
        return number / divisor if divisor > 1 else number * factor

    return convert


Table: TypeAlias = dict[int, tuple[str, Callable[[int], Any] | None]]
"""By id: the name of the attribute and its converter."""

TABLES: Final[dict[int, Table]] = {
    size_bytes: {
        element.io_id: (element.name, converter(element)) for element in ELEMENTS if element.size_bytes == size_bytes
    }
    for size_bytes in (1, 2, 4, 8)
}
NO_TABLE: Final[Table] = {}  # for devices of whose ids nothing is known

assert sum(len(table) for table in TABLES.values()) == len(ELEMENTS), "one id and size, one meaning"


def add_numbers(attributes: dict[str, Any], pairs: Iterable[tuple[int, int]], table: Table) -> None:
    """Add elements, pairs of id and unsigned raw number, of the size that the table is for."""
    find = table.get
    for io_id, raw in pairs:
        found = find(io_id)
        if found is None:
            attributes[f"io{io_id}"] = raw
            continue
        name, convert = found
        value = raw if convert is None else convert(raw)
        if value is None or name in attributes:
            name, value = f"io{io_id}", raw
        attributes[name] = value


def join_cells(attributes: dict[str, Any]) -> None:
    """Cell and area become `cells`, a list of [mcc, mnc, lac, cid, rssi]; the operator is the home of both if known."""
    if "gsm_cell_id" in attributes and "gsm_area_code" in attributes:
        operator = attributes.get("operator_code", 0)
        cell_id, area_code = attributes.pop("gsm_cell_id"), attributes.pop("gsm_area_code")
        attributes["cells"] = [[*country_and_network(operator), area_code, cell_id, None]]


def country_and_network(operator_code: int) -> tuple[int | None, int | None]:
    """24602 is network 2 of country 246; 310410 is network 410 of country 310."""
    digits = str(operator_code)
    return (int(digits[:3]), int(digits[3:])) if len(digits) in (5, 6) else (None, None)


GREEN_DRIVING: Final = 253
GREEN_DRIVING_ALARMS: Final = {1: "hard_acceleration", 2: "hard_braking", 3: "hard_cornering"}
ALARMS: Final[dict[int, str]] = {
    **dict.fromkeys((155, 156, 157, 158, 159, 175), "geofence"),
    236: "sos",
    246: "tow",
    247: "accident",
    249: "jamming",
    251: "idle",
    252: "power_cut",
    255: "overspeed",
    318: "jamming",
}


def alarm_of(event_id: int, attributes: dict[str, Any]) -> str | None:
    """The alarm that caused a record. The element of the event must be there, and not be 0: that is its end."""
    if event_id not in ALARMS and event_id != GREEN_DRIVING:
        return None
    name, _ = TABLES[1][event_id]
    value = attributes.get(name, attributes.get(f"io{event_id}"))
    if event_id == GREEN_DRIVING:
        return GREEN_DRIVING_ALARMS.get(value) if isinstance(value, int) else None
    return ALARMS[event_id] if isinstance(value, int) and value else None
