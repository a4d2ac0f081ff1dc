"""How many of everything a fleet needs, by the figures that were measured: the tables of docs/scaling.md.

    python -m benchmarks.scaling [--vehicles 1000 100000 1000000] [--interval 30] [--connections 16000]

Nothing is measured here. What a record costs is from the run of docs/performance.md that fits best (beside a million
rows, one record a packet), its bytes are from `python -m benchmarks.sizes`. Half of every core is left free at the
peak, and one machine of gateways may fail.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

from benchmarks.report import table
from signalkeep import limits

PEAK: Final = 3.0  # records at the busiest time of the day, to the mean
BUSY_MAX: Final = 0.5  # of a core, at the peak
GATEWAY_US: Final = 36.0  # a packet
INGEST_US: Final = 35.3  # a record
POSTGRES_US: Final = 25.0
GATEWAY_MIB: Final = 67.0
CONNECTION_KIB: Final = 2.4
HEAP_BYTES: Final = 683  # of a row
ROW_BYTES: Final = HEAP_BYTES + 73  # with its indexes
ROW_LOG_BYTES: Final = 888
PACKET_BYTES: Final = 135
MESSAGE_BYTES: Final = 197  # of a packet, in a message for the broker
# A packet, by packets a second of a gateway.
JOURNAL_BYTES: Final = ((10, 4301.0), (100, 4018.0), (1_000, 3181.0), (5_000, 561.0))
PARTITION_BYTES_MAX: Final = 32 * 1024 * limits.GIB  # PostgreSQL's bound for one table, which is a month here
MONTH_S: Final = 31 * 86_400
MIB, DAY_S = limits.MIB, 86_400


class Fleet(msgspec.Struct, frozen=True):
    """Vehicles that each send a record every `interval_s`, in a packet of its own."""

    vehicles: int
    interval_s: float = 30.0
    connections: int = limits.CONNECTIONS_MAX  # of a gateway process

    @property
    def mean(self) -> float:
        """Records a second."""
        return self.vehicles / self.interval_s

    @property
    def gateways(self) -> int:
        """Processes that are needed: for connections, or for packets."""
        return max(math.ceil(self.vehicles / self.connections), _cores(PEAK * self.mean, GATEWAY_US))

    @property
    def gateway_machines(self) -> int:
        """One more than are needed."""
        return 1 + math.ceil(self.gateways / limits.GATEWAY_PROCESSES_MAX)

    @property
    def gateways_each(self) -> int:
        """Processes of a machine, so that all but one machine serve everybody."""
        return math.ceil(self.gateways / (self.gateway_machines - 1))

    @property
    def workers(self) -> int:
        """At least two."""
        return max(2, _cores(PEAK * self.mean, INGEST_US))

    @property
    def journal_bytes_s(self) -> float:
        """Of one gateway machine."""
        packets = self.mean / self.gateway_machines
        return packets * journal_packet_bytes(packets / self.gateways_each)


def _cores(per_s: float, us: float) -> int:
    return max(1, math.ceil(per_s * us / 1e6 / BUSY_MAX))


def journal_packet_bytes(packets_s: float) -> float:
    """Of a gateway that gets so many: between what was measured, by the logarithm of the rate."""
    for (low, more), (high, less) in pairwise(JOURNAL_BYTES):
        if packets_s < high:
            share = max(0.0, math.log(packets_s / low) / math.log(high / low))
            return more + (less - more) * share
    return JOURNAL_BYTES[-1][1]


def rows(fleets: Sequence[Fleet]) -> list[tuple[str, ...]]:
    """A line for each thing, a column for each fleet."""
    lines: list[tuple[str, ...]] = []

    def line(name: str, *values: str) -> None:
        lines.append((name, *values))

    line("records/s, mean and peak", *(f"{_short(f.mean)} / {_short(PEAK * f.mean)}" for f in fleets))
    line("gateway processes needed", *(str(f.gateways) for f in fleets))
    line("gateway machines x processes", *(f"{f.gateway_machines} x {f.gateways_each}" for f in fleets))
    line("MiB of a gateway process", *(f"{GATEWAY_MIB + _connections(f) * CONNECTION_KIB / 1024:.0f}" for f in fleets))
    line("relays (one a machine)", *(str(f.gateway_machines) for f in fleets))
    line("worker processes", *(str(f.workers) for f in fleets))
    line("PostgreSQL, cores", *(str(_cores(PEAK * f.mean, POSTGRES_US)) for f in fleets))
    line(
        "PostgreSQL, connections",
        *(_short(f.gateway_machines * (2 * f.gateways_each + 3) + 2 * f.workers) for f in fleets),
    )
    line("signals, GB a day", *(_short(f.mean * ROW_BYTES * DAY_S / 1e9) for f in fleets))
    line("write-ahead log, GB a day", *(_short(f.mean * ROW_LOG_BYTES * DAY_S / 1e9) for f in fleets))
    line("journal, MB/s of a machine", *(_short(f.journal_bytes_s / 1e6) for f in fleets))
    line(
        "40 GiB of journal last, hours", *(_short(limits.JOURNAL_CAP_BYTES / f.journal_bytes_s / 3600) for f in fleets)
    )
    line("broker holds at most, GiB", *(_short(_window_bytes(f) / limits.GIB) for f in fleets))
    line("from devices, Mbit/s at peak", *(_mbit(f, PACKET_BYTES) for f in fleets))
    line("into and out of the broker, each", *(_mbit(f, MESSAGE_BYTES) for f in fleets))
    line("workers to PostgreSQL", *(_mbit(f, ROW_BYTES) for f in fleets))
    return lines


def _connections(fleet: Fleet) -> int:
    return math.ceil(fleet.vehicles / fleet.gateways)


def _window_bytes(fleet: Fleet) -> int:
    return fleet.gateway_machines * fleet.gateways_each * limits.BROKER_QUEUES * limits.BROKER_WINDOW_BYTES


def _mbit(fleet: Fleet, size: float) -> str:
    return _short(PEAK * fleet.mean * size * 8 / 1e6)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def vehicles_of_one_table(interval_s: float = 30.0) -> int:
    """Beyond this many, a month of signals is more than PostgreSQL keeps in one table."""
    return int(PARTITION_BYTES_MAX / HEAP_BYTES / MONTH_S * interval_s)


def text(fleets: Sequence[Fleet]) -> str:
    head = ("vehicles", *(f"{fleet.vehicles:,}" for fleet in fleets))
    return "\n".join(table(head, rows(fleets))).strip()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vehicles", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--interval", type=float, default=30.0, help="seconds between two records of a vehicle")
    parser.add_argument("--connections", type=int, default=limits.CONNECTIONS_MAX, help="of a gateway process")
    given = parser.parse_args()
    sys.stdout.write(text([Fleet(count, given.interval, given.connections) for count in given.vehicles]) + "\n")
    sys.stdout.write(f"One PostgreSQL, by the size of a month: {vehicles_of_one_table(given.interval):,} vehicles\n")


if __name__ == "__main__":
    main()
