"""Rules over stored signals of a time, for people who want to know before they change a limit. Nothing is written."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from signalkeep.errors import CallerError
from signalkeep.rulebook import Rulebook
from signalkeep.rules.judge import Judge
from signalkeep.rules.runs import RunResult, run
from signalkeep.store.postgres import Connection
from signalkeep.store.rules import SIGNAL_COLUMNS, reading_of

# Devices with their models and customers of now, all or one.
DEVICES: Final = """
SELECT d.id, d.device_number, d.model, d.expected_interval_s, coalesce(l.customer_name, '') AS customer
FROM device d JOIN signal_latest l ON l.device_id = d.id
WHERE $1::text IS NULL OR d.device_number = $1 ORDER BY d.id
"""
SIGNALS: Final = f"""
SELECT {SIGNAL_COLUMNS} FROM signal s
WHERE s.device_id = $1 AND s.wire_time >= $2::timestamptz - interval '1 day'
  AND s.wire_time < $3::timestamptz + interval '1 day' AND coalesce(s.device_time, s.received_at) >= $2
  AND coalesce(s.device_time, s.received_at) < $3
ORDER BY s.received_at, s.journal_id, s.seq, s.record_no LIMIT $4
"""  # noqa: S608 - constant columns
SIGNALS_MAX: Final = 1_000_000  # of one device


async def judge_stored(
    connection: Connection, judge: Judge, book: Rulebook, device_number: str | None, begins: datetime, ends: datetime
) -> AsyncIterator[tuple[str, int, RunResult]]:
    """Device number, number of all devices, and what rules find in the device's signals of [begins, ends).

    Raises CallerError for a device of which nothing is known.
    """
    devices = await connection.fetch(DEVICES, device_number)
    if device_number is not None and not devices:
        raise CallerError(
            f"nobody has registered or heard of device {device_number}", hint="`signalkeep devices list` shows all."
        )
    for device in devices:
        rows = await connection.fetch(SIGNALS, device["id"], begins, ends, SIGNALS_MAX)
        profile = book.profile(device["model"], device["customer"])
        result = run(
            judge, profile, [reading_of(row) for row in rows], device_number=device["device_number"],
            model=device["model"], expected_interval_s=device["expected_interval_s"],
        )  # fmt: skip
        yield device["device_number"], len(devices), result
