"""The rules of an installation: whose limits hold for whom, what is refused, rules of packages, the fingerprint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from signalkeep.errors import SettingsError
from signalkeep.model import CANARY_MODEL
from signalkeep.rulebook import Rulebook, rulebook_of
from signalkeep.rules.catalogue import BY_ID, RULES
from signalkeep.rules.contract import LAST_BIT, OWN_FIRST_BIT, Limit, Rule, Scope
from signalkeep.sections import QualitySettings

SHIPPED = msgspec.structs.replace(
    BY_ID["POS-01"], id="TST-01", title="Shipped", limits={"level": Limit(5.0, "", "how much", most=9.0)}
)
OTHER = msgspec.structs.replace(SHIPPED, id="TST-02", bit=9)
FOREIGN = msgspec.structs.replace(SHIPPED, id="PKG-01", title="From a package", bit=None)
OWN = {"id": "OWN-01", "title": "Fast", "when": "speed_kmh > 90"}


@pytest.fixture(autouse=True)
def two_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever rules there are."""
    monkeypatch.setattr("signalkeep.rulebook.RULES", (SHIPPED, OTHER))


def settings(**values: Any) -> QualitySettings:
    return QualitySettings.model_validate(values)


def level(book: Rulebook, model: str = "", customer: str = "", rule: Rule = SHIPPED) -> float | None:
    """The limit of a rule; None: it is off."""
    values = book.limits_of(rule, model, customer)
    return None if values is None else values["level"]


def faults(values: QualitySettings, *foreign: Rule) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Rulebook(values, foreign)
    return [line.strip() for line in caught.value.message.splitlines()[1:]]


# Whose limits hold --------------------------------------------------------------------------------------------------


def test_the_rule_then_the_settings_then_the_model_then_the_customer() -> None:
    book = Rulebook(
        settings(
            rules={"TST-01": {"level": 6}},
            models={"FMB920": {"TST-01": {"level": 7}}},
            customers={"Acme": {"TST-01": {"level": 8}}},
        )
    )
    assert level(book, rule=OTHER) == 5
    assert level(book) == level(book, "FMC130", "Nobody") == 6
    assert level(book, "FMB920") == level(book, "FMB920", "Nobody") == 7
    assert level(book, "", "Acme") == level(book, "FMB920", "Acme") == 8


def test_what_is_set_for_some_leaves_the_rest_as_it_is() -> None:
    pair = msgspec.structs.replace(FOREIGN, limits={"level": Limit(5.0, "", ""), "width_m": Limit(2.0, "m", "")})
    book = Rulebook(settings(rules={"PKG-01": {"level": 6}}, models={"A": {"PKG-01": {"width_m": 3}}}), [pair])
    assert book.limits_of(pair, "A", "") == {"level": 6, "width_m": 3}
    assert book.limits_of(pair, "", "") == {"level": 6, "width_m": 2}


@pytest.mark.parametrize("off", [False, "false", "False"])
@pytest.mark.parametrize("on", [True, "true", "TRUE"])
def test_a_rule_can_be_off_for_all_or_for_some_and_on_again(off: object, on: object) -> None:
    book = Rulebook(
        settings(
            rules={"TST-01": {"enabled": off}},
            models={"A": {"TST-01": {"enabled": on, "level": 7}}, "B": {"TST-02": {"enabled": off}}},
            customers={"Acme": {"TST-01": {"enabled": off}}},
        )
    )
    assert (level(book), level(book, "A"), level(book, "A", "Acme")) == (None, 7, None)
    assert [one.rule.id for one in book.profile("", "").alone] == ["TST-02"]
    assert [one.rule.id for one in book.profile("A", "").alone] == ["TST-01", "TST-02"]
    assert [one.rule.id for one in book.profile("B", "").alone] == []


def test_our_own_canary_is_judged_by_no_rule() -> None:
    book = Rulebook(QualitySettings())
    assert [rule.id for rule in book.rules if book.limits_of(rule, CANARY_MODEL, "") is not None] == []


