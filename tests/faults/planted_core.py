"""Bugs of gateway, ingest and store that the simulated core has to notice: what is planted, and where.

Each is one change of the source's text, applied to a copy; see planted.py.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Bug(NamedTuple):
    """In this file, `old` becomes `new`; both stand there exactly once."""

    name: str
    breaks: str  # the promise or invariant that it breaks
    file: str  # below src/signalkeep
    old: str
    new: str
    tier: str = "B"  # which has to notice it: crash states, the simulated core (B), nth call, or damaged journals (H)
    first: int = 1  # the seed from which the tests look: one that is known to notice, so that they do not take long
    by: str = ""  # the test that has to notice it, instead of a tier
    also: tuple[tuple[str, str, str], ...] = ()  # the same mistake in further files: file, old, new

    @property
    def changes(self) -> tuple[tuple[str, str, str], ...]:
        return ((self.file, self.old, self.new), *self.also)


CORE_BUGS: Final = (
    Bug(
        "acknowledged before it is stored",
        "P1",
        "gateway/tcp.py",
        "            writer.append(entry, partial(self._settled, held, read_at))",
        "            writer.append(entry)\n            self._settled(held, read_at, True)",
    ),
    Bug(
        "a frame that could not be stored is acknowledged",
        "P1",
        "gateway/tcp.py",
        "        if not durable:\n            self._why",
        "        if False:\n            self._why",
    ),
    Bug(
        "answers leave as soon as any frame is stored",
        "P1",
        "gateway/session.py",
        "        while ready < len(queue) and queue[ready].ready:",
        "        while any(held.ready for held in queue) and ready < len(queue):",
    ),
    Bug(
        "what waits behind a batch without room is stored without it",
        "P4",
        "journal/writer.py",
        "            self._in_flight += self._queue  #",
        "            pass  #",
        first=11,
    ),
    Bug(
        "no room counts as stored",
        "P1",
        "journal/writer.py",
        "            durable = False\n            self._in_flight",
        "            durable = True\n            self._in_flight",
    ),
    Bug(
        "the cursor moves outside the transaction",
        "P2",
        "store/writer.py",
        "    async with connection.transaction():\n        return await _write(connection, batch)",
        "    await _move_cursors(connection, batch)\n    async with connection.transaction():\n"
        "        for move in batch.moves:\n"
        "            back = 'UPDATE cursor SET seq = $3 WHERE journal_id = $1 AND lane = $2'\n"
        "            await connection.execute(back, batch.journal_id, move.lane, move.after_seq)\n"
        "        return await _write(connection, batch)",
    ),
    Bug(
        "the cursor moves without comparing",
        "P2",
        "store/sql.py",
        "WHERE c.journal_id = $1 AND c.lane = m.lane AND c.seq = m.after_seq",
        "WHERE c.journal_id = $1 AND c.lane = m.lane AND c.seq <> m.after_seq - 1000000000",
        first=4,
    ),
    Bug(
        "the reader goes on where it was after a failed write",
        "P2",
        "ingest/driver.py",
        "            self._reader.seek(lowest)",
        "            pass",
        first=3,
    ),
    Bug(
        "the key holds the time of receipt",
        "P3",
        "ingest/keys.py",
        "    return RecordKey(wire_time, value, weak=False, future=False)",
        "    return RecordKey(received_at, value, weak=False, future=False)",
    ),
    Bug(
        "the digest holds the time of receipt",
        "P3",
        "ingest/keys.py",
        "    value = digest(protocol, raw_record)",
        "    value = digest(protocol, raw_record + str(received_at).encode())",
        first=2,
    ),
    Bug(
        "quarantine does not look for twins",
        "P3",
        "store/writer.py",
        '        del candidates[found["device_id"], found["wire_time"], found["digest"]]',
        "        pass",
        by="tests/store/test_twins.py::test_a_quarantined_record_that_comes_again_is_a_duplicate",
    ),
    Bug(
        "a rejected batch is not bisected",
        "P2",
        "ingest/pipeline.py",
        "        elif len(ranges[0].entries) > 1:",
        "        elif len(ranges[0].entries) > 1_000_000:",
        first=2,
    ),
    Bug(
        "a rejected record takes its neighbours along",
        "P2",
        "ingest/pipeline.py",
        "            alone = msgspec.structs.replace(rows, signals=[row], quarantined=[])",
        "            alone = msgspec.structs.replace(rows, quarantined=[])",
        first=2,
    ),
    Bug(
        "segments go before the database has them",
        "P2",
        "drivers/retention.py",
        "            if next_first_seq > journal.seq + 1 or not self._may_go(path, used_bytes):",
        "            if not self._may_go(path, used_bytes):",
        first=11,
    ),
    Bug(
        "only the newest journal is read",
        "P6",
        "drivers/service.py",
        "        for directory in find_journals(self._fs, self._settings.journal_root):\n            taken",
        "        for directory in find_journals(self._fs, self._settings.journal_root)[-1:]:\n            taken",
    ),
    Bug(
        "refusals are not counted",
        "P5",
        "gateway/service.py",
        "        if self._shared.refusals:\n            counts",
        "        if len(self._shared.refusals) > 1_000:\n            counts",
        first=16,
    ),
    Bug(
        "duplicates are not counted",
        "P5",
        "store/writer.py",
        "        count.duplicate = count.records - count.stored - count.quarantined - count.suppressed",
        "        count.duplicate = 0",
        first=2,
    ),
    Bug(
        "sockets stay unread once the disk was full",
        "P7",
        "gateway/intake.py",
        "            self.set(Shut.DISK, False)",
        "            pass",
        first=10,
    ),
    Bug(
        "connections that are gone are remembered",
        "I7",
        "gateway/tcp.py",
        "            del shared.connections[self]",
        "            pass",
    ),
    Bug(
        "the lock of a journal that was closed stays",
        "I7",
        "journal/writer.py",
        "            appender.release()\n            fs.close(lock)",
        "            appender.release()",
    ),
)
