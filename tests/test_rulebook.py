"""Which rules hold for whom, with which limits; and that what cannot be used is refused with its place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.errors import SettingsError
from signalkeep.rulebook import Rulebook, rulebook_of
from signalkeep.rules.catalogue import BY_ID, RULES
from signalkeep.rules.contract import LAST_BIT, OWN_FIRST_BIT, Rule
from signalkeep.sections import QualitySettings

TELEPORT = BY_ID["KIN-01"]
OWN = {"id": "OWN-01", "title": "Fast", "when": "speed_kmh > 90"}


def book(foreign: list[Rule] | None = None, **settings: Any) -> Rulebook:
    return Rulebook(QualitySettings.model_validate(settings), foreign or [])


def speed(made: Rulebook, model: str = "", customer: str = "") -> float | None:
    limits = made.limits_of(TELEPORT, model, customer)
    return None if limits is None else limits["speed_kmh_max"]


def another(**changes: Any) -> Rule:
    return msgspec.structs.replace(TELEPORT, **({"id": "ACME-01", "bit": None} | changes))


def test_the_customer_is_right_then_the_model_then_the_settings_then_the_rule() -> None:
    made = book(
        rules={"KIN-01": {"speed_kmh_max": 160}},
        models={"FMB": {"KIN-01": {"speed_kmh_max": 150}}, "OFF": {"KIN-01": {"enabled": False}}},
        customers={"ACME": {"KIN-01": {"speed_kmh_max": 140}}, "ON": {"KIN-01": {"enabled": True}}},
    )
    assert speed(book()) == 200
    assert speed(made) == 160
    assert speed(made, "FMB") == 150
    assert speed(made, "FMB", "ACME") == 140
    assert speed(made, "OFF") is None
    assert speed(made, "OFF", "ON") == 160
    assert [rule.id for rule in RULES if rule.id not in {one.rule.id for one in made.profile("OFF", "").recent}]


def test_rules_are_named_as_people_write_them() -> None:
    assert speed(book(rules={"kin-01": {"speed_kmh_max": "160"}})) == 160


def test_rules_of_users_hold_where_they_say() -> None:
    made = book(own=[OWN | {"models": ["FMB"], "customers": ["ACME"]}])
    (rule,) = made.own
    assert made.limits_of(rule, "FMB", "ACME") == {}
    assert made.limits_of(rule, "FMB", "") is None
    assert made.limits_of(rule, "", "ACME") is None


@pytest.mark.parametrize(
    ("foreign", "settings", "said"),
    [
        ([another(id="acme")], {}, "acme: an id is"),
        ([another(id="KIN-01")], {}, "KIN-01: there are two rules"),
        ([another(bit=9)], {}, "ACME-01: bits are given by the database"),
        ([another(limits={})], {}, "ACME-01: a rule that re-anchors"),
        ([another()], {"rules": {"ACME-01": {"speed": 1}}}, "quality.rules.ACME-01.speed: no such limit"),
        ([another()], {"models": {"X": {"ACME-02": {}}}}, "quality.models.X.ACME-02: no such rule"),
        ([another(id=f"ACME-{n:02}") for n in range(LAST_BIT - OWN_FIRST_BIT + 2)], {}, "11 rules were added"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(foreign: list[Rule], settings: Any, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        book(foreign, **settings)
    assert said in refused.value.message


PACKAGE = """
from signalkeep.rules.catalogue import BY_ID
import msgspec
RULE = msgspec.structs.replace(BY_ID["POS-02"], id="ACME-01", bit=None)
MANY = [RULE, msgspec.structs.replace(RULE, id="ACME-02")]
NOTHING = [1]
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("acme_rules_of_a_test:RULE", ["ACME-01"]),
        ("acme_rules_of_a_test:MANY", ["ACME-01", "ACME-02"]),
        ("acme_rules_of_a_test:NOTHING", "gives a int"),
        ("acme_rules_of_a_test:MISSING", "cannot be loaded: AttributeError"),
        ("no_such_package:RULE", "cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_rules_of_packages(
    value: str, expected: list[str] | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme_rules_of_a_test.py").write_text(PACKAGE, encoding="utf-8")
    about = tmp_path / "acme_rules-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-rules\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text(f"[signalkeep.rules]\nacme = {value}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        if isinstance(expected, list):
            assert [rule.id for rule in rulebook_of(QualitySettings()).own] == expected
            return
        with pytest.raises(SettingsError, match="entry point acme = ") as refused:
            rulebook_of(QualitySettings())
        assert expected in refused.value.message
    finally:
        sys.modules.pop("acme_rules_of_a_test", None)


def test_the_fingerprint_changes_with_every_answer_that_may_change_and_with_nothing_else() -> None:
    usual = book().fingerprint
    assert book().fingerprint == usual
    assert book(sweep_every_s=5, sample_days=7).fingerprint == usual
    others = [
        book(rules={"KIN-01": {"speed_kmh_max": 160}}),
        book(models={"FMB": {"KIN-01": {"enabled": False}}}),
        book(customers={"ACME": {"KIN-01": {"enabled": False}}}),
        book(own=[OWN]),
        book(own=[OWN | {"when": "speed_kmh > 91"}]),
        book([another()]),
        book([another(version=2)]),
    ]
    prints = {usual, *(other.fingerprint for other in others)}
    assert len(prints) == len(others) + 1