def test_a_profile_has_the_limits_and_is_made_once() -> None:
    book = Rulebook(settings(models={"A": {"TST-01": {"level": "7.5"}}}))
    assert [one.limits["level"] for one in book.profile("A", "x").alone] == [7.5, 5.0]
    assert book.profile("A", "x") is book.profile("A", "x")
    for number in range(10_100):
        book.profile(f"model {number}", "")
    assert [one.limits["level"] for one in book.profile("A", "x").alone] == [7.5, 5.0], "however many models there are"


def test_names_of_models_and_customers_may_come_in_small_letters() -> None:
    """From the environment they all do, and go over what the file says."""
    from_both = {"FMB920": {"TST-01": {"level": 7, "enabled": False}}, "fmb920": {"TST-01": {"enabled": "true"}}}
    book = Rulebook(settings(models=from_both, customers={"acme": {"TST-02": {"level": 8}}}))
    assert level(book, "FMB920") == 7
    assert level(book, "", "ACME", rule=OTHER) == 8


# Rules of users -----------------------------------------------------------------------------------------------------


def test_a_rule_of_users_is_a_rule_like_any_other() -> None:
    own = {**OWN, "for_s": 30, "in_a_row": 3, "dimension": "validity", "severity": "error", "error_type": 7}
    book = Rulebook(settings(own=[own], models={"A": {"OWN-01": {"enabled": False}}}))
    rule = book.rules[-1]
    assert (rule.id, rule.title, rule.scope, rule.for_s, rule.in_a_row) == ("OWN-01", "Fast", Scope.RECENT, 30, 3)
    assert (rule.dimension, rule.severity, rule.error_type, rule.bit) == ("validity", "error", 7, None)
    assert "speed_kmh > 90" in rule.meaning
    assert book.own == [rule]
    assert [one.rule.id for one in book.profile("", "").recent] == ["OWN-01"]
    assert [one.rule.id for one in book.profile("A", "").recent] == []


def test_a_rule_of_users_may_be_for_some_models_or_customers_only() -> None:
    own = [
        {**OWN, "id": "OWN-01", "models": ["FMB920", "FMC130"]}, {**OWN, "id": "OWN-02", "customers": ["Acme"]},
        {**OWN, "id": "OWN-03", "models": ["FMB920"], "customers": ["Acme"]}, {**OWN, "id": "OWN-04"},
    ]  # fmt: skip
    book = Rulebook(settings(own=own))

    def asked(model: str, customer: str) -> list[str]:
        return [one.rule.id for one in book.profile(model, customer).recent]

    assert asked("", "") == ["OWN-04"]
    assert asked("fmb920", "") == ["OWN-01", "OWN-04"]
    assert asked("FMC130", "ACME") == ["OWN-01", "OWN-02", "OWN-04"]
    assert asked("FMB920", "Acme") == ["OWN-01", "OWN-02", "OWN-03", "OWN-04"]


