"""Findings of storage as incidents: what happened once waits for a person, what passes is over by itself."""

from __future__ import annotations

import pytest

from signalkeep import limits
from signalkeep.integrity import storage
from signalkeep.kinds import KINDS
from signalkeep.store import journals
from signalkeep.store.postgres import Connection

pytestmark = pytest.mark.servers


async def find(connection: Connection, kind: str, subject: str = "journal 1") -> None:
    await journals.add_finding(connection, kind, subject, f"{kind} found")


async def look(connection: Connection) -> dict[str, str]:
    """Look, then every incident that is not cleared, with its state."""
    await storage.look(connection)
    rows = await connection.fetch("SELECT kind, subject, state FROM incident WHERE state <> 'cleared'")
    return {f"{row['kind']}, {row['subject']}": row["state"] for row in rows}


async def later(connection: Connection, seconds: float) -> None:
    """All that is noted was noted earlier."""
    for table, columns in (
        ("finding", ("first_at", "last_at")),
        ("incident", ("opened_at", "seen_at", "malfunction_at", "acknowledged_at", "cleared_at")),
    ):
        moved = ", ".join(f"{column} = {column} - make_interval(secs => $1)" for column in columns)
        await connection.execute(f"UPDATE {table} SET {moved}", seconds)


async def take(connection: Connection) -> None:
    await connection.execute(
        "UPDATE incident SET state = 'acknowledged', acknowledged_at = now(), acknowledged_by = 'ann' "
        "WHERE state = 'open'"
    )


async def test_a_loss_is_open_until_a_person_took_it_and_a_day_longer(connection: Connection) -> None:
    await find(connection, "journal_range_lost")
    assert await look(connection) == {"journal_range_lost, journal 1": "open"}
    await later(connection, 30 * limits.STORAGE_TAKEN_S)
    assert await look(connection) == {"journal_range_lost, journal 1": "open"}, "nothing can make it good"
    await take(connection)
    await later(connection, limits.STORAGE_TAKEN_S - 60)
    assert await look(connection) == {"journal_range_lost, journal 1": "acknowledged"}
    await later(connection, 120)
    assert await look(connection) == {}
    assert await look(connection) == {}, "and it stays closed"
    assert await connection.fetchval("SELECT count(*) FROM incident") == 1


async def test_a_loss_that_is_found_again_is_an_incident_again(connection: Connection) -> None:
    await find(connection, "journal_vanished")
    await look(connection)
    await take(connection)
    await later(connection, limits.STORAGE_TAKEN_S + 60)
    assert await look(connection) == {}
    await later(connection, 2 * limits.REOPEN_S)
    await find(connection, "journal_vanished")
    assert await look(connection) == {"journal_vanished, journal 1": "open"}
    assert await connection.fetchval("SELECT count(*) FROM incident") == 2
    await take(connection)
    await later(connection, limits.STORAGE_TAKEN_S - 60)
    await find(connection, "journal_vanished")
    await later(connection, 120)
    assert await look(connection) == {"journal_vanished, journal 1": "acknowledged"}, "it was found since"


async def test_what_passes_is_over_when_it_is_not_found_any_more(connection: Connection) -> None:
    await find(connection, "archive_failed", "archive /a")
    assert await look(connection) == {"archive_failed, archive /a": "open"}
    await later(connection, limits.STORAGE_NEW_S - 60)
    assert await look(connection) == {"archive_failed, archive /a": "open"}
    await later(connection, 120)
    assert await look(connection) == {}
    await find(connection, "archive_failed", "archive /a")
    assert await look(connection) == {"archive_failed, archive /a": "open"}


async def test_a_finding_that_goes_takes_its_incident_along(connection: Connection) -> None:
    await find(connection, "reader_role", "signalkeep_reader")
    assert await look(connection) == {"reader_role, signalkeep_reader": "open"}
    await connection.execute("DELETE FROM finding WHERE kind = 'reader_role'")
    assert await look(connection) == {}


async def test_rules_of_the_fleet_and_what_has_no_kind_of_its_own(connection: Connection) -> None:
    await find(connection, "FLT-03", "model X")
    await find(connection, "FLT-05", "model X")
    await find(connection, "something_new", "y")
    assert set(await look(connection)) == {
        "fleet_rule, FLT-03: model X", "fleet_rule, FLT-05: model X", "other_finding, something_new: y",
    }  # fmt: skip


async def test_findings_of_devices_are_not_looked_at(connection: Connection) -> None:
    device = await connection.fetchval("INSERT INTO device (device_number, status) VALUES ('1', 'active') RETURNING id")
    await connection.execute(
        "INSERT INTO finding (kind, subject, detail, device_id, day, state, severity) "
        "VALUES ('POS-01', '1', '', $1, '2026-01-01', 'detected', 'warning')",
        device,
    )
    assert await look(connection) == {}


def test_every_finding_that_the_code_makes_has_a_kind() -> None:
    for kind in (
        "journal_vanished", "journal_range_lost", "journal_shorter_than_cursor", "journal_unreadable",
        "cursor_moved_back", "database_restored", "restore_gap", "journal_end_unknown", "archive_failed",
        "broker_message_set_aside", "erasures_unreadable", "erasure_repeated", "reader_role",
    ):  # fmt: skip
        assert KINDS[kind].source == storage.SOURCE
        assert storage.OWN_NAMES[kind] == kind
    assert set(storage.PASSING) <= set(KINDS)
