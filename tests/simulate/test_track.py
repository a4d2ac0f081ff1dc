"""Along a track: files read whole or refused with their line, and vehicles that are where the track says."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.simulate.coverage import Coverage
from signalkeep.simulate.drive import EVENT_CODES
from signalkeep.simulate.scenarios import CITY
from signalkeep.simulate.track import Track, TrackDrive, TrackPart, TrackPoint
from signalkeep.simulate.track_files import read_track

START = datetime(2024, 5, 6, 10, 8, 9, tzinfo=UTC)
STRAIGHT = [TrackPoint(10.0 * number, 52.0 + 0.001 * number, 13.0, 30.0 + number) for number in range(6)]
SQUARE = [
    TrackPoint(60.0 * number, 52.0 + 0.002 * north, 13.0 + 0.002 * east, 30.0)
    for number, (north, east) in enumerate([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
]

CSV = """time,latitude,longitude,altitude_m,speed_kmh
2026-05-01T08:00:00Z,52.5,13.4,34,0
2026-05-01T08:00:10Z,52.501,13.4,35.5,40

2026-05-01T10:00:20+02:00,52.502,13.401,,42
"""
GPX = """<?xml version="1.0" encoding="UTF-8"?>
<gpx version="1.1" creator="by hand" xmlns="http://www.topografix.com/GPX/1/1">
  <trk><trkseg>
    <trkpt lat="52.5" lon="13.4"><ele>34</ele><time>2026-05-01T08:00:00Z</time></trkpt>
    <trkpt lat="52.501" lon="13.4"><ele>35.5</ele><time>2026-05-01T08:00:10Z</time></trkpt>
  </trkseg><trkseg>
    <trkpt lat="52.502" lon="13.401"><time>2026-05-01T08:00:20Z</time></trkpt>
  </trkseg></trk>
