"""The price of the broker: the same load read straight from the journal, and sent through RabbitMQ, in one run.

For each size of packet, on an empty table each time: the direct path, then gateway, relay, RabbitMQ and one worker,
then the same with two. As many records in every run, sent flat out, and the clock runs until the last row is committed.
All of it shares this machine, RabbitMQ too: what the broker gains where it is used, more machines, is not seen here,
only what it costs. A run counts as it is: messages that were sent again, dropped or set aside are reported with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import end_to_end, rabbit_node
from benchmarks.core import Core
from benchmarks.rabbit_node import RabbitNode
from signalkeep.limits import BROKER_QUEUES
from signalkeep.simulate.fleet import FIRST_NUMBER, device_numbers
from signalkeep.vitals import IngestNumbers, RelayNumbers, Vitals

CONNECTIONS: Final = 1000
RECORDS: Final = {10: 400_000, 1: 200_000}  # sent in all, by the number in a packet
WORKERS: Final = (1, 2)
LOAD_S_MAX: Final = 120.0
SETTLED_S: Final = 30.0
VITALS_S: Final = 10.0
MIB: Final = 1 << 20


@dataclass
class Traffic:
    """What went through the broker. Counts since a core started, or between two moments."""

    messages: int = 0  # confirmed
    message_bytes: int = 0
    entries: int = 0  # of the journal, in these
    confirm_s: float = 0.0  # of all messages together
    unconfirmed: int = 0  # publishes that were tried again
    went_back: int = 0  # times that a stream began again at the cursor
    received: int = 0  # messages, by workers
    doubles: int = 0  # of these, dropped: the database had them
    holes: int = 0  # of these, dropped: something before them was missing
    set_aside: int = 0  # of these, of no use

    @classmethod
    def of(cls, vitals: list[Vitals]) -> Traffic:
        found = cls()
        for one in vitals:
            match one.numbers:
                case RelayNumbers() as relay:
                    found.messages += relay.messages
                    found.message_bytes += relay.message_bytes
                    found.entries += relay.entries
                    found.confirm_s += relay.confirm_time.sum_s
                    found.unconfirmed += relay.failures
                    found.went_back += sum(relay.went_back.values())
                case IngestNumbers(worker=worker) if worker is not None:
                    found.received += worker.messages
                    found.doubles += worker.doubles
                    found.holes += worker.holes
                    found.set_aside += sum(worker.set_aside.values())
                case _:
                    pass
        return found

    def since(self, before: Traffic) -> Traffic:
        earlier = asdict(before)
        return Traffic(**{name: value - earlier[name] for name, value in asdict(self).items()})

    def rates(self, seconds: float) -> dict[str, float]:
        """As a page shows it."""
        sent = max(1, self.messages)
        return {
            "messages_per_s": self.messages / seconds,
            "mib_per_s": self.message_bytes / MIB / seconds,
            "entries_per_message": self.entries / sent,
            "kib_per_message": self.message_bytes / 1024 / sent,
            "confirm_ms": self.confirm_s / sent * 1000,
        }


def run(place: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Every run, with its share of the direct path's rate; or why there is none, as `left_out`."""
    missing = rabbit_node.missing()
    if missing:
        say(f"THE BROKER IS NOT MEASURED: {missing}")
        return {"left_out": missing}
    runs: list[dict[str, Any]] = []
    for records in RECORDS:
        say(f"direct, {records} a packet ...")
        direct = _direct(place, records)
        runs.append({**asdict(direct), "workers": 0, "of_direct": 1.0, "of_direct_by_cpu": 1.0})
        for workers in WORKERS:
            label = f"through the broker, {_workers(workers)}, {records} a packet"
            say(f"{label} ...")
            through, traffic = _through(place, label, records, workers)
            shares = {
                "of_direct": through.committed_per_s / direct.committed_per_s,
                "of_direct_by_cpu": _cpu_us(direct) / _cpu_us(through),
            }
            say("{of_direct:.0%} of the direct path, {of_direct_by_cpu:.0%} by processor time".format(**shares))
            rates = traffic.rates(through.acknowledged / through.committed_per_s)
            runs.append({**asdict(through), "workers": workers, **shares, "traffic": asdict(traffic) | rates})
    return {"runs": runs}


def _cpu_us(made: end_to_end.Run) -> float:
    """Processor time of a record in all processes together: the rate of a machine whose cores are all busy."""
    return sum(used["cpu_us"] for used in made.usage.values())


def _direct(place: Path, records: int) -> end_to_end.Run:
    with Core(place) as core:
        core.register(device_numbers(FIRST_NUMBER, CONNECTIONS))
        return _load(core, f"direct, {records} a packet", records)


def _through(place: Path, label: str, records: int, workers: int) -> tuple[end_to_end.Run, Traffic]:
    """With a node of its own: what one run left in its memory is no part of the next."""
    with (
        RabbitNode(place) as node,
        Core(place, others={"rabbitmq": node.pid}, BROKER__URL=node.url, INGEST__PROCESSES=str(workers)) as core,
    ):
        core.register(device_numbers(FIRST_NUMBER, CONNECTIONS))
        _wait_until_shared(core, workers)
        before = Traffic.of(core.vitals())
        made = _load(core, label, records)
        return made, Traffic.of(_vitals_from_now(core)).since(before)


def _load(core: Core, label: str, records: int) -> end_to_end.Run:
    return end_to_end.run(
        core, label, connections=CONNECTIONS, records=records, seconds=LOAD_S_MAX, total=RECORDS[records]
    )


def _wait_until_shared(core: Core, workers: int) -> None:
    """Until every worker has its fair share of the queues, and takes them."""
    end = time.monotonic() + SETTLED_S
    while True:
        taken = [
            len(one.numbers.worker.queues)
            for one in core.vitals()
            if isinstance(one.numbers, IngestNumbers) and one.numbers.worker and one.numbers.worker.connected
        ]
        if len(taken) == workers and sum(taken) == BROKER_QUEUES and max(taken) - min(taken) <= 1:
            return
        if time.monotonic() > end:
            raise SystemExit(f"the workers do not share the queues: they have {taken}")
        time.sleep(0.2)


def _vitals_from_now(core: Core) -> list[Vitals]:
    """What the roles say of themselves after this moment: at the end, what they counted has to be complete."""
    began = time.monotonic()
    while True:
        found = core.vitals()
        if all(one.beat_s >= began for one in found) or time.monotonic() > began + VITALS_S:
            return found
        time.sleep(0.2)


def _workers(count: int) -> str:
    return f"{count} worker{'s' if count > 1 else ''}"
