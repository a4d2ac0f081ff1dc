"""Teltonika frames to records: codecs 8, 8 extended, 16 and 7; codecs 12 to 15 are in `teltonika_messages`.

Source: the maker's public page "Teltonika Data Sending Protocols"; codec 7 is that of the old GH3000.

    frame    u32 0, u32 length of the data, data, u32 CRC
    data     u8 codec, u8 count, records, u8 count again

`raw_record` is a record from its time to its last element, so it is the same however the device groups records when
it sends them again. It is frozen: it decides what is a duplicate.

Some devices put one more group, of 16-byte values, into codec 8, and nothing says so: a frame whose records do not
end at the second count is tried that way. If it fits neither way, the records in front are kept as long as each has
as many elements as it announces, and all that follows is one undecodable rest: what comes after a broken record can
begin anywhere. The checksum was the session's business and is not looked at here.

Never raises on any bytes; time is linear in their length.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

from signalkeep.model import Decoded, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols.teltonika_io import NO_TABLE, TABLES, Table, add_numbers, alarm_of, join_cells
from signalkeep.protocols.teltonika_messages import MESSAGE_CODECS, message
from signalkeep.protocols.teltonika_parts import Cursor, time_of_ms
from signalkeep.protocols.teltonika_shapes import Shapes
from signalkeep.protocols.teltonika_variable import attributes_of

CODEC_7: Final = 0x07
CODEC_8: Final = 0x08
CODEC_8_EXTENDED: Final = 0x8E
CODEC_16: Final = 0x10

HEADER_BYTES: Final = 8
CHECKSUM_BYTES: Final = 4
DATA_BYTES_MIN: Final = 3

GH3000_EPOCH_S: Final = 1_167_609_600  # 2007-01-01
DEGREES: Final = 10_000_000  # coordinates are sent in units of 1e-7 degrees
LATITUDE_MAX: Final = 90 * DEGREES
LONGITUDE_MAX: Final = 180 * DEGREES


class Layout(NamedTuple):
    """Of a record: from the time to the number of all elements; then groups, each a count and (id, value) pairs."""

    head: struct.Struct
    counter: struct.Struct
    groups: tuple[tuple[struct.Struct, Table], ...]
    shapes: Shapes
    wide: struct.Struct | None = None  # pairs of a group of 16-byte values
    variable: struct.Struct | None = None  # id and length of an element in the last group


U8, U16 = struct.Struct(">B"), struct.Struct(">H")
SIZES: Final = ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))


def groups(id_code: str) -> tuple[tuple[struct.Struct, Table], ...]:
    return tuple((struct.Struct(f">{id_code}{code}"), TABLES[size]) for size, code in SIZES)


def shapes(counter: struct.Struct, id_bytes: int) -> Shapes:
    return Shapes(counter, id_bytes, [(size, TABLES[size]) for size, _ in SIZES])


# Time in ms, priority, longitude, latitude, altitude, course, satellites, speed; event id, (generation,) elements.
LAYOUT_8: Final = Layout(struct.Struct(">QBiihHBHBB"), U8, groups("B"), shapes(U8, 1))
LAYOUT_8_WIDE: Final = LAYOUT_8._replace(shapes=shapes(U8, 1), wide=struct.Struct(">B16s"))
LAYOUT_8_EXTENDED: Final = Layout(
    struct.Struct(">QBiihHBHHH"), U16, groups("H"), shapes(U16, 2), variable=struct.Struct(">HH")
)
LAYOUT_16: Final = Layout(struct.Struct(">QBiihHBHHBB"), U8, groups("H"), shapes(U8, 2))


def decode_frame(frame: bytes) -> list[Outcome]:
    """The records of a whole frame."""
    size = len(frame) - HEADER_BYTES - CHECKSUM_BYTES
    if size < DATA_BYTES_MIN or int.from_bytes(frame[4:HEADER_BYTES]) != size:
        return cut_short(frame) or [Undecodable(Reason.BAD_FORMAT, "the length does not fit", frame)]
    return decode_data(frame[HEADER_BYTES:-CHECKSUM_BYTES])


def decode_data(data: bytes) -> list[Outcome]:
    """The records of a frame's data; at least DATA_BYTES_MIN bytes."""
    codec, count, again = data[0], data[1], data[-1]
    if codec not in READERS and codec not in MESSAGE_CODECS:
        return [Undecodable(Reason.UNSUPPORTED, f"codec {codec:#04x}", data)]
    if count != again:
        return [Undecodable(Reason.COUNT_MISMATCH, f"{count} records in front, {again} behind", data)]
    if codec in MESSAGE_CODECS:
        return [message(data)]
    attempts = []
    for reader in READERS[codec]:
        attempt = read_records(data[:-1], count, reader)
        if attempt.fault is None:
            return attempt.outcomes
        attempts.append(attempt)
    first = attempts[0]
    rest = data[first.end : -1] or data  # records may be missing where no bytes are left
    return [*first.outcomes, Undecodable(Reason.BAD_FORMAT, first.fault or "", rest)]