def test_bits_are_those_that_the_database_gives() -> None:
    book = Rulebook(settings(own=[OWN]), [FOREIGN])
    assert [one.asks and one.rule.bit for one in book.profile("", "").recent] == [None]
    book.with_bits({"OWN-01": 55, "PKG-01": 54})
    assert [rule.bit for rule in book.own] == [54, 55]
    assert [one.rule.bit for one in book.profile("", "").recent] == [55], "profiles know it, too"
    assert book.rules[0] is SHIPPED


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"rules": {"PKG-99": {}}}, "quality.rules.PKG-99: no such rule"),
        ({"models": {"A B": {"PKG-99": {}}}}, "quality.models.A B.PKG-99: no such rule"),
        ({"customers": {"Acme Inc.": {"X": {}}}}, "quality.customers.Acme Inc..X: no such rule"),
        ({"rules": {"x.TST-01": {}}}, "quality.rules.X.TST-01: no such rule"),
        ({"rules": {"PKG-01": {"size": 1}}}, "quality.rules.PKG-01.size: no such limit; there are enabled, level"),
        ({"rules": {"PKG-01": {"level": 10}}}, "quality.rules.PKG-01.level: this is no number from 0 to 9"),
        ({"models": {"A": {"PKG-01": {"level": -1}}}}, "quality.models.A.PKG-01.level: this is no number from 0 to 9"),
        ({"customers": {"A": {"PKG-01": {"level": "x"}}}}, "quality.customers.A.PKG-01.level: this is no number"),
        ({"rules": {"PKG-01": {"level": True}}}, "quality.rules.PKG-01.level: this is no number"),
        ({"rules": {"PKG-01": {"level": None}}}, "quality.rules.PKG-01.level: this is no number"),
        ({"rules": {"PKG-01": {"level": float("nan")}}}, "quality.rules.PKG-01.level: this is no number"),
        ({"rules": {"PKG-01": {"level": 10**400}}}, "quality.rules.PKG-01.level: this is no number"),
        ({"rules": {"PKG-01": {"enabled": "perhaps"}}}, "quality.rules.PKG-01.enabled: true or false"),
        ({"rules": {"PKG-01": {"enabled": 1}}}, "quality.rules.PKG-01.enabled: true or false"),
        (
            {"own": [OWN], "rules": {"OWN-01": {"level": 1}}},
            "quality.rules.OWN-01.level: no such limit; there are enabled",
        ),
    ],
)
def test_what_is_set_for_a_rule_that_came_from_elsewhere(values: dict[str, Any], fault: str) -> None:
    (found,) = faults(settings(**values), FOREIGN)
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"id": "pkg-01"}, "pkg-01: an id is two to six capital letters"),
        ({"id": "PKG-1"}, "PKG-1: an id is"),
        ({"id": "PKG-01\n"}, "PKG-01"),
        ({"id": "TST-01"}, "TST-01: there are two rules with this id"),
        ({"bit": 60}, "PKG-01: bits are given by the database"),
        ({"reanchors": True}, "PKG-01: a rule that re-anchors needs a limit speed_kmh_max"),
    ],
)
def test_a_rule_from_elsewhere_that_cannot_be_used(fields: dict[str, Any], fault: str) -> None:
    assert faults(settings(), msgspec.structs.replace(FOREIGN, **fields))[0].startswith(fault)


def test_every_fault_is_named_at_once() -> None:
    wrong = msgspec.structs.replace(FOREIGN, id="x", bit=60)
    assert len(faults(settings(rules={"A": {}, "B": {}}), wrong)) == 4


def test_there_is_room_for_so_many_rules_and_no_more() -> None:
    room = LAST_BIT - OWN_FIRST_BIT + 1
    many = [{**OWN, "id": f"OWN-{number:02}"} for number in range(room)]
    assert len(Rulebook(settings(own=many)).own) == room
    assert faults(settings(own=many), FOREIGN) == [f"{room + 1} rules were added; there is room for {room}"]


