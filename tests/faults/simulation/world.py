"""One seed: a fleet drives, things break, the faults stop, and then everything that was promised is looked at.

    outcome = run(Scenario(seed=7), server, dsn)      Broken says which invariant does not hold

A seed decides which faults there are, when, and how long; how messages are cut, late and grouped; what a power loss
leaves. Checked: I1 (conservation), I2 (uniqueness), I3 (provenance), I4 (order), I5 (at the instant an answer leaves,
its message is in the disk's durable image), I6 (liveness), I7 (nothing is left over), I9 (refusals are counted) and
I10 (the product's own audit agrees). I8 (recovery interrupted) is the journal's: tests/journal/test_crashes.py.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from unittest import mock

from signalkeep import limits
from signalkeep.config import Settings
from signalkeep.errors import DatabaseUnavailable, SignalkeepError
from signalkeep.gateway.service import GatewayService
from signalkeep.gateway.tcp import Port
from signalkeep.ingest.service import IngestService
from signalkeep.protocols.registry import PROTOCOLS
from signalkeep.store.postgres import Connection as RealConnection
from tests.faults.checker import Key
from tests.faults.simulation.broker_side import BrokerSide
from tests.faults.simulation.database import Database, Server
from tests.faults.simulation.examine import examine
from tests.faults.simulation.network import Wire
from tests.faults.simulation.process import Process, ProcessDisk, Run, task_factory
from tests.faults.simulation.scenario import Broken, Outcome, Scenario
from tests.faults.simulation.trouble import Trouble
from tests.faults.simulation.units import Record, Refused, Unit
from tests.faults.simulation.virtual_time import BEGIN, VirtualClock, VirtualLoop
from tests.journal.simdisk import Crash, SimDisk

DATA: Final = Path("/simulated/data")
STOP_S: Final = limits.DATABASE_COMMAND_S_MAX + 60.0  # a call that nobody answers is waited for
DRAIN_S: Final = 150.0  # faults have stopped: everything must be in by then


PLACES: Final = """
SELECT j.id, j.uuid, min(c.seq) AS seq, j.durable_seq, j.ended_at IS NOT NULL AS ended
FROM cursor c JOIN journal j ON j.id = c.journal_id GROUP BY j.id ORDER BY j.id
"""


def run(scenario: Scenario, server: Server, dsn: str) -> Outcome:
    """Raises Broken."""
    random.seed(scenario.seed)  # the jitter of the product's own waiting
    loop = VirtualLoop(random.Random(f"threads {scenario.seed}"))
    loop.set_task_factory(task_factory)
    asyncio.set_event_loop(loop)
    try:
        world = World(scenario, loop, server, dsn)
        with world.made_up():
            loop.run_until_complete(world.run())
        return world.outcome
    finally:
        _bury(loop)
        asyncio.set_event_loop(None)
        loop.close()


class _Gateway(GatewayService):
    """The real one, with ports that a wire is put into."""

    async def _listen(self) -> dict[str, int]:
        self.ports = {name: Port(self._shared, PROTOCOLS[name]) for name in self._settings.gateway.ports}
        return dict(self._settings.gateway.ports)

    async def _connect(self) -> RealConnection:
        raise DatabaseUnavailable("this gateway goes on with what it knows")


class _Ingest(IngestService):
    """The real one, with connections that can fail."""

    open_connection: Callable[[], Awaitable[Any]]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.database.connect = self._connect  # type: ignore[method-assign]  # this one alone

    async def _connect(self) -> RealConnection:
        connection = await self.open_connection()
        self.database.on_ready()
        return connection  # type: ignore[no-any-return]  # it has what the core uses of one


class World:
    """A machine, its disk, its database and the fleet that sends to it."""

    def __init__(self, scenario: Scenario, loop: VirtualLoop, server: Server, dsn: str) -> None:
        self.scenario, self.loop = scenario, loop
        self.rng = random.Random(f"faults {scenario.seed}")
        self._network = random.Random(f"network {scenario.seed}")
        self._uuids = random.Random(f"journals {scenario.seed}")
        self.clock = VirtualClock(loop)
        self.database = Database(server, dsn, random.Random(f"database {scenario.seed}"))
        self.database.the_fault = scenario.database_fault
        self.database.claims_help = not scenario.faults or self.rng.random() < 0.7
        self.disk = self._prepared(SimDisk())
        for path in (DATA.parent, DATA, DATA / "journal"):
            self.disk.mkdir(path)
            self.disk.sync_directory(path.parent)
        self.side = BrokerSide(self) if scenario.broker else None
        self.settings = self._chosen_settings()
        self._gateway: _Gateway | None = None
        self._processes: dict[str, Process] = {}
        self.wires: dict[Wire, Process] = {}
        self._stops: dict[str, asyncio.Event] = {}
        self.trouble = Trouble(self, scenario)
        self.killed_gateways = 0
        self.safe: set[Key] = set()
        self.sent: dict[Key, dict[str, Any]] = {}
        self._problems: list[Broken] = []
        self.outcome = Outcome(scenario.seed)
        self.units = [
            Unit(
                number,
                "teltonika" if number % 3 else "json",
                scenario.records,
                seed=scenario.seed,
                begin=BEGIN - timedelta(hours=1 + number),
                peculiar=scenario.peculiar,
                pace=scenario.pace,
            )
            for number in range(scenario.units)
        ]

    # What units need

    async def open_wire(self, protocol: str, peer: tuple[str, int]) -> Wire:
        await asyncio.sleep(self._network.uniform(0.005, 0.1))
        gateway, process = self._gateway, self._processes.get("gateway")
        if gateway is None or process is None or not process.alive or not hasattr(gateway, "ports"):
            raise Refused
        connection = gateway.ports[protocol].connection()
        wire = Wire(self.loop, self._network, peer, connection, on_acknowledged=self._acknowledged)
        self.wires[wire] = process
        return wire

    def told_safe(self, record: Record) -> None:
        self.safe.add(record.key)

    def _acknowledged(self, raw: bytes) -> None:
        """An answer leaves the gateway."""
        if not self._is_durable(raw):
            self.broken("I5", f"an answer left before this was in the disk's durable image: {raw[:80]!r}")

    def first_sent(self, record: Record) -> None:
        self.sent.setdefault(record.key, record.as_sent())

    def count(self, what: str, by: int = 1) -> None:
        self.outcome.sometimes[what] += by

    # The run

    @contextmanager
    def made_up(self) -> Iterator[None]:
        """Chance where the product asks the system for some."""
        of_broker = self.side.made_up() if self.side else nullcontext()
        with mock.patch("signalkeep.journal.writer.uuid4", self._uuid), of_broker:
            yield

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._uuids.getrandbits(128))

    async def run(self) -> None:
        """A drive with faults, then quiet, then the checks."""
        roles = [self.loop.create_task(self._supervise(name, start)) for name, start in self._roles().items()]
        if self.side is not None:
            roles.append(self.loop.create_task(self.side.watch()))
        fleet = [self.loop.create_task(unit.drive(self, self.scenario.seconds)) for unit in self.units]
        trouble = self.loop.create_task(self.trouble.run()) if self.scenario.faults else None
        await asyncio.sleep(self.scenario.seconds / 2)
        if self.scenario.restarts:
            self.kill("gateway")
            self.kill("ingest")
        await asyncio.sleep(self.scenario.seconds / 2)
        if trouble is not None:
            trouble.cancel()
            await asyncio.wait([trouble])
            if not trouble.cancelled():
                trouble.result()
        self.trouble.calm()
        for unit in self.units:
            unit.calm = True
        await self._drained(fleet)
        for task in roles:
            task.cancel()
        await self._stopped()
        examine(self)
        if self._problems:
            raise self._problems[0]

    async def _drained(self, fleet: list[asyncio.Task[None]]) -> None:
        """I6: everything told safe, everything in the database."""
        end = self.loop.time() + DRAIN_S
        while self.loop.time() < end:
            for task in fleet:
                if task.done():
                    task.result()
            if all(task.done() for task in fleet) and self._nothing_pending():
                return
            await asyncio.sleep(5.0 if self.scenario.faults else 0.2)
        for task in fleet:
            task.cancel()
        if self._problems:
            raise self._problems[0]
        waiting = [unit.device_number for unit in self.units if not unit.done.is_set()]
        raise Broken(
            "I6", f"{DRAIN_S:.0f} s after the last fault {len(waiting)} units wait ({waiting[:3]}), {self._places()}"
        )

    def _places(self) -> str:
        """How far each journal is in the database."""
        rows = self.ask(PLACES)
        places = [f"journal {row['id']}: {row['seq']} of {row['durable_seq']}" for row in rows]
        if self.side is not None:
            places.append(f"{self.side.broker.messages} messages are in the broker")
        return "; ".join(places)

    def _nothing_pending(self) -> bool:
        """The database has every entry of every journal that is on the disk."""
        gateway = self._gateway
        if gateway is None or gateway.held or gateway.writer.pending_bytes:
            return False
        if self.side is not None and self.side.broker.messages:
            return False
        rows = self.ask(PLACES)
        known = {row["uuid"].hex: row for row in rows}
        for name in self.disk.listdir(DATA / "journal"):
            if "." in name:
                continue
            row = known.get(name)
            if row is None:
                return False
            alive = gateway.writer.journal_id.hex == name
            if (row["seq"] < gateway.writer.durable_seq) if alive else not row["ended"]:
                return False
        return True

    def ask(self, query: str, *arguments: Any) -> list[Any]:
        return self.database.server.ask(self.database.dsn, query, *arguments)

    # Roles

    def _roles(self) -> dict[str, Run]:
        if self.side is not None:
            return {"gateway": self._run_gateway, **self.side.roles}
        roles: dict[str, Run] = {"gateway": self._run_gateway, "ingest": self._run_ingest}
        if not self.database.claims_help:
            roles["second ingest"] = self._run_ingest
            self.count("two ingest processes for the same journals")
        return roles

    def process(self, name: str) -> Process | None:
        """The one that has this role now."""
        return self._processes.get(name)

    def stop_of(self, process: Process) -> asyncio.Event:
        """What tells a process to stop."""
        stop = self._stops[process.name] = asyncio.Event()
        return stop

    async def _supervise(self, name: str, start: Run) -> None:
        """Keep one process of a role alive, as the supervisor does."""
        while True:
            process = Process(name)
            self._processes[name] = process
            task = process.start(start(process))
            await asyncio.wait([task])
            process.kill()
            self._lose_wires(process)
            error = None if task.cancelled() else task.exception()
            if isinstance(error, Exception) and not isinstance(error, SignalkeepError):
                self.broken("I6", f"{name} ended with {type(error).__name__}: {error}")
                raise error
            self.count(f"{name} started again")
            await asyncio.sleep(self.rng.uniform(0.1, 1.5) * self.scenario.pace)

    async def _run_gateway(self, process: Process) -> None:
        gateway = _Gateway(
            self.settings,
            fs=ProcessDisk(process, self.disk, self.trouble.before),
            clock=self.clock,
            stop=self.stop_of(process),
        )
        gateway.intake._on_change = self._intake_changed
        self._gateway = gateway
        await gateway.run(lambda _: None)

    async def _run_ingest(self, process: Process) -> None:
        ingest = _Ingest(
            self.settings,
            fs=ProcessDisk(process, self.disk, self.trouble.before),
            clock=self.clock,
            stop=self.stop_of(process),
        )
        ingest.open_connection = lambda: self.database.connect(process)
        await ingest.run()

    async def _stopped(self) -> None:
        """An orderly end of what still runs."""
        for stop in self._stops.values():
            stop.set()
        end = self.loop.time() + STOP_S
        while any(process.tasks for process in self._processes.values()):
            if self.loop.time() > end:
                left = [task.get_name() for process in self._processes.values() for task in process.tasks]
                raise Broken("I7", f"{STOP_S:.0f} s after the stop these still run: {left}")
            await asyncio.sleep(0.5)
        if self._gateway is not None and self._gateway._shared.connections:
            raise Broken("I7", f"{len(self._gateway._shared.connections)} connections are left")
        for process in self._processes.values():
            if process.files:
                raise Broken("I7", f"{process.name} has ended and left {len(process.files)} files open")
            process.kill()

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self._processes.get(name)
        if process is None or not process.alive:
            return
        self.killed_gateways += name == "gateway"
        if self.side is not None:
            self.side.killed(name)
        process.kill()
        self._lose_wires(process)

    def _lose_wires(self, process: Process) -> None:
        for wire in [wire for wire, owner in self.wires.items() if owner is process]:
            del self.wires[wire]
            wire.die()

    def power_fails(self) -> None:
        """Every process dies, and the disk keeps what it must and some of the rest."""
        crash = self.rng.choice(list(Crash))
        for name in list(self._processes):
            self.kill(name)
        self.disk = self._prepared(self.disk.power_loss(self.rng, crash))
        self.count(f"power failed: {crash.name}")

    # Checks

    def _is_durable(self, raw: bytes) -> bool:
        # Searched from the end, near which it was written.
        return any(content.rfind(raw) >= 0 for content in self.disk.durable_contents())

    def _intake_changed(self, reasons: set[Any]) -> None:
        if reasons and self._gateway is not None:
            for reason in reasons:
                self.count(f"sockets not read: {reason.name.lower()}")

    def broken(self, invariant: str, detail: str) -> None:
        self._problems.append(Broken(invariant, detail))

    # Making

    def _prepared(self, disk: SimDisk) -> SimDisk:
        disk.now = lambda: self.clock.now().timestamp()
        return disk

    def _chosen_settings(self) -> Settings:
        rng = random.Random(f"settings {self.scenario.seed}")
        settings = Settings.model_validate(
            {
                "data": DATA,
                "unknown_devices": "register",
                "gateway": {"ports": {"json": 1, "teltonika": 2}, "udp_ports": {}},
                "journal": {
                    "segment_bytes": 256 * 1024,
                    "replay_window_h": rng.choice((0.001, 72)),
                    "disk_free_bytes": 1 << 20,
                },
                "ingest": {"batch_frames": rng.choice((20, 100, 10_000))},
            }
        )
        return self.side.settings(settings) if self.side else settings


def _bury(loop: VirtualLoop) -> None:
    """Throw away what is left of the dead."""
    for _ in range(20):
        left = [task for task in asyncio.all_tasks(loop) if not task.done()]
        if not left:
            return
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
