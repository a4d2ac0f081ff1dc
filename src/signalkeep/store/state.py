"""Counters and latest state: the ledger's lines and `device_state`, always written together with what they count."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from signalkeep import limits
from signalkeep.model import Flag
from signalkeep.store import sql
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import FrameRows, Sessions, SignalRow

POSITION_FUTURE_MAX = timedelta(seconds=limits.POSITION_FUTURE_S_MAX)


class Counts(msgspec.Struct):
    """What a transaction did for one device. records = stored + duplicate + quarantined + suppressed."""

    frames: int = 0
    records: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    suppressed: int = 0
    key_xor: int = 0
    stored_to: datetime | None = None  # the latest wire time among what was stored, or was to be


async def add_to_ledger(connection: Connection, journal_id: int, counts: dict[int, Counts]) -> None:
    """Add the counts to the lines of this journal."""
    values = [
        (
            device_id,
            count.records,
            count.stored,
            count.duplicate,
            count.quarantined,
            count.suppressed,
            count.key_xor,
        )
        for device_id, count in counts.items()
    ]
    if values:
        await connection.execute(sql.ADD_TO_LEDGER, journal_id, *zip(*values, strict=True))


async def update_device_state(connection: Connection, frames: Iterable[FrameRows], counts: dict[int, Counts]) -> None:
    """Counters, last contact by received_at, and the latest good position by device_time."""
    latest: dict[int, FrameRows] = {}
    for rows in frames:
        known = latest.get(rows.device.id)
        if known is None or rows.received_at >= known.received_at:
            latest[rows.device.id] = rows
    values = [
        (
            device_id,
            count.frames,
            count.records,
            count.stored,
            count.duplicate,
            count.quarantined,
            count.suppressed,
            latest[device_id].received_at,
            latest[device_id].frame.protocol,
            latest[device_id].frame.peer,
            count.stored_to,
        )
        for device_id, count in counts.items()
    ]
    if values:
        await connection.execute(sql.ADD_TO_DEVICE_STATE, *zip(*values, strict=True))
    await move_positions(connection, ((rows, row) for rows in frames for row in rows.signals))


async def move_positions(connection: Connection, candidates: Iterable[tuple[FrameRows, SignalRow]]) -> None:
    """Let each device's newest good position win: only with a fix that no rule doubts, never later than
    received_at + 60 s."""
    best: dict[int, tuple[object, ...]] = {}
    newest: dict[int, datetime] = {}
    for rows, row in candidates:
        signal, when, device_id = row.signal, row.device_time, rows.device.id
        if not signal.fix_valid or signal.latitude is None or signal.longitude is None or when is None:
            continue
        if row.flags & Flag.DOUBTFUL_POSITION:
            continue
        if when > rows.received_at + POSITION_FUTURE_MAX or (device_id in newest and when <= newest[device_id]):
            continue
        newest[device_id] = when
        best[device_id] = (
            device_id,
            when,
            signal.latitude,
            signal.longitude,
            signal.altitude_m,
            signal.speed_kmh,
            signal.course_deg,
        )
    if best:
        await connection.execute(sql.MOVE_POSITION, *zip(*best.values(), strict=True))


async def note_sessions(connection: Connection, journal_id: int, sessions: dict[int, Sessions]) -> None:
    """Let each device's state follow its connections to the gateway of this journal. The caller holds their locks."""
    connected = [
        (device_id, session.connections, session.connected_at, session.peer)
        for device_id, session in sessions.items()
        if session.connections
    ]
    if connected:
        await connection.execute(sql.NOTE_CONNECTED, *zip(*connected, strict=True), journal_id)
    closed = [(device_id, at, peer) for device_id, session in sessions.items() for peer, at in session.closed.items()]
    if closed:
        await connection.execute(sql.NOTE_CLOSED, *zip(*closed, strict=True))
