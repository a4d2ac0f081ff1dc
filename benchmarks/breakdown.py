"""Where the microseconds of one record go in our own code: each step by itself, the best of several runs on one core.

    python -m benchmarks.breakdown

The steps are those of a record's way, in their order. What the kernel, the event loop, asyncpg's encoders and
PostgreSQL take is not in it: `make bench` has the processor time of whole processes.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import UUID

from benchmarks.packets import Packet
from benchmarks.report import table
from signalkeep.ingest.keys import record_key
from signalkeep.ingest.triage import triage
from signalkeep.ingest.validate import attributes_json, fault
from signalkeep.journal.lanes import lane_of
from signalkeep.journal.ranges import LaneRange, decode_range, encode_range
from signalkeep.journal.record import Entry, FrameEntry, decode_entries, encode_entry
from signalkeep.limits import LANES_WITH_BROKER
from signalkeep.model import Decoded, DeviceSettings, DeviceStatus
from signalkeep.protocols.teltonika import TELTONIKA
from signalkeep.store import signals
from signalkeep.store.rows import Device

RECORDS = 2_000
REPEATS = 9
NUMBER = "356307040000008"
IN_A_MESSAGE = 200  # entries


def steps(per_packet: int) -> list[tuple[str, float]]:
    """Name and microseconds per record."""
    settings, now = DeviceSettings(), datetime.now(UTC)
    packet = Packet(per_packet, 20, start_ms=int(now.timestamp() * 1000), seed=1)
    login = len(NUMBER).to_bytes(2) + NUMBER.encode()
    raws = [packet.next() for _ in range(RECORDS // per_packet)]
    entries = [FrameEntry(int(now.timestamp() * 1e6), "teltonika", NUMBER, "127.0.0.1:1", {}, raw) for raw in raws]
    body = b"".join(map(encode_entry, entries))
    device = Device(1, NUMBER, DeviceStatus.ACTIVE, 1, settings)
    outcomes = [one for raw in raws for one in TELTONIKA.decode(raw, NUMBER, {}, settings) if isinstance(one, Decoded)]
    written = [attributes_json(one.signal) for one in outcomes]
    frames = [triage(seq, entry, device, TELTONIKA) for seq, entry in enumerate(entries)]
    rows = [(frame, row) for frame in frames for row in frame.signals]
    values = [signals.values_of(frame, row, 1, frame.seq, row.record_no) for frame, row in rows]
    messages = _messages(entries)
    bodies = list(map(encode_range, messages))

    def framing() -> None:
        session = TELTONIKA.session()
        list(session.feed(login))
        for raw in raws:
            list(session.feed(raw))

    work: list[tuple[str, Callable[[], object]]] = [
        ("framing: length, checksum", framing),
        ("journal entry, written", lambda: [encode_entry(entry) for entry in entries]),
        ("journal entry, read", lambda: decode_entries(body, len(entries))),
        ("decode", lambda: [TELTONIKA.decode(raw, NUMBER, {}, settings) for raw in raws]),
        ("record key", lambda: [record_key("teltonika", o.raw_record, o.signal.wire_time, now) for o in outcomes]),
        ("attributes as JSON", lambda: [attributes_json(one.signal) for one in outcomes]),
        ("can it be stored?", lambda: [fault(o.signal, w) for o, w in zip(outcomes, written, strict=True)]),
        ("triage, with the four before", lambda: [triage(s, e, device, TELTONIKA) for s, e in enumerate(entries)]),
        ("values of the row", lambda: [signals.values_of(f, r, 1, f.seq, r.record_no) for f, r in rows]),
        ("new, or to be merged?", lambda: signals._divide(values, {1: None})),
        ("message to broker, written", lambda: [encode_range(one) for one in messages]),
        ("message from broker, read", lambda: [decode_range(body) for body in bodies]),
    ]
    return [(name, _best(step) / RECORDS * 1e6) for name, step in work]


def _messages(entries: Sequence[Entry]) -> list[LaneRange]:
    """For the lane of our device, as a relay sends them."""
    lane, numbered = lane_of(NUMBER, LANES_WITH_BROKER), list(enumerate(entries, 1))
    parts = [numbered[at : at + IN_A_MESSAGE] for at in range(0, len(numbered), IN_A_MESSAGE)]
    return [LaneRange(UUID(int=1), LANES_WITH_BROKER, [lane], 0, x[0][0] - 1, x[-1][0], x, []) for x in parts]


def _best(step: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.process_time()
        step()
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    """Print the table."""
    gc.disable()
    found = {per_packet: steps(per_packet) for per_packet in (10, 1)}
    rows = [(name, f"{ten:.2f}", f"{one:.2f}") for (name, ten), (_, one) in zip(found[10], found[1], strict=True)]
    sys.stdout.write("\n".join(table(("step", "us, 10 a packet", "us, 1 a packet"), rows)) + "\n")


if __name__ == "__main__":
    main()