</gpx>
"""


def vehicle(track: Track, *, share: float = 0.0, factor: float = 1.0, as_recorded: bool = False) -> TrackDrive:
    part = TrackPart(track, share, factor, as_recorded)
    coverage = Coverage("", CITY, has_gaps=False)
    return TrackDrive(part, random.Random(1), START, EVENT_CODES["teltonika"], coverage)


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "text"), [("a.csv", CSV), ("a.gpx", GPX), ("A.CSV", "\ufeff" + CSV)])
def test_a_file_is_read(name: str, text: str, tmp_path: Path) -> None:
    track = read_track(written(tmp_path, name, text))
    assert [point[:4] for point in track.points[:3]] == [
        (0.0, 52.5, 13.4, 34.0),
        (10.0, 52.501, 13.4, 35.5),
        (20.0, 52.502, 13.401, 0.0),
    ]
    assert [point.speed_kmh for point in track.points[:3]] == ([0, 40, 42] if "csv" in name.lower() else [None] * 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "line 1: missing"),
        ("a.csv", "time,latitude\n", r"line 1: missing \['longitude'\]"),
        ("a.csv", "time,latitude,longitude,fuel\n", r"line 1: unknown columns \['fuel'\]"),
        ("a.csv", "time,latitude,longitude,time\n", "line 1: a column twice"),
        ("a.csv", "time,latitude,longitude\nnoon,1,2\n", "line 2: the time is 'noon'"),
        ("a.csv", "time,latitude,longitude\n2026-05-01T08:00:00Z,91,2\n", "line 2: latitude is 91"),
        ("a.csv", "time,latitude,longitude\n2026-05-01T08:00:00Z,nan,2\n", "line 2: latitude is 'nan'"),
        ("a.csv", "time,latitude,longitude\n2026-05-01T08:00:00Z,,2\n", "line 2: no latitude"),
        ("a.csv", "time,latitude,longitude\n2026-05-01T08:00:00Z,1\n", "line 2: 2 cells under 3 columns"),
        ("a.csv", CSV + "2026-05-01T08:00:20Z,52.5,13.4,34,0\n", "line 6: .* is not later than"),
        ("a.csv", CSV.partition("\n2026-05-01T08:00:10Z")[0], "1 points with a time"),
        ("a.csv", 'time,latitude,longitude\n"2026', "line 2: "),
        ("a.gpx", GPX.replace("<time>2026-05-01T08:00:20Z</time>", ""), "line 7: a point without a time"),
        ("a.gpx", GPX.replace("08:00:10", "07:00:10"), "line 5: .* is not later than"),
        ("a.gpx", GPX.replace('lat="52.502"', 'lat="152"'), "line 7: latitude is 152"),
        ("a.gpx", GPX.replace("</gpx>", ""), "line 10"),
        ("a.gpx", "<gpx/>", "0 points with a time"),
        ("a.gpx", "no xml", "Error parsing XML"),
        ("a.kml", "", "neither .gpx nor .csv"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CallerError, match=message) as refusal:
        read_track(written(tmp_path, name, text))
    assert refusal.value.hint


def test_entities_are_refused_unread(tmp_path: Path) -> None:
    """The billion laughs: a few hundred bytes that would grow to gigabytes."""
    bomb = '<!DOCTYPE gpx [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
    with pytest.raises(CallerError, match="document type"):
        read_track(written(tmp_path, "bomb.gpx", GPX.replace("<gpx", f"{bomb}<gpx", 1)))


def test_files_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TRACK_POINTS_MAX", 2)
    with pytest.raises(CallerError, match="more than 2 points"):
        read_track(written(tmp_path, "a.csv", CSV))
    monkeypatch.setattr(limits, "TRACK_BYTES_MAX", 10)
    with pytest.raises(CallerError, match="larger than"):
        read_track(written(tmp_path, "a.csv", CSV))


def test_what_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(CallerError, match="No such file"):
        read_track(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CallerError, match="not UTF-8"):
        read_track(tmp_path / "b.csv")


def test_an_open_track_is_driven_there_and_back() -> None:
    track = Track(STRAIGHT)
    assert not track.is_loop
    assert track.period_s == 100
    assert track.times_s == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]
    one = vehicle(track)
    found = [one.step(START + timedelta(seconds=second)) for second in range(1, 200)]
    assert [signal.latitude for signal in (found[9], found[49], found[89], found[99], found[109])] == [
        52.001, 52.005, 52.001, 52.0, 52.001,
    ]  # fmt: skip
    assert {signal.course_deg for signal in found} == {0.0, 180.0}
    meters = [signal.attributes["odometer_m"] for signal in found]
    assert all(11 <= after - before <= 12 for before, after in pairwise(meters))
    assert {signal.speed_kmh for signal in found} == {40.0}


def test_a_closed_track_is_a_loop() -> None:
    track = Track(SQUARE)
    assert track.is_loop
    assert track.period_s == 240
    assert track.times_s == [0, 60, 120, 180]
    one = vehicle(track)
    places = [one.step(START + timedelta(seconds=60 * number + 1)) for number in range(8)]
    assert [(one.latitude, one.longitude) for one in places[:4]] == [
        (one.latitude, one.longitude) for one in places[4:]
    ]


def test_ends_that_lie_close_are_joined_by_driving() -> None:
    track = Track([*SQUARE[:-1], SQUARE[-1]._replace(latitude=52.001)])
    assert track.is_loop
    assert track.period_s == pytest.approx(240 + 0.001 * 111_195 / 30 * 3.6)


def test_vehicles_start_at_different_places_and_a_factor_makes_them_faster() -> None:
    track = Track(STRAIGHT)
    later = vehicle(track, share=0.3).step(START + timedelta(seconds=1))
    assert later.latitude == pytest.approx(52.0031)
    fast = vehicle(track, factor=2.0)
    signal = fast.step(START + timedelta(seconds=5))
    assert signal.latitude == pytest.approx(52.001)
    assert signal.speed_kmh == 80


def test_as_recorded_records_are_due_at_the_times_of_the_track() -> None:
    track = Track([STRAIGHT[0], STRAIGHT[1], STRAIGHT[3], STRAIGHT[5]])
    part = TrackPart(track, 0.0, 1.0, True)
    assert [part.due_s(order) for order in range(1, 9)] == [0, 10, 30, 50, 70, 90, 100, 110]
    second = TrackPart(track, 0.5, 2.0, True)
    due = [second.due_s(order) for order in range(1, 5)]
    assert [after - before for before, after in pairwise(due)] == [10, 10, 5]
    one = vehicle(track, share=0.5, factor=2.0, as_recorded=True)
    places = [one.step(START + timedelta(seconds=due_s)).latitude for due_s in due]
    assert places == pytest.approx([52.005, 52.003, 52.001, 52.0], abs=1e-6)


def test_where_it_stands_for_long_the_engine_is_off() -> None:
    track = Track([STRAIGHT[0], STRAIGHT[1], STRAIGHT[1]._replace(at_s=400.0), STRAIGHT[2]._replace(at_s=410.0)])
    one = vehicle(track)
    found = {second: one.step(START + timedelta(seconds=second)) for second in (5, 200, 405)}
    assert [signal.attributes["ignition"] for signal in found.values()] == [True, False, True]
    assert found[200].event_code == found[405].event_code == "239"
    assert found[200].speed_kmh == 0
    assert found[200].course_deg == 0


def test_recorded_speeds_and_courses_are_kept() -> None:
    points = [point._replace(speed_kmh=50.0 + 10 * number, course_deg=7.0) for number, point in enumerate(STRAIGHT)]
    signal = vehicle(Track(points)).step(START + timedelta(seconds=15))
    assert (signal.speed_kmh, signal.course_deg) == (65, 7)
