"""No rule is forgotten, every kind has words and limits, and docs/devices.md says what holds."""

from __future__ import annotations

from signalkeep.kinds import DEVICE_KINDS
from signalkeep.rules.catalogue import BY_ID
from signalkeep.rules.contract import Scope, Severity
from signalkeep.rules.troubles import LIMITS, LINES, Heard, Trouble, line_of
from tests.rules.troubles_page import PAGE, written


def test_every_rule_has_its_line_and_no_other() -> None:
    assert set(LINES) == set(BY_ID)
    assert all(line.why for line in LINES.values())


def test_a_rule_that_is_only_worth_knowing_alarms_nobody_without_a_word_about_it() -> None:
    told = {rule for rule, line in LINES.items() if line.trouble and BY_ID[rule].severity is Severity.INFO}
    assert told == {"VEH-05", "DEV-04"}
    assert all("only worth knowing of a signal" in LINES[rule].why for rule in told)


def test_rules_of_the_fleet_speak_of_no_device() -> None:
    assert all(LINES[rule].trouble is None for rule in BY_ID if BY_ID[rule].scope is Scope.FLEET)


def test_every_rule_that_spoils_positions_and_is_no_mere_note_counts_as_a_fault_of_them() -> None:
    spoiling = {one.id for one in BY_ID.values() if one.spoils_position and one.severity is not Severity.INFO}
    assert spoiling == {rule for rule, line in LINES.items() if line.trouble is Trouble.POSITION_FAULTS}


def test_only_clocks_are_heard_by_arrival() -> None:
    by_arrival = {rule for rule, line in LINES.items() if line.heard is Heard.ARRIVAL}
    assert by_arrival == {"TIM-01", "TIM-02", "TIM-04", "TIM-05"}
    assert {LINES[rule].trouble for rule in by_arrival} == {Trouble.WRONG_CLOCK}


def test_kinds_have_words_and_limits() -> None:
    assert {kind.name for kind in DEVICE_KINDS} == {*map(str, Trouble), "shared_fault"}
    assert set(LIMITS) == set(Trouble)
    for limits in LIMITS.values():
        assert {"good_records", "good_minutes"} <= set(limits)
        assert all(limit.least <= limit.default <= limit.most for limit in limits.values())


def test_an_error_type_whose_limit_is_reached_is_a_trouble_and_a_rule_of_users_is_none() -> None:
    reached = line_of("ERR-7")
    assert reached is not None
    assert reached.trouble is Trouble.ERROR_LIMIT
    assert line_of("OWN-01") is None
    assert line_of("KIN-03") is None


def test_the_page_is_written() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run python -m tests.rules.troubles_page"
