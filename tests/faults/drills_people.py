"""Tier G, for people: what we depend on is away for a while, and the right people hear of the right thing, once.

    python -m tests.faults.drills_people [--seconds 60] [--direct | --broker | --only NAME] [--quick] [--save]

Fault model: F3 and F4, and a process that hangs. A webhook is the admins' channel of a whole core, `signalkeep run`.
Of each outage it must get one message that it is there and one that it is over, each in the time that the settings
promise (four times as long on a busy machine), each delivered once; and no message and no incident of what merely
follows. Each drill has a core of its own with its usual settings and a canary; `--quick` makes it look more often.
It cannot see: channels that lose what they have taken. Ends with 1 if anything broke.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from signalkeep import limits
from signalkeep.config import Settings
from signalkeep.errors import EnvironmentFault
from tests.faults.kills import lines_of
from tests.faults.people import MARGIN_BYTES, Outage, Scene, Subject, Told, carry_out, scene
from tests.faults.results import Table, save
from tests.faults.victims import GATEWAY, INGEST, POSTMASTER, find, stopped

HOST: Final = socket.gethostname()
TELL_S: Final = 2 * limits.NOTIFY_S * 1.1 + limits.JOB_JITTER_S_MAX  # decide whom to tell, then send it
NO_SERVER_STARTS: Final = "no_such_setting = on\n"  # PostgreSQL refuses a file that says this
COLUMNS: Final = (
    "taken away", "people hear", "told after s", "at most s", "over after s", "over at most s", "messages",
)  # fmt: skip


# How it is taken away ------------------------------------------------------------------------------------------------


@contextmanager
def postgresql_killed(at: Scene) -> Iterator[None]:
    """SIGKILL of the postmaster, which then cannot be started."""
    configuration = next((at.core.data / "postgres").glob("*/postgresql.conf"))
    usual = configuration.read_text(encoding="utf-8")
    postmaster = find(at.core, POSTMASTER)
    assert postmaster is not None
    configuration.write_text(usual + NO_SERVER_STARTS, encoding="utf-8")
    try:
        postmaster.kill()
        yield
    finally:
        configuration.write_text(usual, encoding="utf-8")


@contextmanager
def postgresql_hangs(at: Scene) -> Iterator[None]:
    """SIGSTOP of the postmaster and all its children."""
    postmaster = find(at.core, POSTMASTER)
    assert postmaster is not None
    with stopped(postmaster):
        yield


@contextmanager
def broker_stopped(at: Scene) -> Iterator[None]:
    """RabbitMQ ends in good order, and is started again."""
    at.node.stop()
    try:
        yield
    finally:
        at.node.start()


@contextmanager
def gateway_hangs(at: Scene) -> Iterator[None]:
    with _frozen(at, GATEWAY):
        yield


@contextmanager
def ingest_hangs(at: Scene) -> Iterator[None]:
    with _frozen(at, INGEST):
        yield


@contextmanager
def _frozen(at: Scene, role: str) -> Iterator[None]:
    process = find(at.core, role)
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def disk_nearly_full(at: Scene) -> Iterator[None]:
    """A file takes so much of the data directory's disk that less is left than people should bear."""
    ballast = at.core.directory / "ballast"
    left = shutil.disk_usage(at.core.directory).free - at.nearly_full_below_bytes
    try:
        _take(ballast, left + min(MARGIN_BYTES, at.nearly_full_below_bytes // 8) // 2)
        yield
    finally:
        ballast.unlink(missing_ok=True)


def _take(file: Path, size_bytes: int) -> None:
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:
        os.posix_fallocate(descriptor, 0, size_bytes)
    finally:
        os.close(descriptor)


@contextmanager
def way_of_the_canary_cut(at: Scene) -> Iterator[None]:
    """What stands before the gateway lets nobody through: all is well but for that."""
    at.door.close()
    try:
        yield
    finally:
        at.door.open()


# What people hear, and when ------------------------------------------------------------------------------------------


def _seen_s(settings: Settings) -> float:
    """What a monitor sees is judged and told."""
    return limits.PROBE_S + settings.monitor.write_every_s + 1.1 * settings.services.every_s + TELL_S


def _bad(settings: Settings) -> float:
    return settings.services.bad_s + _seen_s(settings)


def _good(settings: Settings) -> float:
    return settings.services.good_s + _seen_s(settings)


def _hung(settings: Settings) -> float:
    return settings.monitor.hung_after_s + limits.HEARTBEAT_S + _bad(settings)


def _flight(settings: Settings) -> float:
    return 1.1 * settings.services.canary.every_s + settings.services.canary.deadline_s


def _lost(settings: Settings) -> float:
    return _flight(settings) + _seen_s(settings)


def _late(settings: Settings) -> float:
    """Of a core that has only just started: its database may have been away."""
    return limits.SERVICE_BACK_S + _flight(settings) + _lost(settings)


def _away(settings: Settings) -> float:
    return limits.LEAD_S + limits.DATABASE_CONNECT_S_MAX + settings.notify.database_away_s


def _back(_: Settings) -> float:
    return limits.RESTART_S_MAX + 1.25 * limits.RETRY_S_MAX + TELL_S


DATABASE_AWAY: Final[tuple[Subject, ...]] = (("database_away", "the database"),)
GATEWAY_HUNG: Final[tuple[Subject, ...]] = (("role_hung", f"gateway-0 on {HOST}"),)
INGEST_HUNG: Final[tuple[Subject, ...]] = (("role_hung", f"ingest-0 on {HOST}"), ("canary_lost", "the canary"))
DISK_LOW: Final[tuple[Subject, ...]] = (("disk_low", f"the journals' disk on {HOST}"),)

OUTAGES: Final[dict[str, Outage]] = {
    outage.name: outage
    for outage in (
        Outage("PostgreSQL killed, and it cannot start", DATABASE_AWAY, _away, _back, postgresql_killed),
        Outage("PostgreSQL hangs", DATABASE_AWAY, _away, _back, postgresql_hangs),
        Outage("gateway hangs", GATEWAY_HUNG, _hung, _good, gateway_hangs),
        Outage("ingest hangs", INGEST_HUNG, lambda settings: max(_hung(settings), _late(settings)),
               lambda settings: max(_good(settings), _lost(settings)), ingest_hangs),
        Outage("disk nearly full", DISK_LOW, _bad, _good, disk_nearly_full, needs=("disk",)),
        Outage("the canary's way is cut", (("canary_lost", "the canary"),), _lost, _lost, way_of_the_canary_cut),
        Outage("RabbitMQ stopped", (("broker_away", "the broker"),), _bad,
               lambda settings: 1.25 * limits.RETRY_S_MAX + _good(settings), broker_stopped, needs=("broker",)),
    )
}  # fmt: skip


# The command line ----------------------------------------------------------------------------------------------------


def run_drills(outages: Sequence[Outage], seconds: float, *, quick: bool) -> tuple[dict[str, Told], list[str]]:
    """Each with a core of its own; what became of them, and what was skipped, with the reason."""
    results: dict[str, Told] = {}
    skipped = []
    for outage in outages:
        try:
            with scene([outage], quick=quick) as at:
                (results[outage.name],) = carry_out(at, [outage], seconds=seconds)
        except EnvironmentFault as reason:
            skipped.append(f"{outage.name}: {reason}")
        except AssertionError as error:
            results[outage.name] = Told(broken=[str(error)])
        for what in results[outage.name].broken if outage.name in results else skipped[-1:]:
            sys.stderr.write(f"{outage.name}: {what}\n")
    return results, skipped


def table_of(results: Mapping[str, Told]) -> Table:
    """A row for each drill."""
    return Table(
        COLUMNS,
        [
            (
                *(name, ", ".join(kind for kind, _ in OUTAGES[name].heard), round(told.told_s, 1)),
                *(round(told.told_within_s, 1), round(told.over_s, 1), round(told.over_within_s, 1), told.messages),
            )
            for name, told in results.items()
        ],
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3, help="how long each outage lasts, at least")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--only", choices=[*OUTAGES], metavar="NAME", help="; ".join(OUTAGES))
    chosen.add_argument("--direct", action="store_true", help="only those without a broker")
    chosen.add_argument("--broker", action="store_true", help="only those with RabbitMQ")
    parser.add_argument("--quick", action="store_true", help="a core that looks more often than usual")
    parser.add_argument("--save", action="store_true", help="keep the figures for the document, if all were run")
    given = parser.parse_args()
    outages = [
        outage
        for name, outage in OUTAGES.items()
        if given.only in {None, name} and not (given.broker and "broker" not in outage.needs)
        and not (given.direct and "broker" in outage.needs)
    ]  # fmt: skip
    results, skipped = run_drills(outages, given.seconds, quick=given.quick)
    table, broken = table_of(results), [f"{name}: {what}" for name, told in results.items() for what in told.broken]
    print("\n".join(lines_of(table)))
    for text in skipped:
        print(f"SKIPPED {text}")
    print(f"{len(results)} drills, {len(skipped)} skipped; {len(broken)} broken")
    for what in broken:
        print(what)
    if given.save and len(outages) == len(OUTAGES):
        counts: dict[str, int | float] = {
            "drills": len(results),
            "skipped": len(skipped),
            "messages": sum(told.messages for told in results.values()),
            "broken": len(broken),
        }
        quick = " --quick" if given.quick else ""
        command = f"python -m tests.faults.drills_people --seconds {given.seconds:g}{quick}"
        save("drills_people", command, counts=counts, table=table)
    return min(1, len(broken))


if __name__ == "__main__":
    raise SystemExit(main())
