"""NMEA: sentences become readings, checked against worked examples; nothing that a file can hold raises."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep.tracks.contract import Recording
from signalkeep.tracks.nmea import of_bytes


def sentence(body: str) -> str:
    """With its checksum and line end."""
    return f"${body}*{reduce(lambda total, char: total ^ ord(char), body, 0):02X}\r\n"


def read(*bodies: str) -> Recording:
    return of_bytes("".join(map(sentence, bodies)).encode())


def stamp(year: int, month: int, day: int, hour: int, minute: int = 0, second: int = 0) -> float:
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


RMC = "GPRMC,120000.00,A,5231.2000,N,01324.3000,E,027.0,084.4,060526,,,A"
GGA = "GPGGA,120000.00,5231.2000,N,01324.3000,E,1,08,0.9,34.5,M,44.0,M,,"


def test_rmc_alone() -> None:
    (one,) = read(RMC).readings
    assert one.time_s == one.wire_s == one.received_s == stamp(2026, 5, 6, 12)
    assert (one.latitude, one.longitude) == (52.52, 13.405)
    assert one.speed_kmh == pytest.approx(50.004)
    assert one.course_deg == 84.4
    assert one.fix_valid
    assert one.satellites is None
    assert one.protocol == "nmea"


def test_sentences_of_one_moment_are_one_reading() -> None:
    gsa = "GNGSA,A,3,01,02,03,,,,,,,,,,2.5,1.3,2.1"
    found = read(GGA, gsa, RMC)
    (one,) = found.readings
    assert found.lines == [1]
    assert (one.satellites, one.altitude_m) == (8, 34.5)
    assert one.speed_kmh == pytest.approx(50.004)
    assert one.attributes == {"hdop": 1.3, "pdop": 2.5}


def test_another_time_is_another_reading() -> None:
    found = read(GGA, RMC, GGA.replace("120000", "120001"), RMC.replace("120000", "120001"))
    assert [one.time_s for one in found.readings] == [stamp(2026, 5, 6, 12), stamp(2026, 5, 6, 12, 0, 1)]
    assert found.lines == [1, 3]


def test_south_and_west_are_negative() -> None:
    (one,) = read("GNRMC,000001,A,3315.5,S,07032.25,W,,,060526,,").readings
    assert one.latitude == pytest.approx(-33.2583333)
    assert one.longitude == pytest.approx(-70.5375)
    assert one.speed_kmh is None


@pytest.mark.parametrize("talker", ["GP", "GN", "GL", "GA", "BD", "QZ"])
def test_any_talker(talker: str) -> None:
    assert len(read(RMC.replace("GP", talker, 1)).readings) == 1


def test_no_fix_is_a_reading_without_a_valid_one() -> None:
    (one,) = read("GPRMC,120000,V,,,,,,,060526,,,N").readings
    assert not one.fix_valid
    assert one.latitude is None
    (warned,) = read(RMC.replace(",A,", ",V,", 1)).readings
    assert not warned.fix_valid
    assert warned.latitude == 52.52


def test_if_two_sentences_disagree_there_is_no_fix() -> None:
    (one,) = read(GGA.replace(",E,1,", ",E,0,"), RMC).readings
    assert not one.fix_valid


def test_dead_reckoning_is_said() -> None:
    (by_rmc,) = read(RMC[:-1] + "E").readings
    (by_gga,) = read(GGA.replace(",E,1,", ",E,6,")).readings
    assert by_rmc.attributes == {"fix_mode": "estimated"}
    assert by_gga.attributes["fix_mode"] == "estimated"


def test_a_date_holds_over_midnight() -> None:
    gga = [GGA.replace("120000.00", time) for time in ("235959", "000000", "000001")]
    found = read(RMC.replace("120000.00", "235958"), *gga, RMC.replace("120000.00", "000002").replace("0605", "0705"))
    assert [one.time_s for one in found.readings] == [stamp(2026, 5, 6, 23, 59, 58) + n for n in range(5)]


def test_before_any_date_there_is_no_time() -> None:
    found = read(GGA, GGA.replace("120000", "120001"), RMC.replace("120000", "120002"))
    assert [one.time_s for one in found.readings] == [None, None, stamp(2026, 5, 6, 12, 0, 2)]


def test_zda_names_the_century() -> None:
    """Two digits cannot: a receiver whose weeks have turned over may say 1999, or 2098."""
    found = read("GPZDA,115959,06,05,1926,00,00", RMC.replace("120000", "115959"), RMC)
    assert [one.time_s for one in found.readings] == [stamp(1926, 5, 6, 11, 59, 59), stamp(1926, 5, 6, 12)]
    (last_century,) = read(RMC.replace("060526", "220899")).readings
    assert last_century.time_s == stamp(1999, 8, 22, 12)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (sentence(RMC)[:-4] + "00", "the checksum is 00, of what came"),
        (f"${RMC}\r\n", "no checksum"),
        (sentence(RMC)[:30], "no checksum, or broken off"),
        (sentence(RMC.replace("120000", "250000")), "the time of day is '250000.00'"),
        (sentence(RMC.replace("060526", "310226")), "the date is '310226'"),
        (sentence(RMC.replace("5231.2000", "5291.2000")), "the angle is '5291.2000,N'"),
        (sentence(RMC.replace(",N,", ",X,")), "the angle is '5231.2000,X'"),
        (sentence(RMC.replace("027.0", "fast")), "speed is 'fast'"),
        (sentence("GPRMC,120000,A"), "RMC with 2 fields"),
        (sentence("GPZDA,120000,40,05,2026,00,00"), "the date is '40-05-2026'"),
        ("what is this\n", "no sentence"),
    ],
)
def test_a_line_that_makes_no_sense_costs_only_itself(line: str, why: str) -> None:
    found = of_bytes((sentence(RMC) + line.rstrip("\r\n") + "\r\n" + sentence(RMC.replace("1200", "1201"))).encode())
    assert len(found.readings) == 2
    assert found.lines == [1, 3]
    assert found.skipped_count == 1
    assert found.skipped[0].line == 2
    assert why in found.skipped[0].why


def test_what_is_none_of_ours_is_passed_over() -> None:
    found = of_bytes(b"# a comment\n\n!AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0*4A\n" + sentence("GPGSV,1").encode())
    assert (found.readings, found.skipped_count) == ([], 0)


def test_a_sentence_may_follow_noise_on_its_line() -> None:
    assert len(of_bytes(b"\xb5b\x01\x02" + sentence(RMC).encode()).readings) == 1


def test_a_position_off_the_globe_is_left_for_the_rules() -> None:
    (one,) = read(RMC.replace("5231.2000", "9931.2000")).readings
    assert one.latitude == pytest.approx(99.52)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([sentence(RMC).encode(), sentence(GGA).encode()]), max_size=8))
@settings(deadline=None)
def test_no_bytes_break_the_reader(lines: list[bytes]) -> None:
    found = of_bytes(b"\n".join(lines))
    assert len(found.lines) == len(found.readings)


@given(st.text(alphabet="0123456789.,-NSEWAVGPRMCZD", max_size=70))
@settings(deadline=None)
def test_no_fields_break_the_reader(body: str) -> None:
    for kind in ("GPRMC", "GPGGA", "GNGSA", "GPZDA"):
        found = read(f"{kind},{body}")
        assert len(found.readings) + found.skipped_count <= 1