def cut_short(frame: bytes) -> list[Outcome]:
    """The records of a frame whose length is wrong, if they are whole and only the checksum may be missing; else none.

    Such a frame is refused by the session, so it never comes from a journal: somebody looks at a message by hand.
    """
    data = frame[HEADER_BYTES:]
    codec, count = (data[0], data[1]) if len(data) >= DATA_BYTES_MIN else (0, 0)
    for reader in READERS.get(codec, ()):
        attempt = read_records(data, count, reader)
        rest = data[attempt.end :]
        if count == len(attempt.outcomes) and rest[:1] == bytes([count]) and len(rest) <= 1 + CHECKSUM_BYTES:
            return attempt.outcomes
    return []


# Records with a position


class Read(NamedTuple):
    """One record that was read. `sound`: it has as many elements as it announces."""

    signal: Signal
    end: int
    sound: bool


Reader: TypeAlias = Callable[[bytes, int], Read]
"""Reads the record at an offset; raises struct.error where the bytes are too short."""


class Attempt(NamedTuple):
    """Records read in one way. With a fault: only those in front that can be trusted, and where they end."""

    outcomes: list[Outcome]
    end: int
    fault: str | None


def read_records(body: bytes, count: int, reader: Reader) -> Attempt:
    outcomes: list[Outcome] = []
    trusted, trusted_end = 0, 2
    at, unsound, fault = 2, False, None
    for number in range(1, count + 1):
        try:
            read = reader(body, at)
        except struct.error:
            fault = f"record {number} of {count} is cut short"
            break
        outcomes.append(Decoded(read.signal, body[at : read.end]))
        at = read.end
        unsound = unsound or not read.sound
        if not unsound:
            trusted, trusted_end = number, at
    if fault is None and at == len(body):
        return Attempt(outcomes, at, None)
    if trusted < len(outcomes):
        fault = f"record {trusted + 1} of {count} has another number of elements than it announces"
    fault = fault or f"{len(body) - at} bytes behind the last of {count} records"
    return Attempt(outcomes[:trusted], trusted_end, fault)


def record(body: bytes, at: int, layout: Layout) -> Read:
    """A record of codec 8, 8 extended or 16."""
    (
        sent_ms,
        priority,
        longitude,
        latitude,
        altitude_m,
        course_deg,
        satellites,
        speed_kmh,
        event_id,
        *kind,
        announced,
    ) = layout.head.unpack_from(body, at)
    at += layout.head.size
    known = layout.shapes.read(body, at, announced)
    if known is not None:
        attributes, at = known
        elements = announced
    else:
        attributes, elements, end = elements_of(body, at, layout)
        if elements == announced:
            layout.shapes.learn(body, at, end, announced)
        at = end
    finish(attributes, event_id, priority)
    if kind:
        attributes["generation_type"] = kind[0]
    is_place = longitude != 0 or latitude != 0
    in_range = -LATITUDE_MAX <= latitude <= LATITUDE_MAX and -LONGITUDE_MAX <= longitude <= LONGITUDE_MAX
    wire_time = time_of_ms(sent_ms)
    signal = Signal(
        wire_time=wire_time,
        device_time=wire_time,
        fix_valid=satellites > 0 and is_place and in_range,
        latitude=latitude / DEGREES if is_place else None,
        longitude=longitude / DEGREES if is_place else None,
        altitude_m=altitude_m,
        speed_kmh=speed_kmh,
        course_deg=course_deg,
        satellites=satellites,
        event_code=str(event_id) if event_id else None,
        attributes=attributes,
    )
    return Read(signal, at, elements == announced)


def elements_of(body: bytes, at: int, layout: Layout) -> tuple[dict[str, Any], int, int]:
    """All elements of a record: the attributes, how many elements they were, and where they end."""
    attributes: dict[str, Any] = {}
    elements = 0
    for pair, table in layout.groups:
        (count,) = layout.counter.unpack_from(body, at)
        at += layout.counter.size
        if count:
            end = at + count * pair.size
            if end > len(body):
                raise struct.error("a group goes on behind the end")
            add_numbers(attributes, pair.iter_unpack(body[at:end]), table)
            elements += count
            at = end
    if layout.wide is not None:
        at, elements = add_wide(attributes, body, at, layout.wide, elements)
    if layout.variable is not None:
        at, elements = add_variable(attributes, body, at, layout.variable, elements)
    return attributes, elements, at


