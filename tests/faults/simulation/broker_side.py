"""What a simulated world has besides when a broker stands between gateway and database: relay, workers, the broker."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

from signalkeep import limits
from signalkeep.broker.service import RelayService
from signalkeep.config import Settings
from signalkeep.drivers.database import Database as ProductDatabase
from signalkeep.ingest import batches
from signalkeep.ingest.service import books_for
from signalkeep.ingest.worker import Worker
from signalkeep.journal.lanes import Fit
from signalkeep.journal.ranges import LaneRange
from signalkeep.store.relay import LANES
from tests.faults.simulation.bounds import Watch, too_early
from tests.faults.simulation.broker import SimBroker
from tests.faults.simulation.broker_ends import SimSender, SimSource
from tests.faults.simulation.process import Process, ProcessDisk, Run
from tests.faults.simulation.scenario import Broken

if TYPE_CHECKING:
    from tests.faults.simulation.world import World

URL: Final = "amqp://simulated"
CALL_S: Final = (0.001, 0.015)  # of the database
RELAY: Final = "relay"
WATCH_S: Final = 1.0
LOOKS_MAX: Final = 4  # of a relay at what it has been told, until it does something about it
UNANSWERED: Final = """
SELECT r.journal_id, r.lane, r.epoch FROM relay r JOIN journal j ON j.id = r.journal_id
WHERE r.hole_epoch >= r.epoch AND j.ended_at IS NULL ORDER BY 1, 2
"""
HOLES: Final = "SELECT coalesce(sum(holes), 0)::int AS n FROM relay"
SET_ASIDE: Final = "SELECT count(*)::int AS n FROM set_aside"


class BrokerSide:
    """Chosen by the seed: how many workers and queues, how large messages and windows are."""

    def __init__(self, world: World) -> None:
        self._world = world
        seed = world.scenario.seed
        rng = random.Random(f"broker's choices {seed}")
        self._queues = rng.randint(2, 4)
        self._window_bytes = rng.choice((3_000, 12_000, limits.BROKER_WINDOW_BYTES))
        self._limits = {
            "BROKER_MESSAGE_BYTES_MAX": rng.choice((1_000, 4_000, limits.BROKER_MESSAGE_BYTES_MAX)),
            "BROKER_PREFETCH": rng.choice((4, limits.BROKER_PREFETCH)),
            "RELAY_LOOK_S": rng.choice((0.5, 1.0, 2.0)),
            "BROKER_GATHER_S": rng.choice((limits.BROKER_GATHER_S, 0.4)),
            "INGEST_GATHER_S": rng.choice((limits.INGEST_GATHER_S, 0.5)),
            "CLAIM_S": 2.0,
        }
        world.database.call_s = CALL_S  # more processes take turns
        world.database.on_fetched = self._fetched
        self._rng = random.Random(f"broker {seed}")
        self.broker = SimBroker(world.loop, self._rng, self._queues)
        self.broker.on_acknowledged = self._acknowledged
        self.workers = [f"worker {number}" for number in range(rng.randint(1, 3))]
        self.sources: dict[str, SimSource] = {}
        self._relays: list[RelayService] = []
        self._all_workers: list[Worker] = []
        self._cuts = 0
        self._looks: Counter[object] = Counter()  # of relays at the lanes of a journal

    def settings(self, settings: Settings) -> Settings:
        """With a broker. The window is smaller than anybody may set it."""
        broker = settings.broker.model_copy(
            update={"url": URL, "queues": self._queues, "window_bytes": self._window_bytes}
        )
        return settings.model_copy(update={"broker": broker})

    @contextmanager
    def made_up(self) -> Iterator[None]:
        """Limits of this seed; and an eye on what workers cut."""
        with ExitStack() as stack:
            for name, value in self._limits.items():
                stack.enter_context(mock.patch.object(limits, name, value))
            fit_all = batches.fit_all

            def counted(message: LaneRange, places: dict[int, int]) -> Fit:
                found = fit_all(message, places)
                self._cuts += found is Fit.NEW and any(place > message.after_seq for place in places.values())
                return found

            stack.enter_context(mock.patch.object(batches, "fit_all", counted))
            yield

    @property
    def roles(self) -> dict[str, Run]:
        """By the names of processes: how they run."""
        return {RELAY: self._run_relay, **dict.fromkeys(self.workers, self._run_worker)}

    async def _run_relay(self, process: Process) -> None:
        world, settings = self._world, self._world.settings
        sender = SimSender(self.broker, process)
        relay = RelayService(
            settings,
            fs=ProcessDisk(process, world.disk, world.trouble.before),
            clock=world.clock,
            stop=world.stop_of(process),
            broker=sender,
        )
        watch = Watch(
            relay.stats,
            window_bytes=self._window_bytes,
            ask=world.ask,
            broken=lambda detail: world.broken("I7", detail),
        )
        sender.on_publish, sender.on_confirmed = watch.on_publish, watch.on_confirmed
        self._relays.append(relay)
        connect_by(relay.database, lambda: world.database.connect(process))
        await relay.run()

    async def _run_worker(self, process: Process) -> None:
        world, settings = self._world, self._world.settings
        source = self.sources[process.name] = SimSource(self.broker, process)
        worker = Worker(
            settings,
            source,
            make_books=books_for(settings, world.clock),
            clock=world.clock,
            stop=world.stop_of(process),
        )
        self._all_workers.append(worker)
        connect_by(worker.database, lambda: world.database.connect(process))
        await worker.run()

    def _acknowledged(self, body: bytes) -> None:
        wrong = too_early(body, self._world.ask)
        if wrong:
            self._world.broken("I1", wrong)

    async def watch(self) -> None:
        """For ever. A hole that was reported is answered before the relay has looked for it often."""
        world = self._world
        before = world.process(RELAY)
        looks: dict[tuple[int, int, int], int] = {}
        while True:
            await asyncio.sleep(WATCH_S)
            relay = world.process(RELAY)
            if relay is not before or not world.database.up or world.database.fault_rate:
                before, looks = relay, {}
                continue
            holes = [(row["journal_id"], row["lane"], row["epoch"]) for row in world.ask(UNANSWERED)]
            looks = {hole: looks.get(hole, self._looks[hole[0]]) for hole in holes}
            for (journal, lane, epoch), at in looks.items():
                if self._looks[journal] - at > LOOKS_MAX:
                    world.broken("I6", f"journal {journal}, lane {lane}: a hole in epoch {epoch} was reported in vain")
                    return

    def _fetched(self, query: str, arguments: tuple[object, ...]) -> None:
        if query == LANES:
            self._looks[arguments[0]] += 1

    def killed(self, name: str) -> None:
        """A process is about to be."""
        source = self.sources.get(name)
        if source is not None and source.in_hand:
            self._world.count("worker killed with unacknowledged messages")

    def examine(self) -> None:
        """Raises Broken; counts what happened."""
        broker, count = self.broker, self._world.count
        if any(line.open for line in broker.lines):
            raise Broken("I7", "connections to the broker are left")
        went_back = sum((relay.stats.went_back for relay in self._relays), Counter[str]())
        losses = broker.losses.total() * self._world.ask("SELECT count(*)::int AS n FROM journal")[0]["n"]
        if went_back["hole"] + went_back["vanished"] > 2 * losses:
            raise Broken("I7", f"{losses} losses, and streams went back so often: {dict(went_back)}")
        for why, times in went_back.items():
            count(f"stream went back: {why}", times)
        count("hole reported", self._world.ask(HOLES)[0]["n"])
        count("message set aside", self._world.ask(SET_ASIDE)[0]["n"])
        count("double cut", self._cuts)
        count("double dropped", sum(worker.counts.doubles for worker in self._all_workers))
        count("messages sent", sum(relay.stats.messages for relay in self._relays))
        count("publish not confirmed", sum(relay.stats.failures for relay in self._relays))
        for what, times in broker.counts.items():
            count(what, times)


def connect_by(database: ProductDatabase, connect: Callable[[], Awaitable[Any]]) -> None:
    """Give a process connections that can fail."""

    async def ready() -> Any:
        connection = await connect()
        database.on_ready()
        return connection

    database.connect = ready  # type: ignore[method-assign]  # this one alone
