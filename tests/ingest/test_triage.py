"""Signal or quarantine: decided by bytes, envelope and registry, and by nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from signalkeep.ingest.triage import record_keys, reject, triage
from signalkeep.journal.record import FrameEntry
from signalkeep.model import (
    Context,
    Decoded,
    DeviceSettings,
    DeviceStatus,
    Flag,
    Outcome,
    Reason,
    Signal,
    Undecodable,
)
from signalkeep.store.rows import Device, FrameRows
from tests.gateway.toy import ToyProtocol

RECEIVED = datetime(2026, 5, 1, 12, tzinfo=UTC)
GOOD_TIME = datetime(2026, 5, 1, 11, tzinfo=UTC)
ACTIVE = Device(1, "123", DeviceStatus.ACTIVE, 1, DeviceSettings())


class Scripted(ToyProtocol):
    """Decodes every frame to the same outcomes."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)

    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        return self.outcomes


class Broken(ToyProtocol):
    def decode(self, frame: bytes, device_number: str, context: Context, settings: DeviceSettings) -> list[Outcome]:
        raise ZeroDivisionError("a bug")


def decoded(raw: bytes = b"r", time: datetime | None = GOOD_TIME, **values: object) -> Decoded:
    return Decoded(Signal(wire_time=time, device_time=time, **values), raw)  # type: ignore[arg-type]  # test values


def run(
    protocol: ToyProtocol | None, device: Device = ACTIVE, *, retention_days: int = 0, forced: bool = False
) -> FrameRows:
    frame = FrameEntry(
        received_at_us=int(RECEIVED.timestamp() * 1e6),
        protocol="toy",
        device_number=device.device_number,
        peer="",
        context={},
        raw=b"frame",
    )
    return triage(7, frame, device, protocol, retention_days=retention_days, forced=forced)


def only_reason(rows: FrameRows) -> Reason:
    assert not rows.signals
    (row,) = rows.quarantined
    return row.reason


def test_a_good_record_becomes_a_signal_with_its_provenance() -> None:
    rows = run(Scripted(decoded(b"a"), decoded(b"b")))
    assert [row.record_no for row in rows.signals] == [0, 1]
    assert rows.seq == 7
    assert rows.received_at == RECEIVED
    assert rows.signals[0].wire_time == GOOD_TIME
    assert rows.signals[0].device_time == GOOD_TIME
    assert rows.signals[0].flags == 0
    assert rows.signals[0].digest != rows.signals[1].digest


def test_one_bad_record_never_takes_its_neighbours_along() -> None:
    bad = Undecodable(Reason.BAD_FORMAT, "no", b"x", GOOD_TIME)
    rows = run(Scripted(decoded(b"a"), bad, decoded(b"c"), decoded(b"d", event_code="\0")))
    assert [row.record_no for row in rows.signals] == [0, 2]
    assert [(row.record_no, row.reason) for row in rows.quarantined] == [
        (1, Reason.BAD_FORMAT),
        (3, Reason.BAD_VALUE),
    ]
    assert rows.quarantined[0].raw_record == b"x"


def test_a_decoder_that_raises_costs_no_data() -> None:
    rows = run(Broken())
    assert only_reason(rows) is Reason.DECODER_ERROR
    assert rows.quarantined[0].raw_record == b"frame"
    assert "ZeroDivisionError" in rows.quarantined[0].detail


def test_a_protocol_that_is_not_installed_is_kept() -> None:
    assert only_reason(run(None)) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("device", "time", "reason"),
    [
        (msgspec.structs.replace(ACTIVE, status=DeviceStatus.UNKNOWN), GOOD_TIME, Reason.UNKNOWN_DEVICE),
        (msgspec.structs.replace(ACTIVE, status=DeviceStatus.RETIRED), GOOD_TIME, Reason.RETIRED_DEVICE),
        (msgspec.structs.replace(ACTIVE, device_number=""), GOOD_TIME, Reason.NO_DEVICE_NUMBER),
        (ACTIVE, RECEIVED + timedelta(hours=25), Reason.FUTURE),
        (ACTIVE, RECEIVED - timedelta(days=31), Reason.EXPIRED),
    ],
)
def test_reasons_of_policy(device: Device, time: datetime, reason: Reason) -> None:
    protocol = Scripted(decoded(time=time))
    assert only_reason(run(protocol, device, retention_days=30)) is reason
    forced = run(protocol, device, retention_days=30, forced=True)
    if reason is Reason.NO_DEVICE_NUMBER:
        assert only_reason(forced) is reason, "there is no device to store it under"
    else:
        assert forced.signals[0].flags & Flag.FORCED


def test_a_record_without_a_usable_clock_is_stored_and_flagged() -> None:
    rows = run(Scripted(decoded(time=None), decoded(b"old", time=datetime(1980, 1, 6, tzinfo=UTC))))
    for row in rows.signals:
        assert row.flags == Flag.WEAK_KEY
        assert row.wire_time == RECEIVED
        assert row.device_time is None


def test_by_default_nothing_is_too_old() -> None:
    assert run(Scripted(decoded(time=datetime(2001, 1, 1, tzinfo=UTC)))).signals


def test_reject_moves_one_record_and_keeps_its_bytes_and_key() -> None:
    rows = run(Scripted(decoded(b"a"), decoded(b"b")))
    before = rows.signals[1]
    reject(rows, 1, "22003", "out of range \0 ü")
    assert [row.record_no for row in rows.signals] == [0]
    (row,) = rows.quarantined
    assert (row.reason, row.raw_record, row.digest) == (Reason.DATABASE_REJECTED, b"b", before.digest)
    assert row.detail.isascii()
    assert "\0" not in row.detail


def test_reject_finds_a_record_by_its_number_not_by_its_place() -> None:
    rows = run(Scripted(*(decoded(raw) for raw in (b"a", b"b", b"c", b"d"))))
    for record_no in (1, 2):
        reject(rows, record_no, "22003", "")
    assert [row.raw_record for row in rows.signals] == [b"a", b"d"]
    assert [(row.record_no, row.raw_record) for row in rows.quarantined] == [(1, b"b"), (2, b"c")]


def test_record_keys_are_those_of_triage() -> None:
    protocol = Scripted(decoded(b"a"), decoded(b"b", time=None), Undecodable(Reason.BAD_VALUE, "", b"c"))
    rows = run(protocol)
    expected = {(row.wire_time, row.digest) for row in rows.signals}
    expected |= {(row.wire_time, row.digest) for row in rows.quarantined}
    assert set(record_keys(rows.frame, protocol)) == expected
