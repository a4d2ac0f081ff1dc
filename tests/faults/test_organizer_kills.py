"""The organizer killed at random while it judges and tells people: nothing is there, or told, twice; what it says of
days is what a fresh look says.

Fault model: F1, kill -9 of the organizer, and of the database or one of its backends beside it, at any instant of a
sweep; see `tests.faults.organizer` for the judge, which must be able to fail, too.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from signalkeep.kinds import KINDS
from signalkeep.store.incidents import Condition, observe
from signalkeep.store.postgres import Connection
from tests.builders import ask
from tests.core import Core
from tests.faults.judgement import dsn_of, recovery_s
from tests.faults.organizer import broken, said
from tests.faults.victims import BACKEND, ORGANIZER, POSTMASTER, Plan, carry_out
from tests.notify.receivers import Webhook
from tests.servers import wait_until

pytestmark = [pytest.mark.servers, pytest.mark.timeout(400)]

DEVICES, DAYS, EVENTS = 12, 2, 40
NUMBERS = "ailing%"
PLANS = (Plan((ORGANIZER, BACKEND)), Plan((ORGANIZER,), ORGANIZER), Plan((POSTMASTER,), ORGANIZER))
PAUSE_S_MAX = 1.0  # before a kill: the organizer has begun, and is somewhere in its work

# Every day is to be judged, and has waited for long enough.
JUDGE_ALL = """
INSERT INTO quality_todo AS t (device_id, day, since)
SELECT DISTINCT s.device_id, s.wire_time::date, now() - interval '1 hour'
FROM signal s JOIN device d ON d.id = s.device_id WHERE d.device_number LIKE 'ailing%'
ON CONFLICT (device_id, day) DO UPDATE SET marker = t.marker + 1, since = EXCLUDED.since
"""
LEFT = """
UPDATE quality_todo t SET since = now() - interval '1 hour' FROM device d
WHERE d.id = t.device_id AND d.device_number LIKE 'ailing%' RETURNING day
"""
FORGET = "DELETE FROM finding WHERE device_id IS NOT NULL; DELETE FROM quality_score; UPDATE signal SET flags = 0"


# What is watched is down as soon as a device is called so.
ILLS = ("one", "two", "three")
WATCHES = [
    {"name": ill, "sql": f"SELECT NOT EXISTS (SELECT FROM device WHERE notes LIKE '%{ill}%')", "every_s": 1}
    for ill in ILLS
]
SERVICES = {"every_s": 0.5, "bad_s": 0, "good_s": 0, "watch": WATCHES}
CALL = "UPDATE device SET notes = $1 WHERE device_number = 'ailing0'"

# What happened to what is watched, and the messages that tell of it.
TOLD = """
SELECT i.subject, e.what, n.id, n.state FROM incident i JOIN incident_event e ON e.incident_id = i.id
LEFT JOIN notification n ON n.event_id = e.id WHERE i.kind = 'watch_down' ORDER BY e.id
"""


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with Webhook() as receiving:
        yield receiving


@pytest.fixture
def core(hook: Webhook) -> Iterator[Core]:
    notify = {"channels": {"ops": {**hook.settings, "per_hour_max": 1000}}, "admins": ["ops"]}
    with Core(
        unknown_devices="register",
        quality__sweep_every_s="1",
        services=json.dumps(SERVICES),
        notify=json.dumps(notify),
    ) as running:
        yield running


def ailing(core: Core, dsn: str) -> None:
    """Days of devices whose positions are off the globe now and then."""
    first = datetime.now(UTC).replace(hour=8, minute=0, second=0, microsecond=0) - timedelta(days=DAYS)
    for number in range(DEVICES):
        lines = []
        for day in range(DAYS):
            for minute in range(EVENTS):
                at = first + timedelta(days=day, minutes=minute)
                latitude = 95.0 if minute % 7 == number % 7 else 37.9 + minute / 1000
                lines.append(
                    f'{{"device_number": "ailing{number}", "message_date": "{at:%Y-%m-%dT%H:%M:%SZ}", '
                    f'"latitude": {latitude}, "longitude": 23.7, "speed_kmh": {minute}}}\n'
                )
        core.talk("json", "".join(lines).encode(), answer_bytes=len(lines))
    rows = DEVICES * DAYS * EVENTS
    wait_until(lambda: ask(dsn, "SELECT count(*) FROM signal")[0][0] == rows, 60, what="they are stored")


def test_killed_while_it_judges_and_tells_nothing_is_there_twice_and_a_fresh_look_says_the_same(
    core: Core, hook: Webhook
) -> None:
    dsn, source = dsn_of(core), random.Random(1)
    ailing(core, dsn)
    for number, plan in enumerate(PLANS, 1):
        ask(dsn, JUDGE_ALL)
        ask(dsn, CALL, " ".join(ILLS[:number]))
        time.sleep(source.uniform(0, PAUSE_S_MAX))  # a part of the plan, not a wait for anything
        killed_s = carry_out(core, plan, source)
        recovery_s(core.ports["json"], dsn, killed_s)
    ask(dsn, JUDGE_ALL)
    wait_until(lambda: not ask(dsn, LEFT), 120, what="the organizer has judged every day")
    assert_told_once(dsn, hook)
    assert broken(dsn) == []
    first = said(dsn, NUMBERS)
    assert len(first["scores"]) == DEVICES * DAYS
    assert len({(device, day) for device, day, *_ in first["findings"]}) == DEVICES * DAYS, "something is to be found"
    for statement in FORGET.split(";"):
        ask(dsn, statement)
    ask(dsn, JUDGE_ALL)
    core.json("rules", "sweep")
    wait_until(lambda: not ask(dsn, LEFT), 120, what="every day is judged again")
    again = said(dsn, NUMBERS)
    for what, rows in first.items():
        assert rows == again[what], what


def assert_told_once(dsn: str, hook: Webhook) -> None:
    """Every incident of what is watched was opened, and is over: each with one message, which came."""
    wait_until(lambda: told(dsn)["opened"] == sorted(ILLS), 60, what="everything that is down is found and told")
    ask(dsn, CALL, "")
    wait_until(lambda: set(told(dsn)["cleared"]) == set(ILLS), 60, what="and that it is over")
    rows = ask(dsn, TOLD)
    ids = [str(row["id"]) for row in rows]
    assert len(set(ids)) == len(ids), "one message for each event"
    assert {message["id"] for message in hook.got} >= set(ids)
    opened = [(row["subject"], row["what"]) for row in rows if row["what"] == "opened"]
    assert len(opened) == len(ILLS), "each was opened once"


def told(dsn: str) -> dict[str, list[str]]:
    """What is watched, by what was said of it in messages that were taken."""
    said: dict[str, list[str]] = {"opened": [], "cleared": []}
    for row in ask(dsn, TOLD):
        if row["state"] == "sent":
            said.setdefault(row["what"], []).append(row["subject"].removeprefix("watch "))
    return {what: sorted(subjects) for what, subjects in said.items()}


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        ("DROP INDEX incident_once; INSERT INTO incident (source, kind, subject, scope, stage, severity, title, "
         "opened_at, seen_at, malfunction_at) SELECT source, kind, subject, scope, stage, severity, title, opened_at, "
         "seen_at, malfunction_at FROM incident", "open twice"),
        ("INSERT INTO incident_event (incident_id, what) SELECT id, 'opened' FROM incident", "history"),
        ("DELETE FROM incident_event", "history"),
        ("INSERT INTO incident_event (incident_id, what) SELECT id, 'cleared' FROM incident", "history"),
        ("UPDATE incident SET reopened = 2", "history"),
        ("ALTER TABLE notification DROP CONSTRAINT notification_event_id_channel_key; INSERT INTO notification "
         "(id, event_id, channel, title, body, payload) SELECT gen_random_uuid(), e.id, 'mail', '', '', '{}' "
         "FROM incident_event e, generate_series(1, 2)", "written twice"),
        ("DROP INDEX finding_kind_subject; INSERT INTO finding (kind, subject, detail) "
         "SELECT 'x', 'y', 'z' FROM generate_series(1, 2)", "findings that are there twice"),
    ],
)  # fmt: skip
async def test_the_judge_sees_what_is_there_twice_or_by_halves(
    connection: Connection, dsn: str, tamper: str, named: str
) -> None:
    """Opened, cleared, reopened, and open: then one thing is wrong."""
    now = datetime.now(UTC)
    kind = next(iter(KINDS.values()))
    one = Condition(kind=kind.name, subject="x", detail="y")
    for conditions in ([one], [], [one]):
        await observe(connection, kind.source, conditions, now)
    assert broken(dsn) == []
    await connection.execute(tamper)
    found = broken(dsn)
    assert found
    assert any(named in what for what in found), found
