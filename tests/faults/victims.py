"""The processes of a core that a fault may strike, found in the process table: no announcement is waited for.

Victims are ended with SIGKILL at once, or stopped and continued, always by their pid. A supervisor that was killed, or
a node of RabbitMQ, is started again here, as a service manager would; everything else the core starts again itself.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import psutil

from tests.core import Core
from tests.faults.broker_core import BrokerCore
from tests.servers import wait_until

GATEWAY, INGEST, ORGANIZER = "gateway", "ingest", "organizer"
SUPERVISOR, POSTMASTER, BACKEND = "supervisor", "postmaster", "backend"
NODE, RELAY = "RabbitMQ", "relay"
VICTIMS: Final = (GATEWAY, INGEST, ORGANIZER, SUPERVISOR, POSTMASTER, BACKEND)
VICTIMS_WITH_BROKER: Final = (NODE, RELAY, *VICTIMS)
COMES_S_MAX: Final = 60.0
PAUSE_S_MAX: Final = 0.4  # from a victim's return to the next kill: it is still busy with its recovery
NODE_PAUSE_S_MAX: Final = 4.0  # the same of RabbitMQ, which takes longer to start
OUR_BACKEND: Final = "signalkeep signalkeep"  # user and database in the title of such a process


@dataclass(frozen=True)
class Plan:
    """Whom to kill at the same moment, and whom again as soon as the first of them has come back."""

    victims: tuple[str, ...]
    again: str | None = None

    @property
    def kind(self) -> str:
        named = " + ".join(self.victims)
        if self.again is None:
            return named
        return f"{named}, {'again' if (self.again,) == self.victims else f'then {self.again}'} during recovery"

    @property
    def kills(self) -> int:
        return len(self.victims) + (self.again is not None)


FIRST_WITH_BROKER: Final = (
    Plan((NODE, RELAY)),
    Plan((NODE, INGEST)),
    Plan((RELAY, GATEWAY)),
    Plan((INGEST,), NODE),
)
"""What a run of a few rounds shall have: everybody on the way through the broker, doubled and during recovery."""


def decks(source: random.Random, victims: Sequence[str] = VICTIMS, first: Sequence[Plan] = ()) -> Iterator[Plan]:
    """Plans without end: those given first, then every victim singly, then doubled and during recovery in turn, then
    all shuffled; none comes again before each has come once."""
    single = [Plan((victim,)) for victim in victims]
    doubled = [Plan((one, other)) for place, one in enumerate(victims) for other in victims[place + 1 :]]
    recovering = [Plan((victim,), again) for victim in victims for again in victims]
    for plans in (single, doubled, recovering):
        source.shuffle(plans)
    in_turn = [plan for pair in zip(doubled, recovering, strict=False) for plan in pair]
    once = [*single, *in_turn, *recovering[len(doubled) :]]
    yield from first
    yield from (plan for plan in once if plan not in first)
    everything = [*single, *doubled, *recovering]
    while True:
        source.shuffle(everything)
        yield from everything


def find(core: Core, victim: str) -> psutil.Process | None:
    """Its process now, the first where there are several; None if there is none."""
    return next(iter(find_all(core, victim)), None)


def find_all(core: Core, victim: str) -> list[psutil.Process]:
    """All processes that are such a victim."""
    with suppress(psutil.Error):
        if victim == NODE:
            assert isinstance(core, BrokerCore)
            return [psutil.Process(core.node.pid)] if core.node.pid is not None else []
        supervisor = psutil.Process(core.process.pid)
        if victim == SUPERVISOR:
            return [supervisor] if _lives(supervisor) else []
        children = [child for child in supervisor.children() if _lives(child)]
        servers = [child for child in children if child.name().startswith("postgres")]
        if victim in (GATEWAY, INGEST, RELAY, ORGANIZER):
            return [child for child in children if child.cmdline()[1:4] == ["-m", "signalkeep", victim]]
        if victim == POSTMASTER:
            return servers
        workers = [worker for server in servers for worker in server.children() if _lives(worker)]
        ours = [worker for worker in workers if OUR_BACKEND in " ".join(worker.cmdline())]
        return [*ours, *(worker for worker in workers if worker not in ours)]
    return []


def kill(core: Core, victims: Sequence[str]) -> None:
    """SIGKILL of one of each at the same moment; they are there within a bounded time."""
    found: list[psutil.Process] = []

    def all_there() -> bool:
        found[:] = [process for victim in victims if (process := find(core, victim))]
        return len(found) == len(victims)

    wait_until(all_there, COMES_S_MAX, what=f"{', '.join(victims)} to be killed")
    for victim, process in zip(victims, found, strict=True):
        with suppress(psutil.NoSuchProcess):  # a backend may go with its postmaster
            if victim != NODE:
                process.kill()
    if NODE in victims:  # after the others: it is waited for
        assert isinstance(core, BrokerCore)
        core.node.kill()
    if SUPERVISOR in victims:
        core.process.wait(COMES_S_MAX)


def start_again(core: Core, victims: Sequence[str]) -> None:
    """Those of them that nobody else would start; they are not waited for."""
    if NODE in victims:
        assert isinstance(core, BrokerCore)
        core.node.launch()
    if SUPERVISOR in victims:
        core.launch()


def carry_out(core: Core, plan: Plan, source: random.Random) -> float:
    """Kill by the plan; when the last kill was (monotonic). What is not started by the core is being started then."""
    first = plan.victims[0]
    before = find_all(core, first)
    kill(core, plan.victims)
    last_s = time.monotonic()
    start_again(core, plan.victims)
    if plan.again is not None:
        wait_until(lambda: set(find_all(core, first)) - set(before), COMES_S_MAX, what=f"{first} comes back")
        time.sleep(source.uniform(0, NODE_PAUSE_S_MAX if first == NODE else PAUSE_S_MAX))
        kill(core, [plan.again])
        last_s = time.monotonic()
        start_again(core, [plan.again])
    return last_s


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A PostgreSQL server that hangs: its postmaster and all that it has started, SIGSTOP; SIGCONT afterwards."""
    family = [process]
    try:
        process.send_signal(signal.SIGSTOP)  # first of all: from here on it starts nobody
        family += process.children(recursive=True)
        for member in family[1:]:
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGSTOP)
        yield
    finally:
        for member in reversed(family):
            with suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGCONT)


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