# Rules of packages --------------------------------------------------------------------------------------------------


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a package with rules where Python finds packages."""

    def put(code: str, *values: str) -> None:
        about = tmp_path / "somebodys_rules-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-rules\nVersion: 1.0\n")
        points = "".join(f"point_{number} = {value}\n" for number, value in enumerate(values))
        (about / "entry_points.txt").write_text(f"[signalkeep.rules]\n{points}")
        (tmp_path / "somebodys_rules.py").write_text(f"from tests.test_rulebook import FOREIGN\n{code}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "tests.test_rulebook", sys.modules[__name__])
        monkeypatch.delitem(sys.modules, "somebodys_rules", raising=False)

    yield put
    sys.modules.pop("somebodys_rules", None)


ANOTHER = "import msgspec\nrules = [FOREIGN, msgspec.structs.replace(FOREIGN, id='PKG-02')]"


def test_a_package_gives_a_rule_or_several(install: Any) -> None:
    install(f"{ANOTHER}\none = msgspec.structs.replace(FOREIGN, id='PKG-03')",
            "somebodys_rules:rules", "somebodys_rules:one")  # fmt: skip
    book = rulebook_of(settings(own=[OWN], rules={"PKG-02": {"level": 8}}))
    assert [rule.id for rule in book.rules] == ["TST-01", "TST-02", "PKG-01", "PKG-02", "PKG-03", "OWN-01"]
    assert [one.limits["level"] for one in book.profile("", "").alone] == [5, 5, 5, 8, 5]


@pytest.mark.parametrize(
    ("code", "value", "fault"),
    [
        ("1 / 0", "somebodys_rules:rules", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("", "somebodys_rules:rules", "cannot be loaded: AttributeError"),
        ("", "nobodys_rules:rules", "cannot be loaded: ModuleNotFoundError"),
        ("rules = 5", "somebodys_rules:rules", "cannot be loaded: TypeError"),
        ("rules = [FOREIGN, 'KIN-01']", "somebodys_rules:rules", "gives a str, not a signalkeep.rules.contract.Rule"),
        ("def rules(): pass", "somebodys_rules:rules", "cannot be loaded: TypeError"),
    ],
)
def test_a_package_that_cannot_be_used_is_named(install: Any, code: str, value: str, fault: str) -> None:
    install(code, value)
    with pytest.raises(SettingsError) as caught:
        rulebook_of(settings())
    assert caught.value.message.startswith(f"entry point point_0 = {value}: {fault}")


def test_a_package_may_not_take_an_id_that_is_taken(install: Any) -> None:
    install("import msgspec\nrules = msgspec.structs.replace(FOREIGN, id='TST-02')", "somebodys_rules:rules")
    with pytest.raises(SettingsError, match="TST-02: there are two rules with this id"):
        rulebook_of(settings())


# The fingerprint ----------------------------------------------------------------------------------------------------

SET: dict[str, Any] = {
    "rules": {"TST-01": {"level": 6}, "TST-02": {"enabled": False}}, "models": {"A": {"TST-01": {"level": 7}}},
    "customers": {"Acme": {"TST-01": {"level": 8}}}, "own": [OWN],
}  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {"rules": {"TST-01": {"level": 6.5}, "TST-02": {"enabled": False}}},
        {"rules": {"TST-01": {"level": 6}, "TST-02": {"enabled": True}}},
        {"models": {"A": {"TST-01": {"level": 7.5}}}},
        {"models": {"B": {"TST-01": {"level": 7}}}},
        {"models": {}},
        {"customers": {"Acme": {"TST-02": {"level": 8}}}},
        {"own": [{**OWN, "when": "speed_kmh > 91"}]},
        {"own": [{**OWN, "for_s": 1}]},
        {"own": [{**OWN, "in_a_row": 2}]},
        {"own": [{**OWN, "severity": "error"}]},
        {"own": [{**OWN, "dimension": "accuracy"}]},
        {"own": [{**OWN, "error_type": 1}]},
        {"own": [{**OWN, "models": ["A"]}]},
        {"own": []},
    ],
)
def test_the_fingerprint_changes_with_whatever_changes_an_answer(values: dict[str, Any]) -> None:
    assert Rulebook(settings(**SET)).fingerprint != Rulebook(settings(**(SET | values))).fingerprint


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"rules": {"TST-02": {"enabled": "false"}, "TST-01": {"level": "6.0"}}},
        {"own": [{**OWN, "title": "Too fast", "meaning": "Slow down."}]},
        {"sweep_every_s": 5, "sweep_budget_s": 7, "sample_days": 1, "enabled": False},
    ],
)
def test_the_fingerprint_does_not_change_with_anything_else(values: dict[str, Any]) -> None:
    assert Rulebook(settings(**SET)).fingerprint == Rulebook(settings(**(SET | values))).fingerprint


@pytest.mark.parametrize(
    ("fields", "changes"),
    [
        ({"version": 2}, True),
        ({"limits": {"level": Limit(5.5, "", "how much", most=9.0)}}, True),
        ({"in_a_row": 2}, True),
        ({"for_s": 1.0}, True),
        ({"title": "Other words", "meaning": "Others", "causes": ("one",), "actions": ("one",), "source": "x"}, False),
    ],
)
def test_the_fingerprint_and_the_rules_themselves(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], changes: bool
) -> None:
    before = Rulebook(settings()).fingerprint
    monkeypatch.setattr("signalkeep.rulebook.RULES", (msgspec.structs.replace(SHIPPED, **fields), OTHER))
    assert (Rulebook(settings()).fingerprint != before) is changes


def test_the_fingerprint_is_known_before_bits_are_and_fits_the_column() -> None:
    book = Rulebook(settings(**SET))
    before = book.fingerprint
    book.with_bits({"OWN-01": 60})
    assert book.fingerprint == before
    assert -(2**63) <= before < 2**63


def test_what_comes_with_signalkeep_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signalkeep.rulebook.RULES", RULES)
    book = Rulebook(settings())
    assert book.own == []
    assert [rule.id for rule in book.rules] == list(BY_ID)
