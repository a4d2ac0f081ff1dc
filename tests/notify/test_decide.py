"""Who is told of what, as tables: each line is an event, what is known, and who hears of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from signalkeep import limits
from signalkeep.kinds import Grade, Scope, Stage
from signalkeep.notify.decide import HOLD, NOBODY, Decision, Event, Incident, Told, Word, audience, decide, due, owed
from tests.notify.support import NOON, nowhere, settings_of

NAMES = ("ops", "night", "acme", "boss")
SETTINGS = settings_of(
    {name: nowhere() for name in NAMES},
    admins=["ops", "night"], customers={"Acme": ["acme"]}, escalate_to=["boss"], escalate_after_s=1800,
)  # fmt: skip
ADMINS = ("ops", "night")


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def incident(**values: Any) -> Incident:
    usual: dict[str, Any] = {
        "kind": "silent", "subject": "1", "scope": Scope.DEVICE, "stage": Stage.MALFUNCTION, "state": "open",
        "severity": Grade.WARNING, "malfunction_at": NOON,
    }  # fmt: skip
    return Incident(**usual | values)


def all_hear(word: Word, *channels: str) -> Decision:
    return Decision(dict.fromkeys(channels, word))


DIAGNOSTIC: dict[str, Any] = {"stage": Stage.DIAGNOSTIC, "malfunction_at": None}
OPENED = [Told("ops", Word.OPENED)]
FLAPS = [*OPENED, Told("ops", Word.CLEARED), Told("ops", Word.FLAPPING)]
OFTEN = limits.FLAPPING_REOPENED
QUIET = limits.REOPEN_S / 60


@pytest.mark.parametrize(
    ("event", "of", "told", "minutes", "expected"),
    [
        # what begins
        ({"what": "opened"}, {}, [], 0, all_hear(Word.OPENED, *ADMINS)),
        ({"what": "opened"}, {"customer": "Acme"}, [], 0, all_hear(Word.OPENED, "acme")),
        ({"what": "opened"}, {"severity": Grade.INFO}, [], 0, NOBODY),
        ({"what": "opened"}, DIAGNOSTIC, [], 0, NOBODY),
        ({"what": "opened"}, {"malfunction_at": at(1)}, [], 1, NOBODY),  # that it got worse is told instead
        ({"what": "malfunction", "at": at(1)}, {"malfunction_at": at(1)}, [], 1, all_hear(Word.OPENED, *ADMINS)),
        ({"what": "opened"}, {"snoozed_until": at(5)}, [], 1, NOBODY),
        ({"what": "opened"}, {"snoozed_until": at(5)}, [], 5, all_hear(Word.OPENED, *ADMINS)),
        # what comes again
        ({"what": "reopened"}, {}, OPENED, 0, all_hear(Word.REOPENED, *ADMINS)),
        ({"what": "reopened", "reopened_lately": OFTEN - 1}, {}, OPENED, 0, all_hear(Word.REOPENED, *ADMINS)),
        ({"what": "reopened", "reopened_lately": OFTEN}, {}, OPENED, 0, all_hear(Word.FLAPPING, *ADMINS)),
        ({"what": "reopened", "reopened_lately": OFTEN}, {}, FLAPS, 0, all_hear(Word.FLAPPING, "night")),
        ({"what": "reopened", "reopened_lately": OFTEN}, {}, [*FLAPS, Told("night", Word.FLAPPING)], 0, NOBODY),
        # what ends
        ({"what": "cleared"}, {"state": "cleared"}, [], 0, NOBODY),
        ({"what": "cleared"}, {"state": "cleared"}, OPENED, 0, all_hear(Word.CLEARED, "ops")),
        ({"what": "cleared"}, {"state": "cleared"}, [*OPENED, Told("boss", Word.ESCALATED)], 0,
         all_hear(Word.CLEARED, "ops", "boss")),
        ({"what": "cleared"}, {"state": "cleared"}, [*OPENED, Told("ops", Word.CLEARED)], 0, NOBODY),
        ({"what": "cleared"}, {"state": "open"}, OPENED, 0, all_hear(Word.CLEARED, "ops")),
        ({"what": "cleared"}, {"state": "cleared", "snoozed_until": at(5)}, OPENED, 1, HOLD),
        ({"what": "cleared"}, {"state": "cleared", "snoozed_until": at(5)}, OPENED, 5, all_hear(Word.CLEARED, "ops")),
        ({"what": "cleared", "came_back": True}, {"snoozed_until": at(5)}, OPENED, 1, NOBODY),
        ({"what": "cleared", "reopened_lately": OFTEN}, {"state": "cleared"}, FLAPS, QUIET - 0.1, HOLD),
        ({"what": "cleared", "reopened_lately": OFTEN}, {"state": "cleared"}, FLAPS, QUIET,
         all_hear(Word.CLEARED, "ops")),
        ({"what": "cleared", "reopened_lately": OFTEN, "came_back": True}, {}, FLAPS, 1, NOBODY),
        ({"what": "cleared", "reopened_lately": OFTEN, "came_back": True}, {}, FLAPS, QUIET, NOBODY),
        # time
        ({"what": "escalated"}, {}, OPENED, 0, all_hear(Word.ESCALATED, "boss")),
        ({"what": "escalated"}, {"kind": "channel_failing", "subject": "boss"}, OPENED, 0, NOBODY),
        ({"what": "escalated"}, {"state": "acknowledged"}, OPENED, 0, NOBODY),
        ({"what": "reminded"}, {}, OPENED, 0, all_hear(Word.REMINDED, *ADMINS)),
        ({"what": "reminded"}, {"state": "cleared"}, OPENED, 0, NOBODY),
        # people
        ({"what": "acknowledged"}, {}, OPENED, 0, NOBODY),
        ({"what": "snoozed"}, {}, OPENED, 0, NOBODY),
        ({"what": "unsnoozed"}, {}, OPENED, 0, NOBODY),
    ],
)  # fmt: skip
def test_who_hears_of_an_event(
    event: dict[str, Any], of: dict[str, Any], told: list[Told], minutes: float, expected: Decision
) -> None:
    assert decide(Event(**{"at": NOON, **event}), incident(**of), told, SETTINGS, at(minutes)) == expected


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"customer": "Acme"}, ("acme",)),
        ({"customer": "Acme", "scope": Scope.GROUP}, ("acme",)),
        ({"customer": "Other"}, ADMINS),
        ({"customer": "Acme", "scope": Scope.SERVICE}, ADMINS),
        ({"scope": Scope.STORAGE}, ADMINS),
        ({"kind": "channel_failing", "scope": Scope.SERVICE, "subject": "ops"}, ("night",)),
    ],
)
def test_whose_it_is(of: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert audience(incident(**of), SETTINGS) == expected


@pytest.mark.parametrize(
    ("of", "minutes", "expected"),
    [
        ({}, 29, None),
        ({}, 30, Word.ESCALATED),
        ({"escalated_at": at(30)}, 31, None),
        ({"state": "acknowledged"}, 31, None),
        ({"state": "cleared"}, 31, None),
        (DIAGNOSTIC, 31, None),
        ({"severity": Grade.INFO}, 31, None),
        ({"snoozed_until": at(60)}, 59, None),
        ({"snoozed_until": at(60)}, 60, Word.REMINDED),
        ({"snoozed_until": at(60), "state": "acknowledged"}, 60, Word.REMINDED),
        ({"snoozed_until": at(60), "state": "cleared"}, 60, None),
        ({"snoozed_until": at(60), "reminded_at": at(60)}, 89, None),
        ({"snoozed_until": at(60), "reminded_at": at(60)}, 90, Word.ESCALATED),
        ({"escalated_at": at(30)}, 24 * 60, Word.REMINDED),
        ({"escalated_at": at(30), "reminded_at": at(24 * 60)}, 25 * 60, None),
        ({"escalated_at": at(30), "reminded_at": at(24 * 60)}, 48 * 60, Word.REMINDED),
        ({"state": "acknowledged", "escalated_at": at(30)}, 48 * 60, None),
    ],
)
def test_what_time_brings(of: dict[str, Any], minutes: float, expected: Word | None) -> None:
    assert due(incident(**of), SETTINGS, at(minutes)) == expected


def test_what_is_never_due() -> None:
    never = settings_of({"ops": nowhere()}, escalate_after_s=0, escalate_to=["ops"], remind_every_s=0)
    assert due(incident(), never, at(1e6)) is None
    nobody = settings_of({"ops": nowhere()}, remind_every_s=0)
    assert due(incident(), nobody, at(1e6)) is None


def test_who_is_owed_the_end() -> None:
    told = [
        Told("a", "opened"),
        Told("b", "opened"),
        Told("a", "cleared"),
        Told("c", "escalated"),
        Told("a", "reopened"),
    ]
    assert owed(told) == ("a", "b", "c")
    assert owed([*told, Told("b", "cleared")]) == ("a", "c")
