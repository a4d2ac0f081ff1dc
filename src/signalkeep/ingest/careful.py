"""Messages that come back again and again: read in ever smaller parts, so that a frame that kills its reader is found.

Each part is a transaction, so what comes before the frame is done with, and is not begun again. Before a frame is
decoded by itself, that is noted in the database. Where several processes have begun a frame and none has finished it,
it is quarantined unread, whole, and its neighbours are stored.
"""

from __future__ import annotations

from collections.abc import Iterator

from signalkeep import limits
from signalkeep.ingest.pipeline import Pipeline, Span
from signalkeep.journal.lanes import lane_of_entry
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Context, DeviceSettings, Outcome, Reason, Undecodable
from signalkeep.store import relay
from signalkeep.store.postgres import Connection
from signalkeep.store.rows import Written


class Unread:
    """Stands in for the protocol of a frame that nobody shall decode any more."""

    def __init__(self, attempts: int) -> None:
        self._detail = f"{attempts} processes ended while they decoded it"

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        del device_number, context, settings
        return [Undecodable(Reason.DECODER_ERROR, self._detail, frame)]


async def write_carefully(
    connection: Connection, pipeline: Pipeline, journal_id: int, span: Span, *, times: int
) -> Written:
    """Write a range that was delivered so many times before, in several transactions. It fits the cursors."""
    written = Written()
    size = max(1, len(span.entries) >> 3 * (times - limits.DELIVERIES_BEFORE_CARE + 1))
    for part in _parts(span, pipeline.cursors, size):
        if size == 1 and part.entries and isinstance(part.entries[-1][1], FrameEntry):
            seq = part.entries[-1][0]
            before = await relay.note_attempt(connection, journal_id, seq)
            if before >= limits.DECODE_ATTEMPTS_MAX:
                pipeline.read_as[seq] = Unread(before)
        written.add(await pipeline.write(await pipeline.prepare_spans([part])))
    await relay.forget_attempts(connection, journal_id, span.last_seq)
    pipeline.read_as.clear()
    return written


def _parts(span: Span, cursors: list[int], frames: int) -> Iterator[Span]:
    """Parts with so many frames that are not written yet, each ending at one, and the rest."""
    after_seq, entries, count = span.after_seq, [], 0
    cursors = list(cursors)
    for seq, entry in span.entries:
        entries.append((seq, entry))
        count += isinstance(entry, FrameEntry) and seq > cursors[lane_of_entry(entry, len(cursors))]
        if count == frames:
            lost = [gap for gap in span.lost if after_seq < gap.first_seq <= seq]
            yield Span(span.lanes, after_seq, seq, entries, lost)
            after_seq, entries, count = seq, [], 0
    if after_seq < span.last_seq:
        lost = [gap for gap in span.lost if gap.first_seq > after_seq]
        yield Span(span.lanes, after_seq, span.last_seq, entries, lost)
