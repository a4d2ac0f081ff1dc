"""The one transaction that turns ranges of a journal into rows: all of it with the move of the cursors, or nothing.

    1  cursors         moved by compare-and-set; held by nobody else from here on
    2  device_state    rows of the batch's devices locked in one order: the lock that serialises writing for a device
    3  device          revision compared with the one the frames were decoded under
    4  quarantine      a record that waits there and may now be a signal is released, not stored beside it
    5  signal          store what is new; duplicates fall away on the record key
    6  quarantine      insert what is in neither table
    7  finding         what rules found in what was stored
    8  ledger, device_state (counters, position, connections), refusal

The lock of step 2 makes "in neither table" safe: two transactions cannot both pass the test for the same device. It
never retries, sleeps or swallows an error: the caller decides (`ingest.pipeline`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import TypeAlias

import msgspec

from signalkeep import __version__
from signalkeep.store import signals, sql
from signalkeep.store.postgres import Connection
from signalkeep.store.release import ReleaseItem, release_rows
from signalkeep.store.rows import FrameRows, IngestBatch, LostRange, QuarantineRow, SignalRow, Written
from signalkeep.store.rules import add_findings
from signalkeep.store.state import Counts, add_to_ledger, note_sessions, update_device_state

Key: TypeAlias = tuple[int, datetime, int]


class CursorMoved(Exception):
    """A cursor is not where the batch begins: somebody else wrote the range, or the database was restored."""


class DeviceChanged(Exception):
    """A device's registry entry is not the one that the frames were decoded under."""

    def __init__(self, device_ids: list[int]) -> None:
        super().__init__(f"devices {device_ids}")
        self.device_ids = device_ids


class _Candidate(msgspec.Struct, gc=False):
    rows: FrameRows
    row: SignalRow


class _Devices(msgspec.Struct):
    """What the lock showed: who has, or ever had, something in quarantine, and up to where there are signals."""

    with_quarantine: set[int] = msgspec.field(default_factory=set)
    marks: dict[int, datetime | None] = msgspec.field(default_factory=dict)


async def write(connection: Connection, batch: IngestBatch) -> Written:
    """Write the batch in one transaction. Raises CursorMoved, DeviceChanged, or what the database raises."""
    async with connection.transaction():
        return await _write(connection, batch)


