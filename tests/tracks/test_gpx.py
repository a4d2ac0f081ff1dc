"""GPX: points with their lines; what is broken costs only itself, or what comes after."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.tracks import gpx
from signalkeep.tracks.gpx import of_bytes

HEAD = '<?xml version="1.0"?>\n<gpx version="1.1" xmlns="http://www.topografix.com/GPX/1/1">\n<trk><trkseg>\n'
TAIL = "</trkseg></trk>\n</gpx>\n"
POINT = '<trkpt lat="52.52" lon="13.405"><ele>34.5</ele><time>2026-05-06T12:00:00Z</time></trkpt>\n'
NOON_S = datetime(2026, 5, 6, 12, tzinfo=UTC).timestamp()


def around(*points: str) -> bytes:
    return (HEAD + "".join(points) + TAIL).encode()


def test_a_point() -> None:
    found = of_bytes(around(POINT))
    (one,) = found.readings
    assert (one.time_s, one.latitude, one.longitude, one.altitude_m) == (NOON_S, 52.52, 13.405, 34.5)
    assert one.fix_valid
    assert one.speed_kmh is one.course_deg is one.satellites is None
    assert (found.lines, found.skipped_count) == ([4], 0)


def test_all_that_a_point_can_say() -> None:
    (one,) = of_bytes(
        around(
            '<trkpt lat="-1.5" lon="-70"><time>2026-05-06T14:00:00.250+02:00</time><course>90</course>'
            "<fix>3d</fix><sat>7</sat><hdop>1.25</hdop><pdop>2</pdop>"
            '<extensions><x:TrackPointExtension xmlns:x="urn:x"><x:speed>10</x:speed></x:TrackPointExtension>'
            "</extensions></trkpt>"
        )
    ).readings
    assert one.time_s == NOON_S + 0.25
    assert (one.speed_kmh, one.course_deg, one.satellites) == (36.0, 90.0, 7)
    assert one.attributes == {"hdop": 1.25, "pdop": 2.0}


def test_no_fix_is_said() -> None:
    (one,) = of_bytes(around(POINT.replace("<ele>", "<fix>none</fix><ele>"))).readings
    assert not one.fix_valid


def test_points_without_a_time_and_of_other_centuries_are_kept() -> None:
    found = of_bytes(
        around(POINT, POINT.replace("<time>2026-05-06T12:00:00Z</time>", ""), POINT.replace("2026", "1901"))
    )
    assert [one.time_s for one in found.readings] == [NOON_S, None, datetime(1901, 5, 6, 12, tzinfo=UTC).timestamp()]
    assert found.readings[1].received_s == NOON_S


def test_a_position_off_the_globe_is_left_for_the_rules() -> None:
    (one,) = of_bytes(around(POINT.replace("52.52", "152.52"))).readings
    assert one.latitude == 152.52


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (POINT.replace("52.52", "north"), "lat is 'north'"),
        (POINT.replace("52.52", "nan"), "lat is 'nan'"),
        (POINT.replace('lon="13.405"', ""), "without lat and lon"),
        (POINT.replace("34.5", "high"), "ele is 'high'"),
        (POINT.replace("2026-05-06T12:00:00Z", "yesterday"), "the time is 'yesterday'"),
    ],
)
def test_a_broken_point_costs_only_itself(broken: str, why: str) -> None:
    found = of_bytes(around(POINT, broken, POINT))
    assert found.lines == [4, 6]
    assert [(one.line, why in one.why) for one in found.skipped] == [(5, True)]


def test_xml_that_breaks_off_costs_what_comes_after() -> None:
    found = of_bytes(around(POINT, POINT)[:-60])
    assert len(found.readings) == 1
    assert found.skipped_count == 1
    assert "what follows was not read" in found.skipped[0].why


def test_a_document_type_is_refused() -> None:
    with pytest.raises(CallerError, match="document type"):
        of_bytes(b'<?xml version="1.0"?><!DOCTYPE gpx [<!ENTITY a "aaaa">]><gpx>&a;</gpx>')


def test_waypoints_and_routes_are_no_track() -> None:
    assert of_bytes(b'<gpx><wpt lat="1" lon="2"/><rte><rtept lat="1" lon="2"/></rte></gpx>').readings == []


def test_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "track.gpx"
    path.write_bytes(around(POINT, POINT, POINT))
    assert len(gpx.readings(path).readings) == 3
    monkeypatch.setattr(limits, "TRACK_POINTS_MAX", 2)
    with pytest.raises(CallerError, match="more than 2 points"):
        gpx.readings(path)
    monkeypatch.setattr(limits, "TRACK_BYTES_MAX", 100)
    with pytest.raises(CallerError, match="larger than"):
        gpx.readings(path)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(CallerError, match="No such file"):
        gpx.readings(Path("/nowhere.gpx"))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_no_bytes_break_the_reader(data: bytes) -> None:
    found = of_bytes(around(POINT)[:150] + data)
    assert len(found.lines) == len(found.readings)


def test_skipped_lines_are_counted_beyond_those_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRACK_SKIPPED_LINES_MAX", 2)
    found = of_bytes(around(*[POINT.replace("52.52", "north")] * 5))
    assert (found.skipped_count, len(found.skipped)) == (5, 2)
