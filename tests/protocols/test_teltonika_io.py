"""What IO elements mean: every id of the tables, and what becomes of values, sizes and forms that are not known."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signalkeep.protocols.teltonika_io import ELEMENTS, TABLES, add_numbers, alarm_of, join_cells
from signalkeep.protocols.teltonika_variable import attributes_of

# Id, raw value (its length is the element's size; the top bit shows the sign), attribute, value. Written down from the
# maker's pages: what was once decoded so must stay so.
MEANINGS = """
1 f6 in1 true
2 f6 in2 true
3 f6 in3 true
4 f6 in4 true
6 ff9c adc2_v 65.436
9 ff9c adc1_v 65.436
10 ff9c adc2_v 65.436
11 0102030405060708 iccid_part1 72623859790382856
12 ffffff9c fuel_used_gnss_l 4294967.196
13 ff9c fuel_rate_gnss_l_per_100km 654.36
14 0102030405060708 iccid_part2 72623859790382856
15 ff9c eco_score 654.36
16 ffffff9c odometer_m 4294967196
17 ff9c axis_x_mg -100
18 ff9c axis_y_mg -100
19 ff9c axis_z_mg -100
20 f6 ble_battery2_pct 246
21 f6 gsm_rssi 246
22 f6 ble_battery3_pct 246
23 f6 ble_battery4_pct 246
24 ff9c gnss_speed_kmh 65436
25 ff9c ble_temp1_c -1.0
26 ff9c ble_temp2_c -1.0
27 ff9c ble_temp3_c -1.0
28 ff9c ble_temp4_c -1.0
29 f6 ble_battery1_pct 246
30 f6 dtc_count 246
31 f6 engine_load_pct 246
32 f6 coolant_c -10
33 f6 short_fuel_trim_pct -10
34 ff9c fuel_pressure_kpa 65436
35 f6 map_kpa 246
36 ff9c rpm 65436
37 f6 obd_speed_kmh 246
38 f6 timing_advance_deg -10
39 f6 intake_temp_c -10
40 ff9c maf_gps 654.36
41 f6 throttle_pct 246
42 ff9c engine_run_s 65436
43 ff9c mil_distance_km 65436
44 ff9c fuel_rail_relative_kpa 6543.6
45 ff9c fuel_rail_direct_kpa 654360
46 f6 egr_pct 246
47 f6 egr_error_pct -10
48 f6 fuel_pct 246
49 ff9c codes_cleared_distance_km 65436
50 f6 barometric_kpa 246
51 ff9c control_module_v 65.436
52 ff9c absolute_load_pct 65436
53 f6 ambient_c -10
54 ff9c mil_time_min 65436
55 ff9c codes_cleared_time_min 65436
56 ff9c fuel_rail_absolute_kpa 654360
57 f6 hybrid_battery_pct 246
58 f6 oil_c 246
59 ff9c injection_timing_deg -1.0
60 ff9c fuel_rate_lph 654.36
62 0102030405060708 temp1_sensor_id "0102030405060708"
63 0102030405060708 temp2_sensor_id "0102030405060708"
64 0102030405060708 temp3_sensor_id "0102030405060708"
65 0102030405060708 temp4_sensor_id "0102030405060708"
66 ff9c power_v 65.436
67 ff9c battery_v 65.436
68 ff9c battery_current_a 65.436
69 f6 gnss_status 246
72 ffffff9c temp1_c -10.0
73 ffffff9c temp2_c -10.0
74 ffffff9c temp3_c -10.0
75 ffffff9c temp4_c -10.0
78 0102030405060708 driver_id "0807060504030201"
80 f6 data_mode 246
81 f6 obd_speed_kmh 246
82 f6 pedal_pct 246
83 ffffff9c fuel_used_l 429496719.6
84 ff9c fuel_l 6543.6
85 ff9c rpm 65436
86 01c9 ble_humidity1_pct 45.7
87 ffffff9c can_odometer_m 4294967196
89 f6 fuel_pct 246
90 ff9c doors 65436
100 ffffff9c can_program 4294967196
102 ffffff9c engine_hours_s 257698031760
104 01c9 ble_humidity2_pct 45.7
106 01c9 ble_humidity3_pct 45.7
107 ffffff9c fuel_counted_l 429496719.6
108 01c9 ble_humidity4_pct 45.7
110 ff9c fuel_rate_lph 6543.6
113 f6 battery_pct 246
115 ff9c coolant_c -10.0
132 0102030405060708 security_flags 72623859790382856
155 f6 geofence_zone1 246
156 f6 geofence_zone2 246
157 f6 geofence_zone3 246
158 f6 geofence_zone4 246
159 f6 geofence_zone5 246
175 f6 auto_geofence 246
179 f6 out1 true
180 f6 out2 true
181 ff9c pdop 6543.6
182 ff9c hdop 6543.6
199 ffffff9c trip_m 4294967196
200 f6 sleep_mode 246
205 ff9c gsm_cell_id 65436
206 ff9c gsm_area_code 65436
207 0102030405060708 rfid "0102030405060708"
236 f6 panic 246
237 f6 network_type 246
238 0102030405060708 user_id 72623859790382856
239 f6 ignition true
240 f6 motion true
241 ffffff9c operator_code 4294967196
243 ff9c green_driving_ms 65436
246 f6 towing 246
247 f6 crash 246
248 f6 immobilizer 246
249 f6 jamming 246
250 f6 trip 246
251 f6 idling 246
252 f6 unplugged 246
253 f6 green_driving_type 246
254 f6 green_driving_g 2.46
255 f6 over_speeding 246
303 f6 instant_motion true
318 f6 gnss_jamming 246
380 f6 out3 true
389 ffffff9c oem_odometer_km 4294967196
390 ffffff9c fuel_l 429496719.6
402 ffffff9c oem_service_distance_km 4294967196
410 f6 charging true
411 f6 vehicle_battery_pct 246
449 ffffff9c ignition_on_s 4294967196
540 f6 throttle_group_pct 246
541 f6 equivalence_ratio 2.46
542 ff9c map_kpa 65436
543 ff9c hybrid_v 65436
544 ff9c hybrid_a -100
636 ffffff9c lte_cell_id 4294967196
759 f6 fuel_type 246
"""
CASES: list[list[str]] = [line.split(maxsplit=3) for line in MEANINGS.split("\n") if line]


def decode(io_id: int, raw: bytes) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    add_numbers(attributes, [(io_id, int.from_bytes(raw))], TABLES[len(raw)])
    return attributes


@pytest.mark.parametrize(("io_id", "raw", "name", "value"), CASES, ids=lambda part: part)
def test_every_known_number(io_id: str, raw: str, name: str, value: str) -> None:
    found = decode(int(io_id), bytes.fromhex(raw))
    assert json.dumps(found) == json.dumps({name: json.loads(value)})


def test_there_are_no_others() -> None:
    assert {(element.io_id, element.size_bytes) for element in ELEMENTS} == {
        (int(io_id), len(raw) // 2) for io_id, raw, *_ in CASES
    }


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_unknown_ids_and_known_ones_of_another_size_keep_their_raw_number(size: int) -> None:
    for io_id in {*range(1000), 65535} - TABLES[size].keys():
        assert decode(io_id, b"\xff" * size) == {f"io{io_id}": 256**size - 1}


@pytest.mark.parametrize(
    ("io_id", "size", "raw", "expected"),
    [
        (66, 2, 12835, {"power_v": 12.835}),
        (66, 2, 0, {"power_v": 0.0}),
        (239, 1, 0, {"ignition": False}),
        (239, 1, 1, {"ignition": True}),
        (17, 2, 0x8000, {"axis_x_mg": -32768}),
        (17, 2, 0x7FFF, {"axis_x_mg": 32767}),
        (72, 4, 1250, {"temp1_c": 125.0}),
        (72, 4, 1251, {"io72": 1251}),
        (72, 4, 2**32 - 550, {"temp1_c": -55.0}),
        (72, 4, 2**32 - 551, {"io72": 2**32 - 551}),
        (72, 4, 3000, {"io72": 3000}),
        (25, 2, 2001, {"ble_temp1_c": 20.01}),
        *((25, 2, code, {"io25": code}) for code in (2000, 3000, 4000, 5000)),
        (86, 2, 4000, {"io86": 4000}),
        (78, 8, 0, {"io78": 0}),
        (78, 8, 0x01000B00791C1793, {"driver_id": "93171C79000B0001"}),
        (207, 8, 0, {"io207": 0}),
    ],
)
def test_values_at_the_edges_and_values_that_are_no_reading(
    io_id: int, size: int, raw: int, expected: dict[str, Any]
) -> None:
    found = decode(io_id, raw.to_bytes(size))
    assert found == expected
    assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]


def test_values_are_the_nearest_to_what_was_sent() -> None:
    """Never 12.835000000000001."""
    for raw in range(0x10000):
        assert decode(66, raw.to_bytes(2)) == {"power_v": float(Decimal(raw).scaleb(-3))}


def test_a_second_element_of_the_same_name_is_not_lost() -> None:
    attributes: dict[str, Any] = {}
    add_numbers(attributes, [(36, 800), (85, 900), (36, 1000)], TABLES[2])
    assert attributes == {"rpm": 800, "io85": 900, "io36": 1000}


@pytest.mark.parametrize(
    ("operator", "home"),
    [(24602, [246, 2]), (310410, [310, 410]), (0, [None, None]), (2460, [None, None]), (None, [None, None])],
)
def test_cell_and_area_make_a_cell(operator: int | None, home: list[int | None]) -> None:
    attributes: dict[str, Any] = {"gsm_cell_id": 7, "gsm_area_code": 3} | (
        {} if operator is None else {"operator_code": operator}
    )
    join_cells(attributes)
    assert attributes.pop("cells") == [[*home, 3, 7, None]]
    assert attributes == ({} if operator is None else {"operator_code": operator})


def test_a_cell_alone_stays_alone() -> None:
    attributes: dict[str, Any] = {"gsm_cell_id": 7}
    join_cells(attributes)
    assert attributes == {"gsm_cell_id": 7}


ALARMS = {
    236: "sos", 246: "tow", 247: "accident", 249: "jamming", 251: "idle", 252: "power_cut", 255: "overspeed",
    318: "jamming", 175: "geofence", **dict.fromkeys(range(155, 160), "geofence"),
}  # fmt: skip


@pytest.mark.parametrize("io_id", range(400))
def test_the_alarm_of_an_event(io_id: int) -> None:
    assert alarm_of(io_id, {}) is None, "an event without its element"
    assert alarm_of(io_id, decode(io_id, b"\0")) is None, "the end of a condition"
    expected = ALARMS.get(io_id, "hard_acceleration" if io_id == 253 else None)
    assert alarm_of(io_id, decode(io_id, b"\1")) == expected
    assert alarm_of(io_id, decode(io_id, b"\0\0\0\1")) == expected, "an element of another size"
    assert alarm_of(io_id, {f"io{io_id}": "01"}) is None, "an element that is no number"


@pytest.mark.parametrize(("value", "alarm"), [(2, "hard_braking"), (3, "hard_cornering"), (4, None)])
def test_green_driving(value: int, alarm: str | None) -> None:
    assert alarm_of(253, {"green_driving_type": value}) == alarm


@pytest.mark.parametrize(
    ("io_id", "raw", "expected"),
    [
        (256, b"WV1ZZZ2EZ86015388", {"vin": "WV1ZZZ2EZ86015388"}),
        (325, b"WV1ZZZ2EZ86015388\0\0", {"vin": "WV1ZZZ2EZ86015388"}),
        (256, b"", None),
        (256, b"\0" * 17, None),
        (256, b"WV1\0ZZ", None),
        (256, b"WV1\xe4", None),
        (281, b"P0299, P0675,", {"dtcs": ["P0299", "P0675"]}),
        (281, b"", {"dtcs": []}),
        (281, b"\x01\x02", None),
        (1000, b"text", None),
    ],
)
def test_texts(io_id: int, raw: bytes, expected: dict[str, Any] | None) -> None:
    assert attributes_of(io_id, raw) == expected


def test_beacons() -> None:
    uuid, namespace, instance = bytes(range(16)), bytes(range(10)), bytes(range(6))
    raw = b"\x11\x21" + uuid + b"\x02\x0b\x01\x0a\xd0" + b"\x07" + namespace + instance + b"\xc4\x01\x2c\x09\xc4"
    assert attributes_of(385, raw) == {
        "beacon_part": 0x11,
        "beacon1_uuid": uuid.hex(), "beacon1_major": 523, "beacon1_minor": 266, "beacon1_rssi": -48,
        "beacon2_namespace": namespace.hex(), "beacon2_instance": instance.hex(), "beacon2_rssi": -60,
        "beacon2_battery_v": 3.0, "beacon2_temperature_raw": 2500,
    }  # fmt: skip
    assert attributes_of(385, raw[:-1]) is None, "never half of it"
    assert attributes_of(385, b"") is None


@pytest.mark.parametrize("io_id", [548, 10828, 10829, 10831, 11317])
@pytest.mark.parametrize(
    ("parameter", "raw", "expected"),
    [
        (0, b"\xc6", {"tag1_rssi": -58}),
        (1, b"\xba\xbb", {"tag1_id": "babb"}),
        (2, b"\x80\x6d", {"tag1_beacon_data": "806d", "tag1_voltage_mv": 3090}),
        (2, b"\x40\x6d", {"tag1_beacon_data": "406d", "tag1_low_battery": True}),
        (2, b"\x80", {"tag1_beacon_data": "80"}),
        (2, b"", {"tag1_parameter2": ""}),
        (5, b"EYE 1", {"tag1_name": "EYE 1"}),
        (5, b"\xff", {"tag1_parameter5": "ff"}),
        (6, b"\xff\x9c", {"tag1_temperature_raw": -100}),
        (7, b"\x2d", {"tag1_humidity_pct": 45}),
        (8, b"\x01", {"tag1_magnet": True}),
        (9, b"\x00", {"tag1_motion": False}),
        (10, b"\x01\x00", {"tag1_motion_count": 256}),
        (11, b"\xf6", {"tag1_pitch_deg": -10}),
        (12, b"\xff\x9c", {"tag1_roll_deg": -100}),
        (13, b"\x01", {"tag1_low_battery": True}),
        (14, b"\x0b\xd6", {"tag1_battery_mv": 3030}),
        (14, b"\xd6", {"tag1_parameter14": "d6"}),
        (15, b"\x01\x02\x03\x04\x05\x06", {"tag1_mac": "010203040506"}),
        (99, b"\x01", {"tag1_parameter99": "01"}),
    ],
)
def test_tags(io_id: int, parameter: int, raw: bytes, expected: dict[str, Any]) -> None:
    inner = bytes([parameter, len(raw)]) + raw
    assert attributes_of(io_id, b"\x01" + bytes([len(inner)]) + inner) == expected


def test_several_tags_and_one_that_is_cut_short() -> None:
    raw = b"\x01" + b"\x03\x00\x01\xc6" + b"\x06\x00\x01\xc7\x07\x01\x2d"
    assert attributes_of(548, raw) == {"tag1_rssi": -58, "tag2_rssi": -57, "tag2_humidity_pct": 45}
    assert attributes_of(548, raw + b"\x00") is None
    assert attributes_of(548, raw[:-1]) is None
    assert attributes_of(548, raw + b"\x01\x00") is None
    assert attributes_of(548, b"\x01") == {}
    assert attributes_of(548, b"") is None


@given(st.sampled_from([256, 281, 325, 385, 548]), st.binary(max_size=80))
def test_any_bytes_give_json_or_nothing(io_id: int, raw: bytes) -> None:
    found = attributes_of(io_id, raw)
    assert json.loads(json.dumps(found)) == found