async def probe(connection: Connection, batch: IngestBatch) -> None:
    """Do everything that `write` does and roll it back: raises what `write` would raise."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await _write(connection, batch)
    finally:
        await transaction.rollback()


async def _write(connection: Connection, batch: IngestBatch) -> Written:
    await _move_cursors(connection, batch)
    in_session = await _devices_in_session(connection, batch)
    devices = await _lock_devices(connection, batch, in_session)
    counts: dict[int, Counts] = defaultdict(Counts)
    for rows in batch.frames:
        counts[rows.device.id].frames += 1
    written = await _write_frames(connection, batch.journal_id, batch.frames, devices, counts)
    sessions = {in_session[number]: batch.sessions[number] for number in in_session}
    await note_sessions(connection, batch.journal_id, sessions)
    await _note_other_entries(connection, batch)
    return written


async def write_again(connection: Connection, journal_id: int, frames: list[FrameRows]) -> Written:
    """The records of frames that were kept whole, as they are read now, under the provenance that they always had.

    In the caller's transaction, which holds the devices' locks. No cursor is concerned: the frames were counted before.
    """
    devices = _Devices(with_quarantine={rows.device.id for rows in frames})
    return await _write_frames(connection, journal_id, frames, devices, defaultdict(Counts))


async def keep_quarantined(connection: Connection, journal_id: int, frames: list[FrameRows]) -> int:
    """Put quarantine rows of frames back that the ledger has and the table has lost; returns how many. As above."""
    counts: dict[int, Counts] = defaultdict(Counts)
    await _insert_quarantine(connection, journal_id, frames, counts)
    return sum(count.quarantined for count in counts.values())


async def _write_frames(
    connection: Connection,
    journal_id: int,
    frames: list[FrameRows],
    devices: _Devices,
    counts: dict[int, Counts],
) -> Written:
    """Every record to its place, and all that counts it."""
    for rows in frames:
        count = counts[rows.device.id]
        count.records += len(rows.signals) + len(rows.quarantined) + rows.suppressed
        count.suppressed += rows.suppressed
    candidates = [_Candidate(rows, row) for rows in frames for row in rows.signals]
    candidates = await _settle_quarantined(connection, candidates, devices.with_quarantine)
    await _store_signals(connection, journal_id, candidates, devices.marks, counts)
    await _insert_quarantine(connection, journal_id, frames, counts)
    for count in counts.values():
        count.duplicate = count.records - count.stored - count.quarantined - count.suppressed
    await add_to_ledger(connection, journal_id, counts)
    await update_device_state(connection, frames, counts)
    return Written(
        records=sum(count.records for count in counts.values()),
        stored=sum(count.stored for count in counts.values()),
        duplicate=sum(count.duplicate for count in counts.values()),
        quarantined=sum(count.quarantined for count in counts.values()),
        suppressed=sum(count.suppressed for count in counts.values()),
    )


async def _move_cursors(connection: Connection, batch: IngestBatch) -> None:
    assert all(move.last_seq > move.after_seq for move in batch.moves)
    moves = [
        (move.lane, move.after_seq, move.last_seq, move.frames, move.other_entries, move.lost_entries)
        for move in batch.moves
    ]
    moved = await connection.fetch(sql.MOVE_CURSORS, batch.journal_id, *zip(*moves, strict=True))
    if len(moved) != len(moves):
        raise CursorMoved


async def _devices_in_session(connection: Connection, batch: IngestBatch) -> dict[str, int]:
    """Our numbers of the devices whose connections the batch speaks of; those without a row are left out."""
    if not batch.sessions:
        return {}
    found = await connection.fetch(sql.KNOWN_DEVICES, list(batch.sessions))
    return {row["device_number"]: row["id"] for row in found}


async def _lock_devices(connection: Connection, batch: IngestBatch, in_session: dict[str, int]) -> _Devices:
    """Lock and compare."""
    decoded_under = {rows.device.id: rows.device.revision for rows in batch.frames}
    ids = list(decoded_under.keys() | in_session.values())
    if not ids:
        return _Devices()
    states = await connection.fetch(sql.LOCK_DEVICES, ids)
    now = {row["id"]: row["revision"] for row in await connection.fetch(sql.DEVICE_REVISIONS, list(decoded_under))}
    changed = [device_id for device_id, revision in decoded_under.items() if now.get(device_id) != revision]
    if changed:
        raise DeviceChanged(changed)
    assert len(states) == len(ids), "every device has its device_state row"
    return _Devices(
        {row["device_id"] for row in states if row["quarantined"]},
        {row["device_id"]: row["stored_to"] for row in states},
    )


async def _settle_quarantined(
    connection: Connection, candidates: list[_Candidate], with_quarantine: set[int]
) -> list[_Candidate]:
    """Take out the candidates that stand in quarantine: open ones are released, discarded ones stay discarded."""
    concerned = {
        (item.rows.device.id, item.row.wire_time, item.row.digest): item
        for item in candidates
        if item.rows.device.id in with_quarantine
    }
    if not concerned:
        return candidates
    found = await connection.fetch(sql.FIND_IN_QUARANTINE, *_columns(concerned))
    settled: set[Key] = set()
    releases = []
    for quarantined in found:
        key = (quarantined["device_id"], quarantined["wire_time"], quarantined["digest"])
        if quarantined["state"] == "released":
            continue
        settled.add(key)
        if quarantined["state"] == "open":
            item = concerned[key]
            releases.append(ReleaseItem.of(quarantined, item.rows, item.row))
    await release_rows(connection, releases, closed_by="a re-sent record")
    return [item for item in candidates if (item.rows.device.id, item.row.wire_time, item.row.digest) not in settled]


async def _store_signals(
    connection: Connection,
    journal_id: int,
    candidates: list[_Candidate],
    marks: dict[int, datetime | None],
    counts: dict[int, Counts],
) -> None:
    values = [
        signals.values_of(item.rows, item.row, journal_id, item.rows.seq, item.row.record_no) for item in candidates
    ]
    marked: dict[int, set[int]] = {}
    for (device_id, _), gained in (await signals.store(connection, values, marks)).items():
        count = counts[device_id]
        count.stored += gained.rows
        count.key_xor ^= gained.key_xor
        marked[device_id] = gained.marked
    hit = [(one.rows, one.row) for one in candidates if one.row.hits]
    # Only what was stored counts: a re-sent record was counted when it came first.
    await add_findings(
        connection, journal_id, [(rows, row) for rows, row in hit if row.digest in marked.get(rows.device.id, ())]
    )
    for device_id, stored_to in signals.latest(values).items():
        counts[device_id].stored_to = stored_to


async def _insert_quarantine(
    connection: Connection, journal_id: int, frames: list[FrameRows], counts: dict[int, Counts]
) -> None:
    candidates: dict[Key, tuple[FrameRows, QuarantineRow]] = {}
    for rows in frames:
        for row in rows.quarantined:
            candidates.setdefault((rows.device.id, row.wire_time, row.digest), (rows, row))
    if not candidates:
        return
    for found in await connection.fetch(sql.FIND_KEYS, *_columns(candidates)):
        del candidates[found["device_id"], found["wire_time"], found["digest"]]
    if not candidates:
        return
    to_keep = {rows.seq: rows for rows, _ in candidates.values()}
    kept = await connection.fetch(sql.KEEP_FRAMES, journal_id, *zip(*map(_frame_values, to_keep.values()), strict=True))
    frame_ids = {row["seq"]: row["id"] for row in kept}
    values = []
    for rows, row in candidates.values():
        count = counts[rows.device.id]
        count.quarantined += 1
        envelope = (frame_ids[rows.seq], rows.seq, rows.device.id, rows.received_at, rows.device.revision)
        values.append((*envelope, *_quarantine_values(row)))
    await connection.execute(sql.INSERT_QUARANTINE, journal_id, __version__, *zip(*values, strict=True))


async def _note_other_entries(connection: Connection, batch: IngestBatch) -> None:
    if batch.refusals:
        reasons, numbers = list(batch.refusals), list(batch.refusals.values())
        await connection.execute(sql.ADD_REFUSALS, batch.journal_id, reasons, numbers)
    for span in (span for move in batch.moves for span in move.lost):
        subject = f"journal {batch.journal_id} entries {span.first_seq}..{span.last_seq}"
        await connection.execute(sql.ADD_FINDING, "journal_range_lost", subject, _lost_detail(span))


def _lost_detail(span: LostRange) -> str:
    return f"{span.why}; {f'the bytes are kept in {span.evidence}' if span.evidence else 'no bytes were left to keep'}"


def _columns(keys: Iterable[Key]) -> tuple[list[int], list[datetime], list[int]]:
    rows = list(keys)
    return [key[0] for key in rows], [key[1] for key in rows], [key[2] for key in rows]


def _frame_values(rows: FrameRows) -> tuple[object, ...]:
    frame = rows.frame
    return (
        rows.seq,
        rows.device.id,
        rows.received_at,
        frame.protocol,
        frame.peer,
        sql.json_text(frame.context),
        frame.raw,
    )


def _quarantine_values(row: QuarantineRow) -> tuple[object, ...]:
    return row.record_no, row.wire_time, row.digest, str(row.reason), row.detail, row.raw_record
