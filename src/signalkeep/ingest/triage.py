"""Signal or quarantine? The one place where that is decided, from bytes, envelope and registry alone.

`triage` decodes one frame and gives each record its key and its place. It never looks at history, so the same frame
and the same registry give the same answer today, at a replay and at a release, until the record's month is over for
good (`kept_from`). A decoder that raises costs nothing:
the frame goes to quarantine whole, with the error's name. What lies at or below the floor of an erasure is neither: it
is only counted, so that nothing brings it back. Pure.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from signalkeep.ingest.keys import RecordKey, record_key
from signalkeep.ingest.validate import attributes_json, fault
from signalkeep.journal.record import FrameEntry
from signalkeep.model import Decoded, DeviceSettings, DeviceStatus, Flag, Outcome, Reason, Undecodable
from signalkeep.protocols.contract import Decodes
from signalkeep.store.rows import Device, FrameRows, QuarantineRow, SignalRow

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DETAIL_CHARS_MAX = 500


def triage(
    seq: int,
    frame: FrameEntry,
    device: Device,
    protocol: Decodes | None,
    *,
    retention_days: int = 0,
    kept_from: datetime | None = None,
    forced: bool = False,
) -> FrameRows:
    """Rows for every record of a frame.

    `protocol`: None if the frame names one that this installation does not have. `forced`: a person has decided that
    reasons of policy (unknown device, future, expired) do not count this time; what cannot be decoded stays out.
    `kept_from`: months before it are dropped, whenever the frame was received; nobody can force a record into them.
    """
    received_at = EPOCH + timedelta(microseconds=frame.received_at_us)
    rows = FrameRows(seq=seq, frame=frame, received_at=received_at, device=device)
    oldest = received_at - timedelta(days=retention_days) if retention_days else None
    for record_no, outcome in enumerate(_decode(frame, device.settings, protocol)):
        wire_time = outcome.signal.wire_time if isinstance(outcome, Decoded) else outcome.wire_time
        key = record_key(frame.protocol, outcome.raw_record, wire_time, received_at)
        if device.is_erased(key.wire_time, received_at):
            rows.suppressed += 1
            continue
        written = attributes_json(outcome.signal) if isinstance(outcome, Decoded) else b""
        verdict = _verdict(outcome, written, device, key, oldest, kept_from, forced=forced)
        if verdict is None:
            assert isinstance(outcome, Decoded)
            signal = outcome.signal
            flags = (Flag.WEAK_KEY if key.weak else 0) | (Flag.FORCED if forced else 0)
            device_time = None if key.weak else signal.device_time
            rows.signals.append(
                SignalRow(
                    record_no, key.wire_time, key.digest, int(flags), device_time, signal, written, outcome.raw_record
                )
            )
        else:
            reason, detail = verdict
            rows.quarantined.append(
                QuarantineRow(record_no, key.wire_time, key.digest, reason, detail_of(detail), outcome.raw_record)
            )
    return rows


def record_keys(frame: FrameEntry, protocol: Decodes | None) -> list[tuple[datetime, int]]:
    """(wire_time, digest) of every record of a frame: what an audit looks for. Depends on bytes and envelope alone."""
    received_at = EPOCH + timedelta(microseconds=frame.received_at_us)
    keys = []
    for outcome in _decode(frame, DeviceSettings(), protocol):
        wire_time = outcome.signal.wire_time if isinstance(outcome, Decoded) else outcome.wire_time
        key = record_key(frame.protocol, outcome.raw_record, wire_time, received_at)
        keys.append((key.wire_time, key.digest))
    return keys


def reject(rows: FrameRows, record_no: int, sqlstate: str, detail: str) -> None:
    """Move a record that the database would not take from `signals` to `quarantined`."""
    row = next(row for row in rows.signals if row.record_no == record_no)
    rows.signals.remove(row)
    text = detail_of(f"{sqlstate} {detail}")
    rows.quarantined.append(
        QuarantineRow(record_no, row.wire_time, row.digest, Reason.DATABASE_REJECTED, text, row.raw_record)
    )


def _decode(frame: FrameEntry, settings: DeviceSettings, protocol: Decodes | None) -> list[Outcome]:
    if protocol is None:
        return [Undecodable(Reason.UNSUPPORTED, f"no protocol named {frame.protocol}", frame.raw)]
    try:
        return protocol.decode(frame.raw, frame.device_number, frame.context, settings)
    except Exception as error:
        return [Undecodable(Reason.DECODER_ERROR, f"{type(error).__name__}: {error}", frame.raw)]


def _verdict(
    outcome: Outcome,
    written: bytes,
    device: Device,
    key: RecordKey,
    oldest: datetime | None,
    kept_from: datetime | None,
    *,
    forced: bool,
) -> tuple[Reason, str] | None:
    """Reason and detail for quarantine, None for a signal. What cannot be decoded comes before policy."""
    if not isinstance(outcome, Decoded):
        return outcome.reason, outcome.detail
    problem = fault(outcome.signal, written)
    if problem:
        return Reason.BAD_VALUE, problem
    if not device.device_number:
        return Reason.NO_DEVICE_NUMBER, "the message names no device"
    if kept_from is not None and key.wire_time < kept_from:
        return Reason.EXPIRED, f"of {key.wire_time}, a month that is not kept any more"
    if forced:
        return None
    if device.status is DeviceStatus.UNKNOWN:
        return Reason.UNKNOWN_DEVICE, f"device {device.device_number} is not registered"
    if device.status is DeviceStatus.RETIRED:
        return Reason.RETIRED_DEVICE, f"device {device.device_number} is retired"
    if key.future:
        return Reason.FUTURE, f"sent as {outcome.signal.wire_time}, more than 24 h after it was received"
    if oldest is not None and not key.weak and key.wire_time < oldest:
        return Reason.EXPIRED, f"sent as {key.wire_time}, older than the retention"
    return None


def detail_of(text: str) -> str:
    """A detail as it is stored: printable ASCII of bounded length, whatever a device or a library has put into it."""
    return text.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")[:DETAIL_CHARS_MAX]
