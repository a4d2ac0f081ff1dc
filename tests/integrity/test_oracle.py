"""The rows against what a fleet was told: each fault is counted, with an example; earlier fleets are left out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from signalkeep.integrity.oracle import OracleVerdict, compare
from signalkeep.journal.record import FrameEntry
from signalkeep.store import registry
from signalkeep.store.postgres import Connection
from tests.builders import NUMBER, RECEIVED, Feed, event

pytestmark = pytest.mark.servers


class Line(msgspec.Struct, frozen=True):
    """What the fleet wrote down of a record."""

    device_number: str
    device_time: datetime
    latitude: float | None = 37.98
    longitude: float | None = 23.73
    speed_kmh: float | None = None
    event_code: str | None = None


def line(minute: int, number: str = NUMBER) -> Line:
    return Line(number, RECEIVED - timedelta(minutes=minute))


async def stored(connection: Connection, *frames: FrameEntry) -> None:
    for number in {entry.device_number for entry in frames}:
        await registry.register(connection, number, actor="tests")
    await (await Feed.open(connection)).write(connection, *frames)


async def verdict(connection: Connection, safe: Iterable[Line], sent: Iterable[Line] = ()) -> OracleVerdict:
    return await compare(connection, safe, sent)


def faults(found: OracleVerdict) -> tuple[int, int, int, int]:
    return found.missing, found.spurious, found.doubled, found.corrupted


async def test_everything_told_safe_is_there(connection: Connection) -> None:
    await stored(connection, event(minute=1), event(minute=2))
    found = await verdict(connection, [line(1)], [line(1), line(2), line(3)])
    assert faults(found) == (0, 0, 0, 0), "sent and not acknowledged: may be there or not"
    assert found.ok
    assert (found.safe, found.sent, found.stored) == (1, 3, 2)


async def test_a_record_that_waits_in_quarantine_is_not_missing(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event(minute=1))
    found = await verdict(connection, [line(1)])
    assert found.ok
    assert (found.stored, found.quarantined) == (0, 1)


async def test_missing(connection: Connection) -> None:
    await stored(connection, event(minute=1))
    found = await verdict(connection, [line(1), line(2)])
    assert faults(found) == (1, 0, 0, 0)
    assert "missing" in found.examples[0]
    assert NUMBER in found.examples[0]
    assert not found.ok


async def test_spurious(connection: Connection) -> None:
    await stored(connection, event(minute=1), event(minute=2))
    assert faults(await verdict(connection, [line(1)])) == (0, 1, 0, 0)


async def test_doubled(connection: Connection) -> None:
    await stored(connection, event(minute=1), event(minute=1, extra=1))
    assert faults(await verdict(connection, [line(1)])) == (0, 0, 1, 0)


async def test_doubled_over_both_tables(connection: Connection) -> None:
    await (await Feed.open(connection)).write(connection, event(minute=1))  # nobody has registered the device yet
    await stored(connection, event(minute=1, extra=1))
    assert faults(await verdict(connection, [line(1)])) == (0, 0, 1, 0)


@pytest.mark.parametrize("change", [{"latitude": 1.0}, {"longitude": None}, {"speed_kmh": 9}, {"event_code": "7"}])
async def test_corrupted(connection: Connection, change: dict[str, Any]) -> None:
    await stored(connection, event(minute=1, **change))
    assert faults(await verdict(connection, [line(1)])) == (0, 0, 0, 1)


async def test_rows_of_an_earlier_fleet_with_the_same_numbers_do_not_count(connection: Connection) -> None:
    earlier = event(minute=5)
    earlier = msgspec.structs.replace(earlier, received_at_us=earlier.received_at_us - 3600 * 1_000_000)
    await stored(connection, earlier, event(minute=1))
    found = await verdict(connection, [line(1)])
    assert faults(found) == (0, 0, 0, 0)
    assert found.stored == 1
