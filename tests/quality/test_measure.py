"""The measure itself: a perfect judge gets full marks, a blind and a trigger-happy one do not; and a small real run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.judge import Judge
from signalkeep.simulate.faults import KINDS
from signalkeep.simulate.planting import Planted
from tests.quality import measure
from tests.quality.answers import compared
from tests.quality.drives import backlogs, clean_day
from tests.quality.explains import EXPLAINS, Explains
from tests.quality.judging import judged_drive, past_of
from tests.quality.measure import Result, drives, is_sound
from tests.quality.real import judged_tracks
from tests.quality.score import JudgedDrive, Shot, Tally, score
from tests.tracks.test_nmea import sentence

RULE: Final = "KIN-01"
MAP: Final = {
    "teleport": Explains(("KIN-01",), ("KIN-04",)),
    "gap": Explains(("TIM-08",)),
    "tunnel": Explains(),
}
TIMES_S: Final = [float(10 * n) for n in range(1000)]


def at(second: float) -> datetime:
    return datetime.fromtimestamp(second, UTC)


def episode(begin_s: float, end_s: float, kind: str = "teleport", above: bool | None = True) -> Planted:
    return Planted(
        device_number="1", kind=kind, begins_at=at(begin_s), ends_at=at(end_s), records=(at(begin_s),), magnitude=1.0,
        happened_from=at(begin_s), happened_to=at(end_s), look_alike=kind == "tunnel", above=above,
    )  # fmt: skip


PLANTED: Final = (episode(1000, 1030), episode(4000, 4000), episode(7000, 7020, "gap"))


def tally(planted: tuple[Planted, ...], *shots_s: float | None, rule: str = RULE) -> Tally:
    drive = JudgedDrive(TIMES_S, planted, [Shot(rule, shot_s) for shot_s in shots_s])
    return score([drive], [rule], MAP)[rule]


def marks(one: Tally) -> tuple[float | None, float | None]:
    return one.recall, one.precision


def test_a_perfect_judge() -> None:
    assert marks(tally(PLANTED, 1000, 1010, 1020, 1030, 4000)) == (1.0, 1.0)


def test_a_blind_judge() -> None:
    found = tally(PLANTED)
    assert marks(found) == (0.0, None)
    assert found.missed == {"teleport": 2}


def test_a_trigger_happy_judge() -> None:
    assert marks(tally(PLANTED, *TIMES_S)) == (1.0, 1.0)  # one alarm that never ends
    found = tally(PLANTED, *TIMES_S[::2])
    assert found.recall == 1.0
    assert found.false_hits > 480
    apart = tally(PLANTED, 1000, 4000, *(float(second) for second in (100, 2500, 5500, 8000, 9900)))
    assert marks(apart) == (1.0, 2 / 7)


def test_one_record_before_and_after_still_belongs_to_an_episode() -> None:
    for second in (990, 1040):
        assert (tally(PLANTED, second).found, tally(PLANTED, second).false) == (1, 0)
    for second in (980, 1050):
        assert (tally(PLANTED, second).found, tally(PLANTED, second).false) == (0, 1)


def test_hits_on_successive_records_belong_together() -> None:
    """A return after a jump that was taken for a move is part of the same alarm."""
    assert tally(PLANTED, 1030, 1040, 1050, 1060).false == 0
    assert tally(PLANTED, 1030, 1050, 1060).false == 1


def test_false_hits_within_a_quarter_of_an_hour_are_one_alarm() -> None:
    found = tally(PLANTED, 2000, 2100, 2500, 5000)
    assert (found.false, found.false_hits, found.false_at) == (2, 4, {"": 2})


def test_what_could_be_said_either_way_counts_in_neither() -> None:
    near = (episode(1000, 1030, above=None),)
    assert marks(tally(near, 1010)) == (None, None)
    assert marks(tally(near)) == (None, None)


def test_a_fault_that_is_nothing_to_be_told_of_makes_a_false_alarm() -> None:
    below = (episode(1000, 1030, above=False), episode(4000, 4000))
    found = tally(below, 1010, 4000)
    assert marks(found) == (1.0, 0.5)
    assert (found.false_below, found.false_at) == (1, {"teleport": 1})
    assert tally(below, 4000).precision == 1.0


def test_what_follows_from_a_fault_is_neither_right_nor_wrong() -> None:
    assert marks(tally(PLANTED, 1010, rule="KIN-04")) == (None, None)
    assert tally(PLANTED, 2000, rule="KIN-04").false == 1


def test_a_rule_that_adds_up_over_the_day_may_hit_anywhere_in_it() -> None:
    drive = JudgedDrive(TIMES_S, (episode(1000, 1030, "gap"),), [Shot("TIM-08", 5000.0)])
    adding = {"gap": Explains(("TIM-08",), all_day=("TIM-08",))}
    assert score([drive], ["TIM-08"], MAP)["TIM-08"].false == 1
    found = score([drive], ["TIM-08"], adding)["TIM-08"]
    assert (found.false, found.found) == (0, 0)


def test_another_fault_is_no_excuse() -> None:
    found = tally(PLANTED, 7010)
    assert (found.false, found.false_at) == (1, {"gap": 1})


def test_alarms_on_look_alikes_are_false_and_counted() -> None:
    found = tally((episode(1000, 1030, "tunnel", above=False),), 1010)
    assert (found.false, found.false_on_look_alikes, found.false_at) == (1, 1, {"tunnel": 1})


def test_what_is_said_of_the_whole_day_finds_what_lies_in_it() -> None:
    assert marks(tally(PLANTED, None, rule="TIM-08")) == (1.0, 1.0)
    assert tally(PLANTED, None, rule="POS-02").false == 1


def test_every_kind_is_mapped_to_rules_that_there_are() -> None:
    assert EXPLAINS.keys() == KINDS.keys()
    for kind, explains in EXPLAINS.items():
        assert bool(explains.must) is not KINDS[kind].look_alike
        assert not set(explains.must) & set(explains.may)


@pytest.fixture(scope="module")
def judged() -> list[JudgedDrive]:
    return list(drives(24, 1, Judge()))


def test_a_real_run_finds_what_was_planted(judged: list[JudgedDrive]) -> None:
    found = score(judged, ["KIN-01", "POS-01"], EXPLAINS)
    for one in found.values():
        assert one.episodes > 0
        assert one.recall == 1.0
        assert one.precision is not None
        assert one.precision >= 0.7


def test_a_real_run_without_its_judge_finds_nothing(judged: list[JudgedDrive]) -> None:
    found = score([one._replace(shots=[]) for one in judged], ["KIN-01"], EXPLAINS)
    assert found["KIN-01"].recall == 0.0


def test_sound_days_stay_sound(judged: list[JudgedDrive]) -> None:
    sound = [one for one in judged if is_sound(one)]
    assert len(sound) == 6
    assert sum(len(one.times_s) for one in sound) > 3000
    assert not [shot for one in sound for shot in one.shots if shot.rule in {"KIN-01", "POS-01"}]


def test_where_records_are_missing_in_truth_is_part_of_an_episode_too() -> None:
    elsewhere = msgspec.structs.replace(episode(1000, 1030), happened_from=at(6000), happened_to=at(6100))
    assert tally((elsewhere,), 6050).false == 0
    assert tally((elsewhere,), 5000).false == 1


def test_hours_without_network_are_labelled() -> None:
    day = clean_day("gaps", scenario="long-haul")
    found = backlogs("1", day)
    assert found
    assert all(one.look_alike and one.kind == "backlog" for one in found)
    late = [made.at for made in day if (made.leaves_at - made.at).total_seconds() > 60]
    assert late
    assert all(any(one.begins_at <= moment <= one.ends_at for one in found) for moment in late)
    assert backlogs("1", clean_day("gaps", scenario="long-haul", has_gaps=False)) == []


def test_the_same_seed_gives_the_same(judged: list[JudgedDrive]) -> None:
    again = drives(24, 1, Judge())
    for one, _ in zip(judged, range(3), strict=False):
        other = next(again)
        assert (one.planted, one.shots) == (other.planted, other.shots)


def test_a_day_of_two_dates_is_judged_as_two() -> None:
    clean = clean_day("two dates", hours=30.0, scenario="long-haul")
    done = judged_drive("1", clean, (), past=past_of(clean), interval_s=10, judge=Judge())
    assert len(done.times_s) == len(clean)
    assert done.times_s == sorted(done.times_s)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(measure, "SAVED", tmp_path / "docs" / "measured.json")
    monkeypatch.setattr(measure, "TRACKS_SAVED", tmp_path / "docs" / "tracks.json")
    return tmp_path


def test_the_command(saved: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tracks = saved / "tracks"
    tracks.mkdir()
    rows = [f"2026-05-06T12:00:{second:02d}Z,{52.5 + (second == 30)},13.4" for second in range(60)]
    (tracks / "jump.csv").write_text("\n".join(["time,latitude,longitude", *rows]))
    assert measure.main(["--count", "4", "--tracks", str(tracks), "--save"]) == 0
    shown = capfd.readouterr().out
    assert "4 device-days, 1 of them sound" in shown
    assert "KIN-01" in shown
    assert "jump.csv" in shown
    result = msgspec.json.decode((saved / "docs" / "measured.json").read_bytes(), type=Result)
    assert result.days == 4
    assert {one.rule for one in result.rules} <= BY_ID.keys()
    (track,) = json.loads((saved / "docs" / "tracks.json").read_bytes())
    assert (track["readings"], track["alarms"]["KIN-01"], track["hits"]["KIN-01"]) == (60, 1, 1)
    assert measure.main(["--count", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["planted"]["days"] == 2


def test_recordings_that_are_none_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("nothing of a track\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert judged_tracks(tmp_path) == []


def test_a_measure_that_breaks_a_rule_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole: Callable[[int, int], Result] = measure.measure

    def breaking(count: int, seed: int) -> Any:
        return msgspec.structs.replace(whole(count, seed), broken={"KIN-01": 3})

    monkeypatch.setattr(measure, "measure", breaking)
    assert measure.main(["--count", "1"]) == 1
    assert "checks that raised: {'KIN-01': 3}" in capfd.readouterr().err


def test_the_reader_is_compared_with_answers(tmp_path: Path) -> None:
    body = "GPRMC,12000{},A,5231.2000,N,01324.3000,E,000.0,084.4,060509,,,A"
    (tmp_path / "one.log").write_text("".join(sentence(body.format(second)) for second in range(6)))
    tpv = '{{"class":"TPV","mode":3,"time":"{}-05-06T12:00:0{}.000Z","lat":{},"lon":13.405}}'
    lines = [tpv.format(2009, 0, 52.52), tpv.format(2009, 1, 52.53), "$no json", "{no json", tpv.format(2009, 9, 52.52)]
    (tmp_path / "one.log.chk").write_text(
        "\n".join([*lines, tpv.format(2009, 2, 52.52).replace("2009-05-06", "2028-12-20")])
    )
    (tmp_path / "other.log").write_bytes(b"\xb5b\x01\x07binary")
    assert compared(tmp_path) == [("one.log", 4, 2)]
