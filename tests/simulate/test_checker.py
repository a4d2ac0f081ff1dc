"""The checker finds each kind of fault, in values and in a real database, and says nothing when all is well."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from signalkeep.model import Signal
from signalkeep.simulate.oracle import OracleWriter, line_of
from signalkeep.store.postgres import Connection
from tests.faults import checker
from tests.faults.checker import Floor, Key, Stored, Verdict, check, judge

START = datetime(2024, 5, 6, 7, 8, 9, 123000, tzinfo=UTC)
KEYS = [Key("100", START + timedelta(seconds=number)) for number in range(6)]
SAFE = set(KEYS[:4])
SENT = {key: {"latitude": 1.5, "longitude": 2.5, "speed_kmh": 50.0, "event_code": None} for key in KEYS[:5]}
ROWS = [Stored(*key, 1.5, 2.5, 50.0, None, 1, number + 1, 0) for number, key in enumerate(KEYS[:4])]

Faulty = tuple[list[Stored], list[Key]]


def test_all_is_well() -> None:
    verdict = judge(SAFE, SENT, ROWS, [])
    assert verdict.clean
    assert (verdict.safe, verdict.sent, verdict.stored, verdict.quarantined) == (4, 5, 4, 0)


def test_what_was_sent_but_not_told_safe_may_be_stored() -> None:
    assert judge(SAFE, SENT, [*ROWS, ROWS[0]._replace(device_time=KEYS[4].device_time, seq=9)], []).clean


def test_what_was_erased_is_not_missing_and_must_stay_away() -> None:
    done = {"100": Floor(START + timedelta(seconds=1), True)}
    verdict = judge(SAFE, SENT, ROWS[2:], [], done)
    assert (verdict.clean, verdict.erased) == (True, 2)
    assert judge(SAFE, SENT, ROWS[3:], [], done).missing == 1, "above the floor"
    assert judge(SAFE, SENT, ROWS[1:], [], done).resurrected == 1
    assert judge(SAFE, SENT, ROWS[2:], [KEYS[0]], done).resurrected == 1
    assert judge(SAFE, SENT, ROWS[1:], [], {"100": done["100"]._replace(finished=False)}).clean, "still under way"


def test_an_open_quarantine_row_keeps_a_record_too() -> None:
    assert judge(SAFE, SENT, ROWS[1:], [KEYS[0]]).clean


@pytest.mark.parametrize(
    ("fault", "spoil"),
    [
        ("missing", lambda rows: (rows[1:], [])),
        ("missing", lambda rows: (rows[1:], [KEYS[1], KEYS[2]])),
        ("spurious", lambda rows: ([*rows, rows[0]._replace(device_time=KEYS[5].device_time, seq=9)], [])),
        ("spurious", lambda rows: ([*rows, rows[0]._replace(device_time=None, seq=9)], [])),
        ("corrupted", lambda rows: ([rows[0]._replace(latitude=1.50001), *rows[1:]], [])),
        ("corrupted", lambda rows: ([rows[0]._replace(longitude=None), *rows[1:]], [])),
        ("corrupted", lambda rows: ([rows[0]._replace(speed_kmh=51.0), *rows[1:]], [])),
        ("corrupted", lambda rows: ([rows[0]._replace(event_code="239"), *rows[1:]], [])),
        ("doubled", lambda rows: ([*rows[:1], *rows], [])),
        ("doubled", lambda rows: (rows, [KEYS[0]])),
        ("doubled", lambda rows: (rows[1:], [KEYS[0], KEYS[0]])),
        ("out_of_order", lambda rows: ([rows[1], rows[0], *rows[2:]], [])),
    ],
)
def test_a_fault_is_found(fault: str, spoil: Callable[[list[Stored]], Faulty]) -> None:
    signals, quarantined = spoil(ROWS)
    verdict = judge(SAFE, SENT, signals, quarantined)
    assert not verdict.clean
    assert getattr(verdict, fault) >= 1
    assert verdict.examples[fault][0].startswith("100 2024-05-06") or verdict.examples[fault] == ["100 None"]


def test_another_journal_has_an_order_of_its_own() -> None:
    assert judge(SAFE, SENT, [*ROWS[2:], *(row._replace(journal_id=2) for row in ROWS[:2])], []).clean


def test_files_that_contradict_each_other_are_an_error() -> None:
    with pytest.raises(ValueError, match="never sent"):
        judge({KEYS[5]}, SENT, [], [])


async def store(connection: Connection, signals: list[Key], quarantined: list[Key]) -> None:
    """Rows as the product would write them."""
    device_id = await connection.fetchval("INSERT INTO device (device_number) VALUES ('100') RETURNING id")
    journal_id = await connection.fetchval(
        "INSERT INTO journal (uuid, host, directory, lanes) VALUES (gen_random_uuid(), '', '', 1) RETURNING id"
    )
    await connection.execute(
        "CREATE TABLE signal_2024_05 PARTITION OF signal FOR VALUES FROM ('2024-05-01Z') TO ('2024-06-01Z')"
    )
    for seq, key in enumerate(signals, 1):
        await connection.execute(
            """INSERT INTO signal (device_id, wire_time, digest, device_time, received_at, fix_valid, latitude,
                   longitude, speed_kmh, attributes, protocol, journal_id, seq, record_no)
               VALUES ($1, $2, $3, $2, $2, true, 1.5, 2.5, 50, '{}', 'teltonika', $4, $3, 0)""",
            device_id, key.device_time, seq, journal_id,
        )  # fmt: skip
    frame_id = await connection.fetchval(
        """INSERT INTO quarantine_frame (journal_id, seq, device_id, received_at, protocol, peer, context, raw)
           VALUES ($1, 1, $2, now(), '', '', '{}', '') RETURNING id""",
        journal_id, device_id,
    )  # fmt: skip
    for number, key in enumerate(quarantined):
        await connection.execute(
            """INSERT INTO quarantine (frame_id, record_no, device_id, wire_time, digest, journal_id, seq,
                   received_at, reason, raw, state)
               VALUES ($1, $2::int, $3, $4, $2::int, $5, 1, now(), 'future', '', $6)""",
            frame_id, number, device_id, key.device_time, journal_id, "released" if number else "open",
        )  # fmt: skip


def write_oracle(path: Path) -> None:
    lines = []
    for order, key in enumerate(KEYS, 1):
        signal = Signal(
            wire_time=key.device_time, device_time=key.device_time, latitude=1.5, longitude=2.5, speed_kmh=50.0
        )
        lines.append(line_of(key.device_number, order, signal))
    with OracleWriter(path) as writer:
        writer.sent(lines[:5])
        writer.told_safe(lines[:4])


async def test_against_a_database(dsn: str, connection: Connection, tmp_path: Path) -> None:
    write_oracle(tmp_path / "oracle")
    await store(connection, KEYS[:3], [KEYS[3], KEYS[0]])  # the second row is closed
    assert await check(dsn, tmp_path / "oracle") == Verdict(safe=4, sent=5, stored=3, quarantined=1)
    await connection.execute("UPDATE signal SET latitude = 0 WHERE seq = 1")
    await connection.execute("DELETE FROM signal WHERE seq = 2")
    verdict = await check(dsn, tmp_path / "oracle")
    assert (verdict.corrupted, verdict.missing, verdict.spurious, verdict.doubled) == (1, 1, 0, 0)


async def test_a_database_that_has_nothing(dsn: str, tmp_path: Path) -> None:
    write_oracle(tmp_path / "oracle")
    assert (await check(dsn, tmp_path / "oracle")).missing == 4


def test_the_command_prints_the_verdict(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_oracle(tmp_path / "oracle")
    monkeypatch.setattr(sys, "argv", ["checker", dsn, str(tmp_path / "oracle")])
    assert checker.main() == 1
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert printed["missing"] == 4
    assert printed["clean"] is False
