"""What becomes of each record of frames that are read a second time. In one transaction, under the devices' locks.

    stored, same provenance     compared; what is read otherwise now is written anew in its place
    stored, another provenance  a re-send: nothing
    in quarantine               stays there: what can be released was, before
    nowhere                     the ledger misses it: written again, as it was booked; else it was never read before:
                                written and booked

A frame of which something is missing is first held against all that stands under its provenance. If a row there is none
of the records that it is cut into now, the slicing has changed, and nothing of it is added: it would be the same data
under another key. What lies below the floor of an erasure, or in a month that went with the retention, stays away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from signalkeep import limits
from signalkeep.ingest.release import UNREAD
from signalkeep.model import Flag, Reason
from signalkeep.store import replay as stored
from signalkeep.store import signals, sql
from signalkeep.store.erasure import FIND_POSITION
from signalkeep.store.partitions import Month
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.replay import Counts, Line
from signalkeep.store.rows import FrameRows, QuarantineRow, SignalRow
from signalkeep.store.state import move_positions
from signalkeep.store.sweep import add_days
from signalkeep.store.writer import keep_quarantined, write_again

Key: TypeAlias = tuple[int, datetime, int]
AnyRow: TypeAlias = SignalRow | QuarantineRow

POLICY: Final = frozenset({Reason.UNKNOWN_DEVICE, Reason.RETIRED_DEVICE, Reason.FUTURE, Reason.EXPIRED})


class Read(msgspec.Struct):
    """A frame as it is read now. `forced`: without reasons of policy; the same where there are none."""

    rows: FrameRows
    forced: FrameRows

    @property
    def records(self) -> int:
        return len(self.rows.signals) + len(self.rows.quarantined) + self.rows.suppressed

    @property
    def keys(self) -> set[Key]:
        device_id = self.rows.device.id
        rows: list[AnyRow] = [*self.rows.signals, *self.rows.quarantined, *self.forced.signals]
        return {(device_id, row.wire_time, row.digest) for row in rows}

    def pairs(self) -> Iterator[tuple[AnyRow, SignalRow | None]]:
        """Each record as it is judged, with the signal that it would be if policy did not count."""
        by_force = {row.record_no: row for row in self.forced.signals}
        for signal in self.rows.signals:
            yield signal, signal
        for row in self.rows.quarantined:
            yield row, by_force.get(row.record_no)


class Missing(msgspec.Struct):
    """Records of a frame that are nowhere."""

    read: Read
    signals: list[SignalRow] = msgspec.field(default_factory=list)
    quarantined: list[QuarantineRow] = msgspec.field(default_factory=list)
    retired: list[tuple[SignalRow, QuarantineRow]] = msgspec.field(default_factory=list)
    """Of a device that is retired now: a signal, if it was stored before that, else a row of quarantine."""

    @property
    def records(self) -> int:
        return len(self.signals) + len(self.quarantined) + len(self.retired)

    def divide(self, missing: int) -> None:
        """Decide about `retired`: what the ledger misses was a signal."""
        for signal, row in self.retired:
            if len(self.signals) < missing:
                self.signals.append(msgspec.structs.replace(signal, flags=signal.flags & ~int(Flag.FORCED)))
            else:
                self.quarantined.append(row)
        self.retired = []


class Known(msgspec.Struct):
    """What a replay has learnt of a journal: it outlives batches. Changed only when a batch was committed."""

    journal_id: int
    lines: dict[int, Line] = msgspec.field(default_factory=dict)
    refused: list[str] = msgspec.field(default_factory=list)  # for people, a few of them


class BatchWriter:
    """One transaction's worth of frames of a journal. `expired`: (device, month) that went with the retention."""

    def __init__(self, connection: Connection, known: Known, expired: set[tuple[int, Month]]) -> None:
        self._connection = connection
        self._journal_id = known.journal_id
        self._known = known
        self._expired = expired
        self.counts = Counts()
        self.lines: dict[int, Line] = {}
        self.refused: list[str] = []
        self._days: set[tuple[int, datetime]] = set()

    async def write(self, frames: Sequence[Read], unwritable: set[Key]) -> None:
        """`unwritable`: keys of records that the database has rejected."""
        self.counts.frames += len(frames)
        self.counts.records += sum(read.records for read in frames)
        self.counts.suppressed += sum(read.rows.suppressed for read in frames)
        compare, missing = await self._sort(frames, unwritable)
        await self._compare(compare)
        await self._complete(missing)
        await add_days(self._connection, {(device_id, at.date()) for device_id, at in self._days})

    def commit(self) -> None:
        """Remember what was learnt: the transaction stands."""
        self._known.lines.update(self.lines)
        self._known.refused += self.refused

    # Where each record is ---------------------------------------------------------------------------------------

    async def _sort(
        self, frames: Sequence[Read], unwritable: set[Key]
    ) -> tuple[list[tuple[FrameRows, SignalRow]], list[Missing]]:
        """What is to be compared, and what is nowhere; all else is counted."""
        keys = set().union(*(read.keys for read in frames))
        columns = list(zip(*keys, strict=True)) or [(), (), ()]
        found = await self._connection.fetch(stored.STORED, *columns)
        there = {_key(row): (row["journal_id"], row["seq"]) for row in found}
        found = await self._connection.fetch(sql.FIND_IN_QUARANTINE, *columns)
        waiting = {_key(row): row for row in found}
        compare: list[tuple[FrameRows, SignalRow]] = []
        missing: list[Missing] = []
        seen: set[Key] = set()
        for read in frames:
            lost = Missing(read)
            for row, signal in read.pairs():
                key = (read.rows.device.id, row.wire_time, row.digest)
                what = self._place(read, row, key, there.get(key), waiting.get(key), seen)
                seen.add(key)
                if key in unwritable and what in {"compare", "signal", "quarantine"}:
                    self._refuse(read, 1, "the database rejects a record")
                elif what == "compare" and signal is not None:
                    compare.append((read.rows, signal))
                else:
                    self._count(read, lost, what, row, signal)
            if lost.records:
                missing.append(lost)
        return compare, missing

    def _count(self, read: Read, lost: Missing, what: str, row: AnyRow, signal: SignalRow | None) -> None:
        """What is not compared: nowhere, or done with."""
        match what:
            case "duplicate":
                self.counts.duplicate += 1
            case "suppressed":
                self.counts.suppressed += 1
            case "quarantined":
                self.counts.quarantined += 1
            case "signal" if signal is not None:
                lost.signals.append(signal)
            case "quarantine" if isinstance(row, QuarantineRow):
                if row.reason is Reason.RETIRED_DEVICE and signal is not None:
                    lost.retired.append((signal, row))
                else:
                    lost.quarantined.append(row)
            case _:
                self._refuse(read, 1, "a record that is stored cannot be read any more")

    def _place(
        self,
        read: Read,
        row: AnyRow,
        key: Key,
        at: tuple[int, int] | None,
        waiting: Row | None,
        seen: set[Key],
    ) -> str:
        """One word for what is to be done with a record."""
        here = (self._journal_id, read.rows.seq)
        readable = isinstance(row, SignalRow) or row.reason in POLICY
        if key in seen or (at is not None and at != here):
            return "duplicate"
        if at is not None:
            return "compare" if readable else "unread"
        expired = isinstance(row, QuarantineRow) and row.reason is Reason.EXPIRED and waiting is None
        if expired or (key[0], (key[1].year, key[1].month)) in self._expired:
            return "suppressed"
        if waiting is not None and waiting["state"] in {"open", "discarded", "replaced"}:
            return "quarantined"
        if waiting is not None and waiting["state"] == "released":
            # The signal that it became is gone; the frame under whose provenance it stood brings it back.
            if (waiting["journal_id"], waiting["seq"]) != here:
                return "duplicate"
            return "signal" if readable else "unread"
        return "signal" if isinstance(row, SignalRow) else "quarantine"

    def _refuse(self, read: Read, records: int, why: str) -> None:
        self.counts.refused += records
        if len(self._known.refused) + len(self.refused) < limits.REPLAY_NAMED_MAX:
            number, seq = read.rows.device.device_number, read.rows.seq
            self.refused.append(f"device {number}, entry {seq} of journal {self._journal_id}: {why}")

    # What is there ----------------------------------------------------------------------------------------------

    async def _compare(self, rows: Sequence[tuple[FrameRows, SignalRow]]) -> None:
        if not rows:
            return
        values = [signals.values_of(frame, row, self._journal_id, frame.seq, row.record_no) for frame, row in rows]
        changed = await self._connection.fetch(stored.REPLACE, *zip(*values, strict=True))
        self.counts.changed += len(changed)
        self.counts.same += len(rows) - len(changed)
        latest: dict[int, datetime] = {}
        for row in changed:
            device_id, moments = row["device_id"], (row["before"], row["now"])
            self._days.update((device_id, at) for at in moments)
            latest[device_id] = max(*moments, latest.get(device_id, row["now"]))
        if not latest:
            return
        concerned = await self._connection.fetch(stored.POSITION_CONCERNED, list(latest), list(latest.values()))
        for row in concerned:
            future_max = timedelta(seconds=limits.POSITION_FUTURE_S_MAX)
            await self._connection.execute(FIND_POSITION, row["device_id"], future_max)

    # What is nowhere --------------------------------------------------------------------------------------------

    async def _complete(self, missing: Sequence[Missing]) -> None:
        """Write what is missing of frames whose slicing has not changed."""
        missing = await self._sliced_as_before(missing)
        if not missing:
            return
        await self._look_up({lost.read.rows.device.id for lost in missing})
        restored: list[tuple[FrameRows, SignalRow]] = []
        kept: list[FrameRows] = []
        added: list[FrameRows] = []
        for lost in missing:
            line, rows = self.lines[lost.read.rows.device.id], lost.read.rows
            lost.divide(line.missing)
            again = lost.signals[: max(0, line.missing)]
            open_again = lost.quarantined[: max(0, line.missing_open)]
            line.missing -= len(again)
            line.missing_open -= len(open_again)
            for row in again:
                line.key_xor ^= row.digest
                restored.append((rows, row))
            if open_again:
                kept.append(_only(rows, [], open_again))
            taken_over, others = await self._take_over(line, rows, lost.signals[len(again) :])
            restored += [(rows, row) for row in taken_over]
            new = _only(rows, others, lost.quarantined[len(open_again) :])
            if new.signals or new.quarantined:
                added.append(new)
            self._days.update((rows.device.id, row.device_time or rows.received_at) for row in lost.signals)
            self.counts.restored += len(again) + len(taken_over) + len(open_again)
            self.counts.added += len(new.signals) + len(new.quarantined)
        await self._restore(restored)
        if kept:
            await keep_quarantined(self._connection, self._journal_id, kept)
        if added:
            await write_again(self._connection, self._journal_id, added)
        await self._settle_keys({rows.device.id for rows, _ in restored})

    async def _sliced_as_before(self, missing: Sequence[Missing]) -> list[Missing]:
        if not missing:
            return []
        devices = {lost.read.rows.device.id for lost in missing}
        seqs = [lost.read.rows.seq for lost in missing]
        standing: dict[int, list[Row]] = {}
        for row in await self._connection.fetch(stored.OF_FRAMES, self._journal_id, list(devices), seqs):
            standing.setdefault(row["seq"], []).append(row)
        kept = []
        for lost in missing:
            keys = lost.read.keys
            others = [row for row in standing.get(lost.read.rows.seq, []) if _key(row) not in keys]
            if any(row["place"] == "discarded" and row["reason"] in UNREAD for row in others):
                self.counts.quarantined += lost.records
            elif any(_speaks_of_other_slicing(row) for row in others):
                self._refuse(lost.read, lost.records, "this version cuts it into other records than those stored of it")
            else:
                kept.append(lost)
        return kept

    async def _look_up(self, device_ids: set[int]) -> None:
        unknown = device_ids - self._known.lines.keys()
        found = await stored.lines(self._connection, self._journal_id, sorted(unknown)) if unknown else {}
        for device_id in device_ids:
            line = self._known.lines.get(device_id) or found.get(device_id) or Line(self._journal_id)
            self.lines[device_id] = msgspec.structs.replace(line)

    async def _take_over(
        self, line: Line, rows: FrameRows, signal_rows: Sequence[SignalRow]
    ) -> tuple[list[SignalRow], list[SignalRow]]:
        """Records that this journal does not miss, divided: re-sends of what another journal misses, and new ones.

        Such a re-send was booked as one; it is stored in the place of the other from now on, and both lines say so.
        """
        taken: list[SignalRow] = []
        if not signal_rows or line.duplicate < 1:
            return taken, list(signal_rows)
        device_id = rows.device.id
        for other in await stored.lines_elsewhere(self._connection, self._journal_id, device_id):
            while other.missing > 0 and other.stored > 0 and line.duplicate > 0 and len(taken) < len(signal_rows):
                row = signal_rows[len(taken)]
                taken.append(row)
                other.missing, other.stored, other.key_xor = (
                    other.missing - 1,
                    other.stored - 1,
                    other.key_xor ^ row.digest,
                )
                line.duplicate -= 1
                await self._connection.execute(
                    stored.MOVE_BOOKING, other.journal_id, self._journal_id, device_id, row.digest
                )
            if other.missing == 0 and other.key_xor:
                await self._connection.execute(stored.SET_XOR, other.journal_id, device_id, other.key_xor)
        return taken, list(signal_rows[len(taken) :])

    async def _restore(self, rows: Sequence[tuple[FrameRows, SignalRow]]) -> None:
        """Store what the ledger has already."""
        if not rows:
            return
        values = [signals.values_of(frame, row, self._journal_id, frame.seq, row.record_no) for frame, row in rows]
        gained = await signals.store(self._connection, values, {})
        assert sum(one.rows for one in gained.values()) == len(rows), "looked for under the devices' locks"
        latest = signals.latest(values)
        await self._connection.execute(sql.MOVE_MARK, list(latest), list(latest.values()))
        await move_positions(self._connection, rows)

    async def _settle_keys(self, device_ids: Iterable[int]) -> None:
        """Nothing is missing any more: if others than the missing ones came back in their place, which the count
        cannot tell, the missing ones are booked when they come, and the ledger must know the digests that are there."""
        for device_id in device_ids:
            line = self.lines[device_id]
            if line.missing == 0 and line.key_xor:
                await self._connection.execute(stored.SET_XOR, self._journal_id, device_id, line.key_xor)
                line.key_xor = 0


def _key(row: Row) -> Key:
    return row["device_id"], row["wire_time"], row["digest"]


def _only(rows: FrameRows, kept: list[SignalRow], quarantined: list[QuarantineRow]) -> FrameRows:
    return msgspec.structs.replace(rows, signals=kept, quarantined=quarantined, suppressed=0)


def _speaks_of_other_slicing(row: Row) -> bool:
    """Whether a row under a frame's provenance, that is none of its records now, was one of its records before."""
    match row["place"]:
        case "replaced":
            return False
        case "released":
            return row["reason"] not in UNREAD
        case _:
            return True