def finish(attributes: dict[str, Any], event_id: int, priority: int) -> None:
    """What follows from several elements together, and from the record's head."""
    join_cells(attributes)
    if event_id:
        alarm = alarm_of(event_id, attributes)
        if alarm is not None:
            attributes["alarm"] = alarm
    if priority:
        attributes["priority"] = priority


def add_wide(attributes: dict[str, Any], body: bytes, at: int, pair: struct.Struct, elements: int) -> tuple[int, int]:
    """The group of 16-byte values, of which none is known. Returns where it ends, and how many elements there are."""
    (count,) = U8.unpack_from(body, at)
    at += U8.size
    for _ in range(count):
        io_id, value = pair.unpack_from(body, at)
        attributes[f"io{io_id}"] = value.hex()
        at += pair.size
    return at, elements + count


def add_variable(
    attributes: dict[str, Any], body: bytes, at: int, head: struct.Struct, elements: int
) -> tuple[int, int]:
    """The group of elements with a length of their own. Returns as `add_wide` does."""
    (count,) = U16.unpack_from(body, at)
    at += U16.size
    for _ in range(count):
        io_id, size = head.unpack_from(body, at)
        at += head.size
        if at + size > len(body):
            raise struct.error("an element goes on behind the end")
        value = body[at : at + size]
        found = attributes_of(io_id, value)
        if found is None or not attributes.keys().isdisjoint(found):
            found = {f"io{io_id}": value.hex()}
        attributes |= found
        at += size
    return at, elements + count


def gh3000_record(body: bytes, at: int) -> Read:
    """A record of codec 7. Its element ids are not those of later devices, so they stay numbers."""
    cursor = Cursor(body, at)
    head, mask = cursor.number(4), cursor.number(1)
    signal = Signal(wire_time=time_of_ms((GH3000_EPOCH_S + (head & 0x3FFFFFFF)) * 1000), device_time=None)
    signal.device_time = signal.wire_time
    if mask & 1:
        gh3000_position(cursor, signal)
    for bit, size, code in ((1, 1, "B"), (2, 2, "H"), (3, 4, "I")):
        if mask >> bit & 1:
            pairs = cursor.take(cursor.number(1) * (1 + size))
            add_numbers(signal.attributes, struct.iter_unpack(f">B{code}", pairs), NO_TABLE)
    finish(signal.attributes, 0, head >> 30)
    return Read(signal, cursor.at, True)


def gh3000_position(cursor: Cursor, signal: Signal) -> None:
    """The GPS element of codec 7: which parts it has, says its mask."""
    mask = cursor.number(1)
    if mask & 1:
        latitude, longitude = cursor.float32(), cursor.float32()
        if (latitude, longitude) != (0, 0) and isfinite(latitude) and isfinite(longitude):
            signal.latitude, signal.longitude = round(latitude, 7), round(longitude, 7)
            signal.fix_valid = abs(latitude) <= 90 and abs(longitude) <= 180
    if mask & 2:
        signal.altitude_m = cursor.number(2)
    if mask & 4:
        signal.course_deg = cursor.number(1) * 360 / 256
    if mask & 8:
        signal.speed_kmh = cursor.number(1)
    if mask & 16:
        signal.satellites = cursor.number(1)
        signal.fix_valid = signal.fix_valid and signal.satellites > 0
    if mask & 32:
        signal.attributes["gsm_area_code"] = cursor.number(2)
        signal.attributes["gsm_cell_id"] = cursor.number(2)
    if mask & 64:
        signal.attributes["gsm_rssi"] = cursor.number(1)
    if mask & 128:
        signal.attributes["operator_code"] = cursor.number(4)


READERS: Final[dict[int, tuple[Reader, ...]]] = {
    CODEC_7: (gh3000_record,),
    CODEC_8: (partial(record, layout=LAYOUT_8), partial(record, layout=LAYOUT_8_WIDE)),
    CODEC_8_EXTENDED: (partial(record, layout=LAYOUT_8_EXTENDED),),
    CODEC_16: (partial(record, layout=LAYOUT_16),),
}
"""How records can be read, by codec, in the order of trying."""
