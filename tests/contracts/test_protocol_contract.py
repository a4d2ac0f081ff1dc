"""What every protocol must keep, checked for each that the registry holds: protocols/contract.py as tests.

The invariant in one sentence: any bytes, cut anyhow, give only events and outcomes of the contract, the same ones
each time, with work and memory bounded by the bytes.

What it cannot see: a search in compiled code that begins anew with every piece copies nothing and runs no lines.
"""

from __future__ import annotations

import ast
import itertools
import sys
import tracemalloc
from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signalkeep import limits
from signalkeep.errors import CallerError
from signalkeep.ingest.validate import attributes_json, fault
from signalkeep.model import Decoded, DeviceSettings, Outcome, Reason, Signal, Undecodable
from signalkeep.protocols import registry
from signalkeep.protocols.contract import AckClass, Event, Frame, Identified, Refused, Reply
from signalkeep.protocols.registry import ENCODERS, PROTOCOLS
from tests.contracts.samples import DEVICE_NUMBER, conversations, drive_of, long_stream

every_protocol = pytest.mark.parametrize("name", sorted(PROTOCOLS))
untimed = settings(deadline=None)  # bounded by examples: a slow machine is no failure
every_encoder = pytest.mark.parametrize("name", sorted(ENCODERS))

NO_SETTINGS: Final = DeviceSettings()
DIGEST_NAME_BYTES_MAX: Final = 16
IMPURE: Final = {
    "asyncio", "ctypes", "http", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets", "select",
    "selectors", "shutil", "signal", "socket", "ssl", "structlog", "subprocess", "sys", "tempfile", "threading", "time",
}  # fmt: skip


# Running a session


def run(name: str, pieces: Iterable[bytes]) -> list[Event]:
    """The events of a conversation, each of them checked."""
    session = PROTOCOLS[name].session()
    events: list[Event] = []
    for piece in pieces:
        events += session.feed(piece)
    events += session.end()
    check_events(events)
    return events


def check_events(events: list[Event]) -> None:
    identified = False
    for number, event in enumerate(events):
        match event:
            case Identified():
                identified = True
                assert len(event.device_number) <= limits.DEVICE_NUMBER_CHARS_MAX
                assert event.device_number.isascii()
                assert event.device_number.isprintable()
                assert all(type(part) is bytes for part in (event.reply, event.refusal))
            case Frame():
                assert identified, "a frame before its device was named"
                check_frame(event)
            case Reply():
                assert type(event.data) is bytes
                assert event.data
            case Refused():
                assert type(event.reason) is Reason
                assert type(event.sample) is bytes
                assert len(event.sample) <= limits.REFUSED_SAMPLE_BYTES_MAX
                assert event.recoverable or number == len(events) - 1, "events after the end of the stream"
                if event.frame is not None:
                    assert event.reason in (Reason.CHECKSUM, Reason.TRUNCATED)
                    check_frame(event.frame)
            case _:
                pytest.fail(f"{event!r} is no event")


def check_frame(frame: Frame) -> None:
    assert type(frame.raw) is bytes
    assert 0 < len(frame.raw) <= limits.FRAME_BYTES_MAX
    assert type(frame.reply) is bytes
    texts = [text for item in frame.context.items() for text in item]
    assert sum(len(text.encode()) for text in texts) <= limits.CONTEXT_BYTES_MAX


def decode(name: str, frame: Frame) -> list[Outcome]:
    outcomes = PROTOCOLS[name].decode(frame.raw, DEVICE_NUMBER, frame.context, NO_SETTINGS)
    check_outcomes(outcomes, frame.raw)
    assert all(outcome.raw_record for outcome in outcomes)
    return outcomes


def check_outcomes(outcomes: list[Outcome], raw: bytes) -> None:
    assert len(outcomes) <= max(1, len(raw)), "more records than bytes"
    for outcome in outcomes:
        assert type(outcome.raw_record) is bytes
        if isinstance(outcome, Decoded):
            check_signal(outcome.signal)
        else:
            assert isinstance(outcome, Undecodable)
            assert type(outcome.reason) is Reason
            assert type(outcome.detail) is str
            check_time(outcome.wire_time)


