"""What one ingest transaction carries. Values only: pure, so that triage can fill them without a database."""

from __future__ import annotations

from datetime import datetime

import msgspec

from signalkeep.journal.record import FrameEntry
from signalkeep.model import DeviceSettings, DeviceStatus, Reason, Signal
from signalkeep.rules.judge import Hit


class Device(msgspec.Struct, frozen=True):
    """A device as the registry knew it when a frame was decoded. `revision` lets the writer notice a change."""

    id: int
    device_number: str
    status: DeviceStatus
    revision: int
    settings: DeviceSettings
    erased_to: datetime | None = None  # what was sent or received at or before it was erased, and stays away

    def is_erased(self, wire_time: datetime, received_at: datetime) -> bool:
        """Whether a record lies at or below the floor of an erasure."""
        return self.erased_to is not None and (wire_time <= self.erased_to or received_at <= self.erased_to)


class SignalRow(msgspec.Struct, gc=False):
    """A record that shall become a row in `signal`."""

    record_no: int
    wire_time: datetime  # of the record key
    digest: int
    flags: int
    device_time: datetime | None
    signal: Signal
    attributes: bytes  # those of the signal as JSON, ready to be stored
    raw_record: bytes  # kept in case that the database rejects the row
    hits: tuple[Hit, ...] = ()  # what rules found in it; their bits are in `flags`


class QuarantineRow(msgspec.Struct):
    """A record that shall become a row in `quarantine`."""

    record_no: int
    wire_time: datetime
    digest: int
    reason: Reason
    detail: str
    raw_record: bytes


class FrameRows(msgspec.Struct, gc=False):
    """A frame with what becomes of its records."""

    seq: int
    frame: FrameEntry
    received_at: datetime
    device: Device
    signals: list[SignalRow] = msgspec.field(default_factory=list)
    quarantined: list[QuarantineRow] = msgspec.field(default_factory=list)
    suppressed: int = 0  # records at or below the device's floor: counted, and nothing else


class Sessions(msgspec.Struct):
    """What a range says of one device's connections."""

    connections: int = 0  # on which it identified itself
    connected_at: datetime | None = None  # the latest of these
    peer: str = ""  # of that one
    closed: dict[str, datetime] = msgspec.field(default_factory=dict)  # by peer, when it was closed


class LostRange(msgspec.Struct, frozen=True):
    """Entries of a journal that could not be read."""

    first_seq: int
    last_seq: int
    why: str
    evidence: str


class CursorMove(msgspec.Struct):
    """A range of one lane, (after_seq, last_seq], with what its cursor counts besides moving."""

    lane: int
    after_seq: int
    last_seq: int
    frames: int = 0
    other_entries: int = 0
    lost: list[LostRange] = msgspec.field(default_factory=list)

    @property
    def lost_entries(self) -> int:
        return sum(span.last_seq - span.first_seq + 1 for span in self.lost)


class IngestBatch(msgspec.Struct):
    """Ranges of lanes of one journal with the rows that they become. Written whole, or not at all."""

    journal_id: int
    moves: list[CursorMove]
    frames: list[FrameRows]
    refusals: dict[str, int] = msgspec.field(default_factory=dict)
    sessions: dict[str, Sessions] = msgspec.field(default_factory=dict)  # by device number


class Written(msgspec.Struct):
    """What a transaction did, in records."""

    records: int = 0
    stored: int = 0
    duplicate: int = 0
    quarantined: int = 0
    suppressed: int = 0

    def add(self, other: Written) -> None:
        self.records += other.records
        self.stored += other.stored
        self.duplicate += other.duplicate
        self.quarantined += other.quarantined
        self.suppressed += other.suppressed
