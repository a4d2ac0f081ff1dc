"""All rules of this installation, and which of them hold for a device, with which limits.

Rules come with signalkeep (`rules.catalogue`), from packages (entry points of the group `signalkeep.rules`, each a
`Rule` or several), and from the settings (`quality.own`). Limits come from the rule, `quality.rules`,
`quality.models.MODEL` and `quality.customers.CUSTOMER`; the later one wins. What cannot be used is refused with its
place, before anything is judged by it. Our own canary is judged by none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, Final

import msgspec

from signalkeep.errors import SettingsError
from signalkeep.model import CANARY_MODEL
from signalkeep.rules.catalogue import RULES
from signalkeep.rules.contract import LAST_BIT, OWN_FIRST_BIT, Rule, Scope
from signalkeep.rules.judge import Profile, defaults
from signalkeep.rules.own import check_of
from signalkeep.sections import OwnRule, QualitySettings, RuleValues, value_faults

GROUP: Final = "signalkeep.rules"
ID: Final = re.compile(r"[A-Z]{2,6}-[0-9]{2}")


class Rulebook:
    """`rules`: all that are known, in the order in which they are asked. Profiles are made once and shared."""

    def __init__(self, settings: QualitySettings, foreign: Iterable[Rule] = ()) -> None:
        self._settings = settings
        self._only_for = {rule.id: rule for rule in settings.own}
        self.rules = (*RULES, *foreign, *map(_own, settings.own))
        self._profiles: dict[tuple[str, str], Profile] = {}
        faults = list(_faults(self.rules, settings))
        if faults:
            raise SettingsError("these rules cannot be used:\n" + "\n".join(f"  {fault}" for fault in faults))
        self._everywhere = _plain(settings.rules)
        self._of_models = _by_name(settings.models)
        self._of_customers = _by_name(settings.customers)

    @property
    def own(self) -> list[Rule]:
        """Rules that did not come with signalkeep: the database gives each a bit."""
        return [rule for rule in self.rules if rule not in RULES]

    def with_bits(self, bits: Mapping[str, int]) -> None:
        """Give the rules that did not come with signalkeep the bits that the database has for them."""
        self.rules = tuple(
            msgspec.structs.replace(rule, bit=bits[rule.id]) if rule.id in bits else rule for rule in self.rules
        )
        self._profiles.clear()

    def profile(self, model: str, customer: str) -> Profile:
        """What holds for devices of a model in vehicles of a customer; either may be empty."""
        key = (model, customer)
        found = self._profiles.get(key)
        if found is None:
            if len(self._profiles) > 10_000:  # models are texts that anybody may set
                self._profiles.clear()
            found = self._profiles[key] = Profile(
                (rule, limits) for rule in self.rules if (limits := self.limits_of(rule, model, customer)) is not None
            )
        return found

    def limits_of(self, rule: Rule, model: str, customer: str) -> dict[str, float] | None:
        """The limits of a rule; None: it is off there."""
        own = self._only_for.get(rule.id)
        if model == CANARY_MODEL or (own and not (_names(own.models, model) and _names(own.customers, customer))):
            return None
        return self._limits_set(rule, model, customer)

    def usual_limits(self, rule: Rule) -> dict[str, float] | None:
        """Where nothing is set for the model or the customer, also of a rule that is for some of them alone."""
        return self._limits_set(rule, "", "")

    def only_for(self, rule: Rule) -> tuple[Sequence[str], Sequence[str]]:
        """The models and the customers that a rule is for; empty: all."""
        own = self._only_for.get(rule.id)
        return (own.models, own.customers) if own else ((), ())

    def _limits_set(self, rule: Rule, model: str, customer: str) -> dict[str, float] | None:
        values: dict[str, Any] = {}
        of_model = self._of_models.get(model.casefold(), {})
        of_customer = self._of_customers.get(customer.casefold(), {})
        for source in (self._everywhere, of_model, of_customer):
            values |= source.get(rule.id, {})
        return defaults(rule) | values if values.pop("enabled", True) else None

    @property
    def fingerprint(self) -> int:
        """A number that changes when any signal may get another answer: rules, versions, limits, conditions."""
        rules = [(rule.id, rule.version, rule.in_a_row, rule.for_s, defaults(rule)) for rule in self.rules]
        own = [rule.model_dump(mode="json", exclude={"title", "meaning"}) for rule in self._settings.own]
        said = [rules, own, self._everywhere, self._of_models, self._of_customers]
        digest = hashlib.blake2b(msgspec.json.encode(said, order="sorted"), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)


def rulebook_of(settings: QualitySettings) -> Rulebook:
    """The rules of this installation. Raises SettingsError with the place of everything that cannot be used."""
    return Rulebook(settings, _foreign())


def _plain(rules: Mapping[str, RuleValues]) -> dict[str, RuleValues]:
    """Values as they are meant: from the environment all come as texts."""
    return {
        rule_id: {
            name: str(value).lower() == "true" if name == "enabled" else float(value) for name, value in values.items()
        }
        for rule_id, values in rules.items()
    }


def _by_name(groups: Mapping[str, Mapping[str, RuleValues]]) -> dict[str, dict[str, RuleValues]]:
    """The same of models or customers, whose names come in small letters from the environment."""
    found: dict[str, dict[str, RuleValues]] = {}
    for name, rules in groups.items():
        of_name = found.setdefault(name.casefold(), {})
        for rule_id, values in _plain(rules).items():
            of_name[rule_id] = of_name.get(rule_id, {}) | values
    return found


def _names(names: Iterable[str], name: str) -> bool:
    """Whether a list means this one; an empty list means all."""
    folded = [one.casefold() for one in names]
    return not folded or name.casefold() in folded


def _own(own: OwnRule) -> Rule:
    return Rule(
        id=own.id,
        title=own.title,
        dimension=own.dimension,
        severity=own.severity,
        scope=Scope.RECENT,
        check=check_of(own.when),
        meaning=own.meaning or f"The condition `{own.when}` held.",
        causes=(),
        actions=(),
        source="quality.own in the settings",
        in_a_row=own.in_a_row,
        for_s=own.for_s,
        error_type=own.error_type,
    )


def _foreign() -> list[Rule]:
    """Rules of installed packages."""
    found: list[Rule] = []
    for point in sorted(entry_points(group=GROUP), key=lambda one: one.name):
        place = f"entry point {point.name} = {point.value}"
        try:
            loaded = point.load()
            given = [loaded] if isinstance(loaded, Rule) else list(loaded)
        except Exception as error:
            raise SettingsError(
                f"{place}: cannot be loaded: {type(error).__name__}: {error}",
                hint="Mend or uninstall the package that it belongs to.",
            ) from error
        if wrong := [item for item in given if not isinstance(item, Rule)]:
            raise SettingsError(f"{place}: gives a {type(wrong[0]).__name__}, not a signalkeep.rules.contract.Rule")
        found += given
    return found


def _faults(rules: Iterable[Rule], settings: QualitySettings) -> Iterable[str]:
    known: dict[str, Rule] = {}
    for rule in rules:
        if not ID.fullmatch(rule.id):
            yield f"{rule.id}: an id is two to six capital letters, a hyphen and two digits"
        if rule.id in known:
            yield f"{rule.id}: there are two rules with this id"
        known[rule.id] = rule
        if rule not in RULES and rule.bit is not None:
            yield f"{rule.id}: bits are given by the database; leave bit unset"
        if rule.reanchors and "speed_kmh_max" not in rule.limits:
            yield f"{rule.id}: a rule that re-anchors needs a limit speed_kmh_max"
    added = len(known) - len(RULES)
    if added > LAST_BIT - OWN_FIRST_BIT + 1:
        yield f"{added} rules were added; there is room for {LAST_BIT - OWN_FIRST_BIT + 1}"
    for place, rule_id, values in _all_values(settings):
        if rule_id not in known:
            yield f"{place}: no such rule; `signalkeep rules list` shows them"
        elif known[rule_id] not in RULES:
            yield from (f"{place}.{name}: {said}" for name, said in value_faults(known[rule_id], values).items())


def _all_values(settings: QualitySettings) -> Iterable[tuple[str, str, RuleValues]]:
    """Place, rule and what is set there."""
    yield from ((f"quality.rules.{rule_id}", rule_id, values) for rule_id, values in settings.rules.items())
    for where, groups in (("models", settings.models), ("customers", settings.customers)):
        for name, rules in groups.items():
            yield from ((f"quality.{where}.{name}.{rule_id}", rule_id, values) for rule_id, values in rules.items())