def check_signal(signal: Signal) -> None:
    check_time(signal.wire_time)
    check_time(signal.device_time)
    for number in (signal.latitude, signal.longitude, signal.altitude_m, signal.speed_kmh, signal.course_deg):
        assert number is None or type(number) in (float, int)
    assert type(signal.fix_valid) is bool
    assert signal.satellites is None or type(signal.satellites) is int
    assert signal.event_code is None or type(signal.event_code) is str
    assert all(type(key) is str for key in signal.attributes)
    msgspec.json.encode(signal.attributes)


def check_time(at: datetime | None) -> None:
    assert at is None or at.tzinfo is UTC


def frames_of(events: Iterable[Event]) -> list[Frame]:
    return [event for event in events if isinstance(event, Frame)]


def cut(stream: bytes, at: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[begin:end] for begin, end in itertools.pairwise(places)]


def singly(stream: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in stream]


# The strategies

CUTS: Final = st.lists(st.integers(0, 10_000), max_size=8)
PIECES: Final = st.binary(max_size=8) | st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\n", b"{", b"}", b'"', b"\x7f\xff"])


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A sample stream, spoilt in a few places: overwritten, cut out, put in, repeated, cut off."""
    stream = draw(st.sampled_from(conversations(name)))
    for _ in range(draw(st.integers(0, 4))):
        begin, end = sorted(draw(st.integers(0, len(stream))) for _ in range(2))
        piece = draw(PIECES)
        match draw(st.integers(0, 4)):
            case 0:
                stream = stream[:begin] + piece + stream[begin + len(piece) :]
            case 1:
                stream = stream[:begin] + stream[end:]
            case 2:
                stream = stream[:begin] + piece + stream[begin:]
            case 3:
                stream = (stream[:end] + stream[begin:])[:4096]
            case 4:
                stream = stream[:end]
    return stream


# What a session keeps


@every_protocol
def test_samples_give_frames_and_frames_give_signals(name: str) -> None:
    """Otherwise everything below would prove nothing."""
    signals = 0
    for stream in conversations(name):
        frames = frames_of(run(name, [stream]))
        assert frames
        for frame in frames:
            for outcome in decode(name, frame):
                if isinstance(outcome, Decoded):
                    signals += 1
                    assert fault(outcome.signal, attributes_json(outcome.signal)) is None
    assert signals


@every_protocol
def test_byte_by_byte_gives_the_same_events(name: str) -> None:
    for stream in conversations(name):
        assert run(name, singly(stream)) == run(name, [stream]) == run(name, [b"", stream, b""])


@every_protocol
@untimed
@given(data=st.data(), cuts=CUTS)
def test_any_bytes_give_the_same_events_however_they_are_cut(name: str, data: st.DataObject, cuts: list[int]) -> None:
    stream = data.draw(mutated(name) | st.binary(max_size=300))
    events = run(name, [stream])
    assert run(name, cut(stream, cuts)) == events
    assert run(name, singly(stream)) == events
    for frame in frames_of(events):
        decode(name, frame)


@every_protocol
def test_a_session_says_how_much_of_a_message_has_come(name: str) -> None:
    """Between messages nothing; within one all of it that has come, so that a deadline and a bound can be kept."""
    for stream in conversations(name):
        session, begun = PROTOCOLS[name].session(), 0
        assert session.partial_bytes == 0
        for piece in singly(stream):
            events, before = list(session.feed(piece)), session.partial_bytes
            assert session.partial_bytes in (0, begun + 1) or events
            begun = before
        list(session.end())
        assert session.partial_bytes == 0


@every_encoder
def test_between_packets_nothing_is_partial(name: str) -> None:
    encoder = ENCODERS[name]
    session = PROTOCOLS[name].session()
    login, packet = encoder.encode_login(DEVICE_NUMBER), encoder.encode_frame(DEVICE_NUMBER, drive_of(name, 1))
    list(session.feed(login + packet))
    assert session.partial_bytes == 0
    list(session.feed(packet[: len(packet) // 2]))
    assert session.partial_bytes == len(packet) // 2
    list(session.feed(packet[len(packet) // 2 :] + packet[:7]))
    assert session.partial_bytes == 7


@every_protocol
@untimed
@given(data=st.data(), rest=st.binary(max_size=64))
def test_nothing_comes_after_the_end_of_the_stream(name: str, data: st.DataObject, rest: bytes) -> None:
    session = PROTOCOLS[name].session()
    events = list(session.feed(data.draw(mutated(name) | st.binary(max_size=300))))
    if not any(isinstance(event, Refused) and not event.recoverable for event in events):
        events = list(session.end())
    for piece in (rest, *conversations(name)):
        assert list(session.feed(piece)) == []
    assert list(session.end()) == []


@every_protocol
@pytest.mark.parametrize(
    "filler",
    [b"\0", b"\xff", b"\x01", b" ", b"x", b'"', b'{"":', b"[", b'\\"', pytest.param(b"x" * 99 + b"\n", id="lines")],
)
def test_memory_is_bounded(name: str, filler: bytes) -> None:
    """Whatever was begun, and however it goes on, a session holds at most one frame and the piece it was fed."""
    piece = filler * (16 * limits.KIB // len(filler))
    overhead = 24 * limits.KIB  # growing buffers are larger than what is in them, by an eighth; and the session itself
    stream = conversations(name)[-1]
    run(name, [stream, piece])  # what is made once and kept, is made now
    for begun in (stream[: len(stream) * sevenths // 7] for sevenths in (1, 2, 4, 6)):
        tracemalloc.start()
        try:
            session = PROTOCOLS[name].session()
            list(session.feed(begun))
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(2 * limits.FRAME_BYTES_MAX // len(piece)):
                deque(session.feed(piece), maxlen=0)
                held = tracemalloc.get_traced_memory()[0] - before
                assert held <= limits.FRAME_BYTES_MAX + len(piece) + overhead
        finally:
            tracemalloc.stop()


def work(name: str, stream: bytes) -> tuple[int, int]:
    """(lines run, bytes allocated for a moment) while a stream is fed byte by byte."""
    session, lines, transient = PROTOCOLS[name].session(), 0, 0

    def trace(*_: Any) -> Any:
        nonlocal lines
        lines += 1
        return trace

    before = sys.gettrace()
    tracemalloc.start()
    try:
        for piece in singly(stream):
            tracemalloc.reset_peak()
            held, _ = tracemalloc.get_traced_memory()
            sys.settrace(trace)
            list(session.feed(piece))
            sys.settrace(before)
            transient += tracemalloc.get_traced_memory()[1] - held
    finally:
        sys.settrace(before)
        tracemalloc.stop()
    return lines, transient


@every_encoder
def test_work_grows_with_the_bytes_not_with_their_square(name: str) -> None:
    shorter, longer = long_stream(name, 6_000), long_stream(name, 12_000)
    assert len(frames_of(run(name, [longer]))) == 1
    growth = len(longer) / len(shorter)
    for less, more in ((shorter, longer), (b"x" * 6_000, b"x" * 6_000 * round(growth))):
        for units_less, units_more in zip(work(name, less), work(name, more), strict=True):
            assert units_more < 1.4 * growth * units_less


@every_protocol
def test_only_frames_carry_what_promises_that_data_are_safe(name: str) -> None:
    for stream in conversations(name):
        for frame in frames_of(run(name, [stream])):
            match PROTOCOLS[name].ack_class:
                case AckClass.PER_PACKET:
                    assert frame.reply
                case AckClass.NEVER | AckClass.LOGIN_ONLY:
                    assert not frame.reply


@every_encoder
def test_a_packet_gives_its_device_and_frames_and_nothing_else(name: str) -> None:
    encoder = ENCODERS[name]
    packet = encoder.encode_frame(DEVICE_NUMBER, drive_of(name, 3))
    events = run(name, [encoder.encode_login(DEVICE_NUMBER), packet, packet])
    first, *others = events
    assert isinstance(first, Identified)
    assert first.device_number == DEVICE_NUMBER
    assert others
    assert all(isinstance(event, Frame) for event in others)


# What a decoder keeps


@every_protocol
@untimed
@given(
    data=st.data(),
    device_number=st.text("0123456789", max_size=20),
    context=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    time_zone=st.sampled_from(["", "Europe/Athens", "No/Where"]),
    model=st.sampled_from(["", "FMB920", "\0"]),
)
def test_any_bytes_decode_to_outcomes(
    name: str, data: st.DataObject, device_number: str, context: dict[str, str], time_zone: str, model: str
) -> None:
    raw = data.draw(mutated(name) | st.binary(max_size=200))
    check_outcomes(PROTOCOLS[name].decode(raw, device_number, context, DeviceSettings(time_zone, model)), raw)


@every_protocol
@untimed
@given(data=st.data())
def test_a_frame_decodes_alone_and_always_the_same(name: str, data: st.DataObject) -> None:
    frames = frames_of(run(name, [data.draw(mutated(name))]))
    in_order = [repr(decode(name, frame)) for frame in frames]
    assert [repr(decode(name, frame)) for frame in reversed(frames)] == in_order[::-1]


@every_encoder
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 10))
def test_round_trip(name: str, seed: int, count: int) -> None:
    sent = drive_of(name, count, seed)
    outcomes = [outcome for frame in frames_of(written(name, [sent])) for outcome in decode(name, frame)]
    assert len(outcomes) == len(sent)
    for outcome, signal in zip(outcomes, sent, strict=True):
        assert isinstance(outcome, Decoded)
        found = outcome.signal
        assert signal.attributes.items() <= found.attributes.items()
        for key in signal.__struct_fields__:
            assert key == "attributes" or getattr(found, key) == getattr(signal, key), key


@every_encoder
def test_a_record_keeps_its_bytes_however_records_are_grouped(name: str) -> None:
    signals = drive_of(name, 6)
    together = record_bytes(written(name, [signals]), name)
    assert len(set(together)) == len(signals)
    assert record_bytes(written(name, [signals[:2], signals[2:]]), name) == together
    assert record_bytes(written(name, [[signal] for signal in signals]), name) == together


def written(name: str, packets: list[list[Signal]]) -> list[Event]:
    encoder = ENCODERS[name]
    return run(
        name,
        [encoder.encode_login(DEVICE_NUMBER), *(encoder.encode_frame(DEVICE_NUMBER, packet) for packet in packets)],
    )


def record_bytes(events: list[Event], name: str) -> list[bytes]:
    return [outcome.raw_record for frame in frames_of(events) for outcome in decode(name, frame)]


# What the registry keeps


@every_protocol
def test_the_registry_knows_it(name: str) -> None:
    protocol = registry.get(name)
    assert protocol.name == name
    assert len(name.encode()) <= DIGEST_NAME_BYTES_MAX
    assert 0 < protocol.default_port < 65536
    assert [other.name for other in PROTOCOLS.values() if other.default_port == protocol.default_port] == [name]
    assert protocol.transports
    assert set(protocol.transports) <= {"tcp", "udp"}
    assert isinstance(protocol.ack_class, AckClass)
    with pytest.raises(CallerError) as error:
        registry.get(f"no {name}")
    assert name in error.value.hint


@every_protocol
def test_its_modules_import_nothing_that_reaches_outside(name: str) -> None:
    folder = Path(str(registry.__file__)).parent
    module = Path(str(sys.modules[type(PROTOCOLS[name]).__module__].__file__))
    assert module.parent == folder
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {module.split(".")[0] for module in imported} & IMPURE, path
            assert not (isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"}), path
