"""What every rule owes: an id and a bit that never change, texts for people, limits that can be set.

A bit names its rule in rows that were written years ago, so the table below is frozen: rules may only be added.
"""

from __future__ import annotations

import re
from typing import Final

import pytest
import typer
from typer.core import TyperGroup

from signalkeep.cli.main import app
from signalkeep.model import Flag
from signalkeep.rules.catalogue import BY_ID, RULES
from signalkeep.rules.contract import FIRST_BIT, OWN_FIRST_BIT, Dimension, Rule, Scope, Severity

FROZEN_BITS: Final[dict[str, int | None]] = {
    "FRM-01": None, "FRM-02": None,
    "ID-01": None, "ID-02": None, "ID-03": None, "ID-04": 52,
    "SCH-01": 8, "SCH-02": None, "SCH-03": 9, "SCH-04": 10,
    "POS-01": 11, "POS-02": 12, "POS-03": 13, "POS-04": 14, "POS-05": 15, "POS-06": 16, "POS-07": 17, "POS-08": 18,
    "POS-09": 19, "POS-10": 20, "POS-11": 21,
    "TIM-01": 22, "TIM-02": 23, "TIM-03": 24, "TIM-04": 25, "TIM-05": 26, "TIM-06": 27, "TIM-07": 28, "TIM-08": 29,
    "TIM-09": 30, "TIM-10": 31,
    "KIN-01": 32, "KIN-02": 33, "KIN-03": 34, "KIN-04": 35, "KIN-05": 36, "KIN-06": 37, "KIN-07": 38, "UNI-01": 39,
    "VEH-01": 40, "VEH-02": 41, "VEH-03": 42, "VEH-04": 43, "VEH-05": 44, "VEH-06": 45, "VEH-07": 46, "VEH-08": 47,
    "VEH-09": 48,
    "DEV-01": 49, "DEV-02": 50, "DEV-03": 51, "DEV-04": None,
    "FLT-01": None, "FLT-02": None, "FLT-03": None,
}  # fmt: skip
ERROR_TYPES: Final = {None: "", 1: "Broken GPS", 2: "Wrong event code"}
ORDER: Final = ("FRM", "ID", "SCH", "TIM", "POS", "KIN", "UNI", "VEH", "DEV", "FLT")
every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


def test_ids_are_unique_and_of_one_form() -> None:
    assert len(BY_ID) == len(RULES)
    assert all(re.fullmatch(r"[A-Z]{2,3}-\d\d", rule.id) for rule in RULES)


def test_bits_are_frozen() -> None:
    assert {rule.id: rule.bit for rule in RULES} == FROZEN_BITS


def test_no_two_rules_share_a_bit_and_none_has_one_of_others() -> None:
    bits = [bit for bit in FROZEN_BITS.values() if bit is not None]
    assert sorted(bits) == list(range(FIRST_BIT, OWN_FIRST_BIT))
    assert max(Flag) < 1 << FIRST_BIT


def test_no_rule_of_the_catalogue_is_missing() -> None:
    assert FROZEN_BITS.keys() == BY_ID.keys()


def test_families_are_asked_in_order() -> None:
    """What a reading shows by itself comes before what is compared, and positions are judged before ways."""
    families = [ORDER.index(rule.id.split("-")[0]) for rule in RULES]
    assert families == sorted(families)


@every_rule
def test_texts_are_there_for_people(rule: Rule) -> None:
    assert rule.title
    assert not rule.title.endswith(".")
    assert rule.meaning.endswith(".")
    assert 1 <= len(rule.causes) <= 4
    assert 1 <= len(rule.actions) <= 3
    for text in (*rule.causes, *rule.actions, rule.source):
        assert text
        assert text == text.strip()
        assert not text.endswith(".")
    assert type(rule.dimension) is Dimension
    assert type(rule.severity) is Severity


@every_rule
def test_limits_can_be_set_around_their_default(rule: Rule) -> None:
    for name, limit in rule.limits.items():
        assert re.fullmatch(r"[a-z0-9_]+", name)
        assert limit.least <= limit.default <= limit.most, name
        assert limit.least < limit.most, name
        assert limit.meaning, name
        assert not limit.meaning.endswith("."), name


@every_rule
def test_a_rule_asks_for_nothing_that_its_scope_does_not_give(rule: Rule) -> None:
    assert rule.error_type in ERROR_TYPES
    assert not rule.reanchors or (rule.spoils_position and "speed_kmh_max" in rule.limits)
    assert not rule.tracks or rule.scope is Scope.RECENT
    assert (rule.in_a_row == 1 and rule.for_s == 0) or rule.scope is Scope.RECENT
    assert rule.in_a_row >= 1
    assert rule.for_s >= 0
    if rule.scope is Scope.FLEET or rule.spoils_position:
        assert (rule.bit is None) is (rule.scope is Scope.FLEET)


def commands() -> set[str]:
    """Every command as it is typed, without the program's name."""
    top = typer.main.get_command(app)
    assert isinstance(top, TyperGroup)
    names = set()
    for name, command in top.commands.items():
        below = command.commands if isinstance(command, TyperGroup) else {}
        names |= {name} | {f"{name} {sub}" for sub in below}
    return names


def test_commands_that_texts_name_exist() -> None:
    named = {
        command
        for rule in RULES
        for text in (rule.meaning, *rule.causes, *rule.actions)
        for command in re.findall(r"`signalkeep ([^`]*)`", text)
    }
    assert named
    assert named <= commands()
