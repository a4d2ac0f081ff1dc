"""`decode`: what signalkeep makes of messages, without a gateway or a database. Nothing is stored or sent.

Messages come from standard input, one whole message a line: hexadecimal, or with `--text` as text. A blank line
begins a new connection. Exactly one line goes out for each message, at once, so that it can be used interactively.
With `--json`:

    {"signals": [{"device_number", "device_time", "fix_valid", "latitude", "longitude", "altitude_m", "speed_kmh",
                  "course_deg", "satellites", "event_code", "attributes": {...}}, ...],
     "replies": [hexadecimal: what the server would send, held replies included, in order],
     "refused": [{"reason", "detail", "sample": its first bytes, hexadecimal}, ...]}

`refused` holds what the connection refuses and what cannot be decoded, by the words of docs/reasons.md, and three
of its own: `not_hex` and `line_too_long` (the line is no message; exit code 2 at the end) and `session_closed`: an
earlier refusal ended the connection, which stays so up to the next blank line.

`--lenient` decodes a message although its checksum is wrong; its signals get the attribute `checksum_valid: false`,
and no reply is shown, as none would be sent. It also decodes messages before any login, for no device (null).

A line that stops within a message is `truncated`. The next line is not taken for its rest: the connection is set up
anew, with the last message that named its device. A line of text has lost its line end, so protocols that are text
get one. Its bytes are latin-1 where that can write it, otherwise UTF-8; JSON is always UTF-8.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, BinaryIO, Final

import msgspec
import typer

from signalkeep import limits
from signalkeep.cli.common import JsonOption, complete_protocol
from signalkeep.model import DeviceSettings, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols import registry
from signalkeep.protocols.contract import Event, Frame, Identified, Refused, Reply, Session, TrackerProtocol

STAND_IN_NUMBER: Final = "000000000000000"  # for messages without a login; never shown
UTF_8_PROTOCOLS: Final = {"json"}
NO_MESSAGE: Final = {"not_hex", "line_too_long"}


class Answer(msgspec.Struct):
    """What became of one message."""

    signals: list[dict[str, Any]] = msgspec.field(default_factory=list)
    replies: list[str] = msgspec.field(default_factory=list)
    refused: list[dict[str, str]] = msgspec.field(default_factory=list)

    def refuse(self, reason: str, detail: str, found: bytes) -> None:
        sample = found[: limits.REFUSED_SAMPLE_BYTES_MAX].hex()
        self.refused.append({"reason": reason, "detail": detail, "sample": sample})


class Conversation:
    """One connection, message by message."""

    def __init__(self, protocol: TrackerProtocol, *, lenient: bool) -> None:
        self._protocol = protocol
        self._lenient = lenient
        self._login = b""  # the last message that named the device
        self._device_number: str | None = None
        self._session = protocol.session()
        self._closed = False

    def take(self, message: bytes) -> Answer:
        """Read one whole message."""
        answer = Answer()
        if self._closed:
            answer.refuse(
                "session_closed", "a refusal has ended the connection; a blank line begins a new one", message
            )
            return answer
        events = list(self._session.feed(message))
        if self._lenient and any(isinstance(event, Refused) and event.reason is Reason.NO_IDENTITY for event in events):
            self._log_in_as_nobody()
            events = list(self._session.feed(message))
        rest = self._unfinished(message)
        if any(isinstance(event, Identified) for event in events) and not rest:
            self._login = message
        self._apply(events, answer)
        if rest and not self._closed:
            self._apply(rest, answer, stopped=True)
            self._closed = False  # the message was at fault, not the connection
            self._session = self._logged_in()
        return answer

    def _unfinished(self, message: bytes) -> list[Event]:
        """What would be said if the connection ended behind this message: nothing, if the message is whole."""
        session = self._logged_in()
        for _ in session.feed(message):
            pass
        return list(session.end())

    def _logged_in(self) -> Session:
        session = self._protocol.session()
        for _ in session.feed(self._login):
            pass
        return session

    def _log_in_as_nobody(self) -> None:
        encoder = registry.ENCODERS.get(self._protocol.name)
        self._login = encoder.encode_login(STAND_IN_NUMBER) if encoder else b""
        self._session = self._logged_in()

    def _apply(self, events: Iterable[Event], answer: Answer, *, stopped: bool = False) -> None:
        for event in events:
            match event:
                case Identified(device_number=device_number, reply=reply):
                    self._device_number = device_number or None
                    self._say(reply, answer)
                case Frame(reply=reply):
                    self._decode(event, answer)
                    self._say(reply, answer)
                case Reply(data=data):
                    self._say(data, answer)
                case Refused():
                    self._refuse(event, answer, stopped=stopped)

    def _say(self, reply: bytes, answer: Answer) -> None:
        if reply:
            answer.replies.append(reply.hex())

    def _refuse(self, event: Refused, answer: Answer, *, stopped: bool) -> None:
        if self._lenient and event.frame is not None:
            self._decode(event.frame, answer, checksum_valid=False)
            if not event.recoverable:
                self._session = self._logged_in()
            return
        self._closed = self._closed or not event.recoverable
        detail = "" if event.recoverable else "ends the connection"
        answer.refuse(event.reason, "the line stops within a message" if stopped else detail, event.sample)

    def _decode(self, frame: Frame, answer: Answer, *, checksum_valid: bool = True) -> None:
        for outcome in self._outcomes(frame):
            if isinstance(outcome, Undecodable):
                answer.refuse(outcome.reason, outcome.detail, outcome.raw_record)
                continue
            if not checksum_valid:
                outcome.signal.attributes["checksum_valid"] = False
            answer.signals.append(as_shown(self._device_number, outcome.signal))

    def _outcomes(self, frame: Frame) -> list[Outcome]:
        try:
            return self._protocol.decode(frame.raw, self._device_number or "", frame.context, DeviceSettings())
        except Exception as error:  # as at ingest: a decoder's bug costs this message, not those behind it
            return [Undecodable(Reason.DECODER_ERROR, f"{type(error).__name__}: {error}", frame.raw)]


def decode(
    protocol: Annotated[str, typer.Argument(help="protocol of the messages", autocompletion=complete_protocol)],
    text: Annotated[bool, typer.Option("--text", help="the lines are text, not hexadecimal")] = False,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="a wrong checksum is noted, a missing login overlooked")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Decode messages from standard input, one a line; a blank line begins a new connection."""
    spoken = registry.get(protocol)
    conversation = Conversation(spoken, lenient=lenient)
    failed = False
    for line in lines_of(sys.stdin.buffer):
        if not line.strip():
            conversation = Conversation(spoken, lenient=lenient)
            continue
        message = message_of(line, spoken, as_text=text)
        answer = message if isinstance(message, Answer) else conversation.take(message)
        failed = failed or any(refused["reason"] in NO_MESSAGE for refused in answer.refused)
        shown = msgspec.json.encode(answer).decode() if json_output else line_for_people(answer)
        sys.stdout.write(shown + "\n")
        sys.stdout.flush()
    if failed:
        raise typer.Exit(2)


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends. Of one that is too long, only so much that it can be told."""
    while line := stream.readline(limits.SEND_LINE_BYTES_MAX + 1):
        piece = line
        while piece and not piece.endswith(b"\n"):
            piece = stream.readline(limits.SEND_LINE_BYTES_MAX)
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def message_of(line: bytes, protocol: TrackerProtocol, *, as_text: bool) -> bytes | Answer:
    """The bytes that a line stands for; an answer that says so if it stands for none."""
    fault = Answer()
    if len(line) > limits.SEND_LINE_BYTES_MAX:
        fault.refuse("line_too_long", f"more than {limits.SEND_LINE_BYTES_MAX} bytes", line)
        return fault
    if as_text:
        return text_bytes(line, protocol) + (b"\n" if protocol.text else b"")
    try:
        return bytes.fromhex(line.decode("ascii"))
    except ValueError as error:
        fault.refuse("not_hex", f"{error}; --text is for lines that are text", line)
        return fault


def text_bytes(line: bytes, protocol: TrackerProtocol) -> bytes:
    """Text protocols send single bytes, and terminals UTF-8: \\x80 is typed as two bytes and means one."""
    if protocol.name in UTF_8_PROTOCOLS:
        return line
    try:
        return line.decode("utf-8").encode("latin-1")
    except UnicodeError:  # bytes already, or text that latin-1 cannot write
        return line


def as_shown(device_number: str | None, signal: Signal) -> dict[str, Any]:
    """A signal with its names in a fixed order."""
    return {
        "device_number": device_number,
        "device_time": as_text(signal.device_time),
        "fix_valid": signal.fix_valid,
        "latitude": signal.latitude,
        "longitude": signal.longitude,
        "altitude_m": signal.altitude_m,
        "speed_kmh": signal.speed_kmh,
        "course_deg": signal.course_deg,
        "satellites": signal.satellites,
        "event_code": signal.event_code,
        "attributes": signal.attributes,
    }


def as_text(at: datetime | None) -> str | None:
    """2013-08-31T15:00:41.710Z"""
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line_for_people(answer: Answer) -> str:
    """The same without names for what is plain, and without what is not there."""
    parts = []
    for signal in answer.signals:
        number, at, valid, latitude, longitude = list(signal.values())[:5]
        place = "no position" if latitude is None or longitude is None else f"{latitude} {longitude}"
        words = [number or "no device", at or "no time", place, "valid" if valid else "no fix"]
        words += [f"{key}={value}" for key, value in list(signal.items())[5:-1] if value is not None]
        words += [f"{key}={msgspec.json.encode(value).decode()}" for key, value in signal["attributes"].items()]
        parts.append(" ".join(words))
    parts += [f"refused: {refused['reason']} {refused['detail']}".rstrip() for refused in answer.refused]
    parts += [f"reply: {reply}" for reply in answer.replies]
    shown = "; ".join(parts) or "nothing"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
