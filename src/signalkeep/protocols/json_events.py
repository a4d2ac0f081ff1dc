"""The protocol `json`: events as JSON objects over TCP, one a line or one a connection, each answered with `1`.

    {"device_number": "86915304265485", "event_code": "4002", "message_date": "2020/02/05 12:18:28",
     "latitude": "37.9815116", "longitude": "23.7315200"}

Framing. An event is a balanced `{...}`, complete with its last brace: no newline and no end of the connection is
needed. What is no event ends at the next newline, and the stream goes on behind it:

    white space between events, one byte order mark at the start    skipped
    anything else between events                                    unframable, up to the newline
    a raw newline within a string, `{` where JSON has none          truncated; what follows may begin an event
    nested deeper than limits.JSON_NESTING_MAX                      unframable, up to the newline
    longer than limits.FRAME_BYTES_MAX                              oversized (junk: unframable), not recoverable

So an event that was cut off takes the next one with it only if it was cut right where JSON may have an object.
Balanced bytes that are no JSON, or name no usable device, are frames all the same: kept, and set aside later.

Decoding. Values may be numbers or text; null and blank text mean "not given". Keys that are signal fields must be
readable, or the record is undecodable; every other key is kept as an attribute under its own name.

    device_number                1 to 64 printable ASCII characters without blanks (or an integer)
    event_code                   text or integer
    message_date                 YYYY-MM-DD or YYYY/MM/DD, T or blank, HH:MM[:SS[.fraction]], then Z, +HH:MM, +HHMM,
                                 +HH or nothing; or seconds since 1970, from 1e11 on milliseconds. Without a zone it
                                 is UTC, unless the device has a time zone: that moves device_time, never wire_time
    device_time                  the same, read where there is no message_date
    latitude, longitude          degrees; out of range they are kept, but are no valid fix
    altitude_m (or altitude), speed_kmh, course_deg (or course), satellites
                                 a plain `speed` has no unit, so it stays an attribute
    fix_valid                    true or false; otherwise: both coordinates are there and not 0, 0

Never logs, never raises on any bytes, never looks at a clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, auto
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from signalkeep import limits
from signalkeep.model import Context, Decoded, DeviceSettings, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols.contract import AckClass, Event, Frame, Identified, Refused

ANSWER: Final = b"1"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
BLANKS: Final = re.compile(rb"[ \t\r\n]*")
TOKEN: Final = re.compile(rb'["{}\[\]:,]|[^"{}\[\]:, \t\r\n]+')
STRING_STOP: Final = re.compile(rb'["\\\n]')
NEWLINE, QUOTE, COLON, COMMA, OPEN, CLOSE, OPEN_LIST, CLOSE_LIST = b'\n":,{}[]'

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
SECONDS_BELOW: Final = 10**11
MILLISECONDS_BELOW: Final = 253_402_300_800_000  # the year 10000
NUMBER_CHARS_MAX: Final = 64
SHOWN_CHARS_MAX: Final = 80
NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
DATE: Final = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?(Z|[+-]\d\d(?::?[0-5]\d)?)?", re.ASCII
)
OTHER_NAMES: Final = {"altitude_m": "altitude", "course_deg": "course"}


class Mode(Enum):
    """What the bytes at the front of the buffer belong to."""

    START = auto()  # nothing came yet but, perhaps, the beginning of a byte order mark
    BETWEEN = auto()
    EVENT = auto()
    JUNK = auto()  # up to the next newline


class Found(Enum):
    """How a scan of an event ended; its `position` is the first byte behind."""

    COMPLETE = auto()
    CUT = auto()
    TOO_DEEP = auto()


class EventScan:
    """How far an event was read. Looks at each byte once, however the bytes were cut."""

    def __init__(self) -> None:
        self.position = 0  # from the event's first brace
        self._within = bytearray()  # the open braces and brackets
        self._in_string = False
        self._escaped = False  # the byte before was a backslash
        self._object_may_follow = True

    def advance(self, buffer: bytearray, stop: int) -> Found | None:
        """Read on up to `stop`; None if the event goes on behind it."""
        found = None
        while self.position < stop and found is None:
            found = self._string(buffer, stop) if self._in_string else self._token(buffer, stop)
        return found

    def _string(self, buffer: bytearray, stop: int) -> Found | None:
        if self._escaped and buffer[self.position] != NEWLINE:
            self._escaped = False
            self.position += 1
            return None
        match = STRING_STOP.search(buffer, self.position, stop)
        if match is None:
            self.position = stop
            return None
        byte = buffer[match.start()]
        if byte == NEWLINE:
            self.position = match.start()
            return Found.CUT
        self.position = match.end()
        self._in_string, self._escaped = byte != QUOTE, byte != QUOTE
        return None

    def _token(self, buffer: bytearray, stop: int) -> Found | None:
        match = TOKEN.search(buffer, self.position, stop)
        if match is None:
            self.position = stop
            return None
        byte = buffer[match.start()]
        if byte == OPEN and not self._object_may_follow:
            self.position = match.start()
            return Found.CUT
        self.position = match.end()
        self._in_string = byte == QUOTE
        self._object_may_follow = byte in (COLON, OPEN_LIST) or (byte == COMMA and self._within.endswith(b"["))
        if byte in (OPEN, OPEN_LIST):
            if len(self._within) == limits.JSON_NESTING_MAX:
                return Found.TOO_DEEP
            self._within.append(byte)
        elif byte == CLOSE:  # braces decide where an event ends, so it also closes lists that were left open
            del self._within[self._within.rindex(OPEN) :]
            return None if self._within else Found.COMPLETE
        elif byte == CLOSE_LIST and self._within.endswith(b"["):
            self._within.pop()
        return None


class JsonSession:
    """One conversation. The buffer begins with what is not finished: never more than an event may have."""

    def __init__(self) -> None:
        self._mode = Mode.START
        self._buffer = bytearray()
        self._scan = EventScan()
        self._junk_sample = b""
        self._junk_bytes = 0
        self._device_number: str | None = None
        self._closed = False

    @property
    def partial_bytes(self) -> int:
        """See the contract; junk counts with what was dropped of it, for it is over only at its newline."""
        return len(self._buffer) + (self._junk_bytes if self._mode is Mode.JUNK else 0)

    def feed(self, data: bytes) -> Iterator[Event]:
        """Take the next bytes; see the contract."""
        if self._closed:
            return
        self._buffer += data
        yield from self._events()

    def end(self) -> Iterator[Event]:
        """The peer has closed its side: what is not complete never will be."""
        if self._closed:
            return
        if self._mode is Mode.START:
            self._mode = Mode.BETWEEN
            yield from self._events()
        if self._mode is Mode.EVENT:
            yield self._refused(Reason.TRUNCATED, self._buffer)
        elif self._mode is Mode.JUNK:
            yield self._refused(Reason.UNFRAMABLE, self._junk_sample)
        self._close()

    def _events(self) -> Iterator[Event]:
        while self._buffer and not self._closed:
            match self._mode:
                case Mode.START:
                    if len(self._buffer) < len(BYTE_ORDER_MARK) and BYTE_ORDER_MARK.startswith(self._buffer):
                        return
                    if self._buffer.startswith(BYTE_ORDER_MARK):
                        del self._buffer[: len(BYTE_ORDER_MARK)]
                    self._mode = Mode.BETWEEN
                case Mode.BETWEEN:
                    self._skip_blanks()
                case Mode.JUNK:
                    yield from self._skip_junk()
                case Mode.EVENT:
                    read_max = min(len(self._buffer), limits.FRAME_BYTES_MAX)
                    found = self._scan.advance(self._buffer, read_max)
                    if found is None and read_max < limits.FRAME_BYTES_MAX:
                        return
                    yield from self._event_ended(found)

    def _skip_blanks(self) -> None:
        blanks = BLANKS.match(self._buffer)
        del self._buffer[: blanks.end() if blanks else 0]
        if self._buffer.startswith(b"{"):
            self._mode, self._scan = Mode.EVENT, EventScan()
        elif self._buffer:
            self._mode = Mode.JUNK

    def _event_ended(self, found: Found | None) -> Iterator[Event]:
        """`found`: None if the event has reached the limit and still goes on."""
        size = self._scan.position
        self._mode = Mode.BETWEEN
        match found:
            case Found.COMPLETE:
                raw = bytes(self._buffer[:size])
                del self._buffer[:size]
                yield from self._frame(raw)
            case Found.CUT:
                yield self._refused(Reason.TRUNCATED, self._buffer[:size])
                del self._buffer[:size]
            case Found.TOO_DEEP:
                self._mode = Mode.JUNK
                self._drop_junk(size)
            case None:
                yield self._refused(Reason.OVERSIZED, self._buffer, recoverable=False)
                self._close()

    def _frame(self, raw: bytes) -> Iterator[Event]:
        device_number = device_number_of(raw)
        if device_number != self._device_number:
            self._device_number = device_number
            yield Identified(device_number)
        yield Frame(raw, reply=ANSWER)

    def _skip_junk(self) -> Iterator[Event]:
        newline_at = self._buffer.find(b"\n")
        self._drop_junk(newline_at if newline_at >= 0 else len(self._buffer))
        if self._junk_bytes > limits.FRAME_BYTES_MAX:
            yield self._refused(Reason.UNFRAMABLE, self._junk_sample, recoverable=False)
            self._close()
        elif newline_at >= 0:
            yield self._refused(Reason.UNFRAMABLE, self._junk_sample)
            self._mode, self._junk_sample, self._junk_bytes = Mode.BETWEEN, b"", 0

    def _drop_junk(self, size: int) -> None:
        room = limits.REFUSED_SAMPLE_BYTES_MAX - len(self._junk_sample)
        self._junk_sample += self._buffer[: min(size, room)]
        self._junk_bytes += size
        del self._buffer[:size]

    def _refused(self, reason: Reason, found: bytes | bytearray, *, recoverable: bool = True) -> Refused:
        return Refused(reason, bytes(found[: limits.REFUSED_SAMPLE_BYTES_MAX]), recoverable)

    def _close(self) -> None:
        self._closed = True
        self._mode = Mode.BETWEEN
        self._buffer.clear()


class NamedEvent(msgspec.Struct):
    """An event, as far as the session reads it; the rest is passed over unread."""

    device_number: str | int | None = None


NAMED_EVENTS: Final = msgspec.json.Decoder(NamedEvent)


def device_number_of(raw: bytes) -> str:
    """The device that an event names; "" if it names none that can be used."""
    try:
        found = NAMED_EVENTS.decode(raw).device_number
    except (ValueError, RecursionError):
        return ""
    number = "" if found is None else str(found).strip()
    usable = number.isascii() and number.isprintable() and " " not in number
    return number if usable and len(number) <= limits.DEVICE_NUMBER_CHARS_MAX else ""


class BadValueError(Exception):
    """A key that must be readable is not; the message names key and value."""

    def __init__(self, key: str, value: Any) -> None:
        super().__init__(f"{key} is {repr(value)[:SHOWN_CHARS_MAX]}")


class JsonProtocol:
    """As the registry holds it."""

    name = "json"
    default_port = 2006
    transports: tuple[str, ...] = ("tcp",)
    ack_class = AckClass.PER_PACKET
    text = True

    def session(self) -> JsonSession:
        return JsonSession()

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        """One record, whose bytes are the frame's: devices re-send the same bytes.

        `device_number` stands above the one in the event: the registry may have decided since.
        """
        del device_number, context
        try:
            event = msgspec.json.decode(frame)
        except msgspec.ValidationError as error:  # JSON, with a number that nothing can hold
            return [Undecodable(Reason.BAD_VALUE, str(error), frame)]
        except (ValueError, RecursionError) as error:
            return [Undecodable(Reason.BAD_FORMAT, f"no JSON: {error}", frame)]
        if not isinstance(event, dict):
            return [Undecodable(Reason.BAD_FORMAT, f"no JSON object but a {type(event).__name__}", frame)]
        event.pop("device_number", None)
        wire_time = None
        try:
            wire_time, has_zone = take_time(event)
            device_time = wire_time if has_zone else in_zone(wire_time, settings.time_zone)
            return [Decoded(signal_of(event, wire_time, device_time), frame)]
        except BadValueError as error:
            return [Undecodable(Reason.BAD_VALUE, str(error), frame, wire_time)]


def signal_of(event: dict[str, Any], wire_time: datetime | None, device_time: datetime | None) -> Signal:
    """Takes what is a field of a signal; what is left of the event becomes its attributes."""
    latitude, longitude = take_number(event, "latitude"), take_number(event, "longitude")
    said = event.pop("fix_valid") if isinstance(event.get("fix_valid"), bool) else None
    return Signal(
        wire_time=wire_time,
        device_time=device_time,
        fix_valid=is_fix(latitude, longitude) if said is None else said and is_place(latitude, longitude),
        latitude=latitude,
        longitude=longitude,
        altitude_m=take_number(event, "altitude_m"),
        speed_kmh=take_number(event, "speed_kmh"),
        course_deg=take_number(event, "course_deg"),
        satellites=take_whole_number(event, "satellites"),
        event_code=take_code(event, "event_code"),
        attributes=event,
    )


def is_place(latitude: float | None, longitude: float | None) -> bool:
    """Both coordinates are there and in range."""
    return latitude is not None and longitude is not None and abs(latitude) <= 90 and abs(longitude) <= 180


def is_fix(latitude: float | None, longitude: float | None) -> bool:
    """A place, and not exactly 0, 0, which is what devices send that have none."""
    return is_place(latitude, longitude) and (latitude, longitude) != (0, 0)


def take(event: dict[str, Any], key: str) -> Any:
    """The value of a key or of its other name, without blanks; None if it is not given. Removes what it took."""
    if key not in event:
        key = OTHER_NAMES.get(key, key)
    value = event.pop(key, None)
    return (value.strip() or None) if isinstance(value, str) else value


def take_number(event: dict[str, Any], key: str) -> float | None:
    """A finite number, sent as number or text."""
    value = take(event, key)
    if value is None:
        return None
    is_number = type(value) in (int, float) or (
        isinstance(value, str) and len(value) <= NUMBER_CHARS_MAX and NUMBER.fullmatch(value)
    )
    try:
        number = float(value) if is_number else float("nan")
    except OverflowError:  # an integer beyond every float
        number = float("inf")
    if not abs(number) < float("inf"):
        raise BadValueError(key, value)
    return number


def take_whole_number(event: dict[str, Any], key: str) -> int | None:
    number = take_number(event, key)
    if number is not None and number != int(number):
        raise BadValueError(key, number)
    return None if number is None else int(number)


def take_code(event: dict[str, Any], key: str) -> str | None:
    value = take(event, key)
    if value is None or type(value) in (str, int):
        return None if value is None else str(value)
    raise BadValueError(key, value)


def take_time(event: dict[str, Any]) -> tuple[datetime | None, bool]:
    """The time as sent, read as UTC where it has no zone; and whether it has one."""
    key = "message_date"
    value = take(event, key)
    if value is None:
        key = "device_time"
        value = take(event, key)
    if value is None:
        return None, False
    try:
        if type(value) in (int, float):
            return since_epoch(value), True
        if isinstance(value, str) and len(value) <= NUMBER_CHARS_MAX:
            if found := DATE.fullmatch(value):
                return from_date(found), found[8] is not None
            if NUMBER.fullmatch(value):
                return since_epoch(int(value) if value.isdigit() else float(value)), True
    except (ValueError, OverflowError):
        pass  # shaped like a time, but none
    raise BadValueError(key, value)


def since_epoch(value: float) -> datetime:
    """Seconds since 1970, or milliseconds where seconds would lie beyond the year 5138. Raises OverflowError."""
    if not abs(value) < MILLISECONDS_BELOW:
        raise OverflowError
    return EPOCH + (timedelta(seconds=value) if abs(value) < SECONDS_BELOW else timedelta(milliseconds=value))


def from_date(found: re.Match[str]) -> datetime:
    """The instant that a match of DATE names. Raises ValueError or OverflowError where there is none."""
    year, month, day, hour, minute = (int(part) for part in found.groups()[:5])
    second, fraction, zone = int(found[6] or 0), (found[7] or "")[:6].ljust(6, "0"), found[8]
    offset = timedelta()
    if zone and zone != "Z":
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        offset = -offset if zone.startswith("-") else offset
    at = datetime(year, month, day, hour, minute, second, int(fraction), tzinfo=timezone(offset))
    return at.astimezone(UTC)


def in_zone(wire_time: datetime | None, time_zone: str) -> datetime | None:
    """A time that was sent without a zone, by a device whose clock runs in this one; "" is UTC."""
    if wire_time is None or not time_zone:
        return wire_time
    try:
        return wire_time.replace(tzinfo=ZoneInfo(time_zone)).astimezone(UTC)
    except (KeyError, ValueError, OSError, OverflowError) as error:  # no such zone, or no such time in it
        raise BadValueError("the device's time zone", time_zone) from error


class JsonEncoder:
    """Writes events as the sheet above has them: coordinates and codes as text, one event a line."""

    def encode_login(self, device_number: str) -> bytes:
        """Nothing: each event names its device."""
        del device_number
        return b""

    def encode_frame(self, device_number: str, signals: list[Signal]) -> bytes:
        """One event for each signal."""
        return b"".join(msgspec.json.encode(event_of(device_number, signal)) + b"\n" for signal in signals)


def event_of(device_number: str, signal: Signal) -> dict[str, Any]:
    """What is None is left out; so is fix_valid, where the coordinates say it."""
    at = signal.wire_time or signal.device_time
    fix_follows = signal.fix_valid is is_fix(signal.latitude, signal.longitude)
    fields = {
        "device_number": device_number,
        "event_code": signal.event_code,
        "message_date": None if at is None else as_sent(at),
        "latitude": None if signal.latitude is None else str(signal.latitude),
        "longitude": None if signal.longitude is None else str(signal.longitude),
        "altitude_m": signal.altitude_m,
        "speed_kmh": signal.speed_kmh,
        "course_deg": signal.course_deg,
        "satellites": signal.satellites,
        "fix_valid": None if fix_follows else signal.fix_valid,
    }
    event = {key: value for key, value in fields.items() if value is not None}
    return event | {key: value for key, value in signal.attributes.items() if key not in fields}


def as_sent(at: datetime) -> str:
    """The talk's form, with a fraction only where there is one."""
    text = at.astimezone(UTC).strftime("%Y/%m/%d %H:%M:%S")
    return f"{text}.{at.microsecond:06d}".rstrip("0") if at.microsecond else text


JSON: Final = JsonProtocol()
JSON_ENCODER: Final = JsonEncoder()
