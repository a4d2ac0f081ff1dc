"""What breaks, when and for how long: a seed's faults of machine, disk, database and network."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final

from tests.faults.simulation.broker_trouble import BrokerTrouble
from tests.faults.simulation.process import Process
from tests.faults.simulation.scenario import Scenario
from tests.faults.simulation.units import Refused

if TYPE_CHECKING:
    from tests.faults.simulation.world import World

QUIET_S: Final = (0.2, 2.0)  # between two faults
SYNCS: Final = ("datasync", "sync", "sync_directory")
CHANGES: Final = (*SYNCS, "pwrite", "allocate", "truncate", "open_new", "mkdir", "rmdir", "rename", "link", "unlink")
POWER, KILLED = "power", "killed"
FAILING: Final = {"ENOSPC": ("pwrite", "allocate", "open_new", "mkdir", "rename", "link"), POWER: CHANGES}
NEVER_FAIL: Final = ("close", "locked", "free_bytes")
NOT_COUNTED: Final = ("free_bytes", "close", "locked", "size", "listdir", "modified_at")


class Trouble:
    """`before` stands before each disk operation of each process; `run` goes on until it is cancelled."""

    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world, self._scenario, self._rng = world, scenario, world.rng
        self._count = world.count
        self._die_at = 0
        self._full = self._broken_disk = False
        self._of_broker = BrokerTrouble(world, world.side, world.rng) if world.side else None
        self.disk_operations = 0
        self.garbage = 0  # messages of strangers
        self.faultable = 0  # operations that the scenario's one fault could have struck

    def calm(self) -> None:
        """Faults stop."""
        self._world.database.up, self._world.database.fault_rate = True, 0.0
        self._full = self._broken_disk = False
        self._die_at = 0
        self._world.disk.free = 1 << 40
        self._world.clock.wrong_by_s = 0.0
        if self._of_broker is not None:
            self._of_broker.calm()

    async def run(self) -> None:
        """Now and then something breaks, for a while."""
        choices = [
            self._fault_kill_gateway,
            self._fault_kill_ingest,
            self._fault_kill_at_an_operation,
            self._fault_power,
            self._fault_database_away,
            self._fault_database_shaky,
            self._fault_disk_full,
            self._fault_disk_nearly_full,
            self._fault_disk_broken,
            self._fault_network,
            self._fault_clock,
            self._fault_garbage,
        ]
        most = 6
        if self._of_broker is not None:
            choices.remove(self._fault_kill_ingest)
            choices += self._of_broker.faults
            most = 10
        liked = self._rng.sample(choices, self._rng.randint(2, most))
        while True:
            await asyncio.sleep(self._rng.uniform(*QUIET_S))
            await self._rng.choice(liked)()

    async def _fault_kill_gateway(self) -> None:
        self._world.kill("gateway")
        self._count("gateway killed")

    async def _fault_kill_ingest(self) -> None:
        self._world.kill("ingest")
        self._count("ingest killed")

    async def _fault_kill_at_an_operation(self) -> None:
        self._die_at = self.disk_operations + self._rng.randint(1, 60)
        await asyncio.sleep(3.0)

    async def _fault_power(self) -> None:
        self._world.power_fails()

    async def _fault_database_away(self) -> None:
        self._world.database.go_down()
        self._count("database away")
        await asyncio.sleep(self._rng.choice((0.3, 3.0, 15.0)))
        self._world.database.up = True

    async def _fault_database_shaky(self) -> None:
        self._world.database.fault_rate = self._rng.choice((0.03, 0.15))
        await asyncio.sleep(self._rng.uniform(1.0, 8.0))
        self._world.database.fault_rate = 0.0

    async def _fault_disk_full(self) -> None:
        self._full = True
        await asyncio.sleep(self._rng.uniform(0.2, 5.0))
        self._full = False

    async def _fault_disk_nearly_full(self) -> None:
        self._world.disk.free = 0
        await asyncio.sleep(self._rng.uniform(1.5, 5.0))
        self._world.disk.free = 1 << 40

    async def _fault_disk_broken(self) -> None:
        self._broken_disk = True
        await asyncio.sleep(self._rng.uniform(0.2, 3.0))
        self._broken_disk = False

    async def _fault_network(self) -> None:
        for wire in list(self._world.wires):
            if self._rng.random() < 0.6:
                self._world.wires.pop(wire, None)
                wire.cut()
                self._count("network cut")

    async def _fault_clock(self) -> None:
        self._world.clock.wrong_by_s += self._rng.choice((-3600.0, -5.0, 5.0, 3600.0))
        self._count("clock stepped")

    async def _fault_garbage(self) -> None:
        """Somebody who is no device."""
        for _ in range(3):
            try:
                wire = await self._world.open_wire(self._rng.choice(("json", "teltonika")), ("10.9.9.9", 9))
            except Refused:
                continue
            self.garbage += 1
            wire.send(b"\xff" + self._rng.randbytes(self._rng.randint(20, 400)).replace(b"{", b"(") + b"\n")
            await asyncio.sleep(0.5)
            wire.close()

    def before(self, process: Process, name: str) -> None:
        """Before each disk operation of a process. May kill it, or fail the operation."""
        self._fail_the_one(process, name)
        if name in NOT_COUNTED:
            return
        self.disk_operations += 1
        if self.disk_operations == self._die_at:
            self._die_at = 0
            self._count(f"{process.name} killed at a disk operation")
            self._world.kill(process.name)
        process.check()
        if process.name != "gateway":
            return
        if self._full and name in ("pwrite", "allocate", "open_new") and self._rng.random() < 0.7:
            self._count("disk full")
            raise OSError(errno.ENOSPC, "no room")
        if self._broken_disk and name in ("datasync", "sync", "pwrite") and self._rng.random() < 0.05:
            self._count("disk error")
            if name == "pwrite":
                raise OSError(errno.EIO, "broken")
            self._world.disk.before = self._fail_once

    def _fail_the_one(self, process: Process, name: str) -> None:
        """The fault that the scenario names by its number."""
        number, how = self._scenario.disk_fault
        if not number or name not in FAILING.get(how, (name,)) or name in NEVER_FAIL:
            return
        self.faultable += 1
        if self.faultable != number:
            return
        self._count("the one fault")
        if how == POWER:
            self._world.power_fails()
        elif how == KILLED:
            self._world.kill(process.name)
        elif name in SYNCS:
            self._world.disk.before = self._fail_once
        else:
            raise OSError(getattr(errno, how), "made up")
        process.check()

    def _fail_once(self, name: str) -> None:
        """A sync fails, and its pages count as clean from then on."""
        self._world.disk.before = lambda _: None
        raise OSError(errno.EIO, "broken")
