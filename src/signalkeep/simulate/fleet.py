"""N virtual devices in one process, R records per second between them, for a while; then the rest is drained.

Record number g of the fleet (from 0) is due g / R seconds after the start and belongs to unit g mod N: the
load is even, units start staggered, and duration x rate records are made, no more. When the duration is
over, or the fleet is told to stop, units make no further records but go on sending what is not
acknowledged, for at most the grace period.

One agenda holds when each unit wants to be woken next: no unit has a task or a timer of its own. Promises: the same
plan and start give the same devices and records; what the network decides is how they are cut into packets, how often
they are sent, and the order in which a newest-first unit sends its backlog. A fault of the simulator itself (its
oracle cannot be written) stops the whole fleet. Bounded: connections being opened, records that wait, every wait.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import random
import resource
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from signalkeep.clock import Clock
from signalkeep.errors import EnvironmentFault
from signalkeep.protocols.contract import Encoder
from signalkeep.simulate.answers import ANSWERS
from signalkeep.simulate.coverage import Coverage, DeviceClock, clock_of
from signalkeep.simulate.drive import Drive
from signalkeep.simulate.faults import plant
from signalkeep.simulate.faulty import Prepared, kinds_for, made_ahead
from signalkeep.simulate.full import FullDrive
from signalkeep.simulate.lines import Address, Dialler
from signalkeep.simulate.oracle import OracleWriter
from signalkeep.simulate.plan import FIRST_NUMBER, GRACE_S, Plan, device_numbers
from signalkeep.simulate.planting import Planted
from signalkeep.simulate.receiver import EVENT_CODES
from signalkeep.simulate.records import Evenly, Recorder, Records, Schedule, Vehicle
from signalkeep.simulate.roads import HOMES, region
from signalkeep.simulate.scenarios import Habits, habits_of
from signalkeep.simulate.track import TrackDrive
from signalkeep.simulate.unit import Counts, Shared, Unit

__all__ = ["FIRST_NUMBER", "GRACE_S", "Fleet", "Plan", "device_numbers", "raise_descriptor_limit"]

DESCRIPTORS_SPARE: Final = 100
AGENDA_STEP_S: Final = 0.002  # wishes that lie closer together are met together


def raise_descriptor_limit(devices: int) -> None:
    """Allow this process a connection for each device. Raises EnvironmentFault if the system will not."""
    needed = devices + DESCRIPTORS_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise EnvironmentFault(
            f"{devices} devices need {needed} open files, this system allows {hard}",
            hint="Raise the limit (ulimit -n), or simulate fewer devices in each of several processes.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Agenda:
    """When which unit wants to be woken; one timer for all."""

    def __init__(self, fail: Callable[[BaseException], None]) -> None:
        self._fail = fail
        self._entries: list[tuple[float, int, Unit]] = []
        self._count = 0  # makes entries of the same time comparable
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def add(self, unit: Unit, after_s: float) -> None:
        """Replaces what the unit wanted before."""
        unit.wake_at_s = self._loop.time() + after_s
        self._count += 1
        heapq.heappush(self._entries, (unit.wake_at_s, self._count, unit))
        if self._timer is None or self._entries[0][1] == self._count:
            self._arm()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._entries.clear()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._entries:
            self._timer = self._loop.call_at(self._entries[0][0], self._ring)

    def _ring(self) -> None:
        until_s = self._loop.time() + AGENDA_STEP_S
        due = []
        while self._entries and self._entries[0][0] <= until_s:
            at_s, _, unit = heapq.heappop(self._entries)
            if unit.wake_at_s == at_s:  # else it has wished something else since
                unit.wake_at_s = math.inf
                due.append(unit)
        try:
            for unit in due:
                unit.woken()
        except Exception as error:
            self._fail(error)
        self._arm()


class Fleet:
    """The units of a plan. `run` once; `counts` may be read meanwhile; `stop` ends the making of records."""

    def __init__(self, plan: Plan, encoder: Encoder, clock: Clock, oracle: OracleWriter | None) -> None:
        now = plan.start or clock.now()
        self._plan = plan
        self._start = now.replace(microsecond=now.microsecond // 1000 * 1000)
        self._shared = Shared(
            encoder=encoder,
            answers=ANSWERS[plan.protocol],
            clock=clock,
            around=self,
            is_udp=plan.transport == "udp",
            started_s=clock.monotonic(),
            until_s=plan.duration_s or math.inf,
            cut_rate=plan.cut_rate,
            oracle=oracle,
            answer_s=plan.answer_s,
            retry_s=plan.retry_s,
        )
        self.counts: Counts = self._shared.counts
        self.numbers = device_numbers(plan.first_number, plan.devices)
        self._stopped = asyncio.Event()
        self._units: list[Unit] = []
        self._working = 0  # units that are not done
        self.planted: list[Planted] = []  # the labels of all faults
        self.no_place: Counter[str] = Counter()  # kinds that did not fit into a unit's drive, and how often
        self._prepared = [self._prepare(index) for index in range(plan.devices)] if plan.faults else []
        if plan.faults:  # which has taken its time
            self._shared.started_s = clock.monotonic()

    def stop(self) -> None:
        """Make no more records; send what is left."""
        self._stopped.set()

    async def run(self) -> Counts:
        """Return when all is acknowledged or the grace period is over. Raises what made it impossible."""
        plan = self._plan
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._agenda = Agenda(self._fail)
        address = Address(plan.host, plan.port, plan.transport, plan.tls)
        self._dialler = Dialler(address, plan.answer_s, self._fail)
        self._units = [self._unit(index) for index in range(plan.devices)]
        self._working = plan.devices
        try:
            for unit in self._units:
                unit.woken()
            await self._time_is_up()
            if not self._ended.done():
                self._finish()
            await asyncio.wait([self._ended], timeout=plan.grace_s)
            if self._ended.done():
                self._ended.result()
        finally:
            self._agenda.close()
            self._dialler.close()
            for unit in self._units:
                unit.close()
        return self.counts

    # What a unit asks

    def dial(self, unit: Unit) -> None:
        self._dialler.dial(unit)

    def wake(self, unit: Unit, after_s: float) -> None:
        self._agenda.add(unit, after_s)

    def done(self, unit: Unit) -> None:  # noqa: ARG002 - which one does not matter
        self._working -= 1
        if self._working == 0 and self._shared.until_s <= self._shared.elapsed_s() and not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _finish(self) -> None:
        self._shared.until_s = min(self._shared.until_s, self._shared.elapsed_s())
        for unit in self._units:
            unit.finish()
        if self._working == 0 and not self._ended.done():
            self._ended.set_result(None)

    async def _time_is_up(self) -> None:
        """The duration is over, somebody said stop, or it has become impossible."""
        shared = self._shared
        left_s = None if shared.until_s == math.inf else shared.until_s - shared.elapsed_s()
        told = asyncio.ensure_future(self._stopped.wait())
        either: list[asyncio.Future[Any]] = [told, self._ended]
        try:
            await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            with suppress(asyncio.CancelledError):
                await told

    def _unit(self, index: int) -> Unit:
        plan, number = self._plan, self.numbers[index]
        name = f"{plan.seed} {number}"
        source = random.Random(f"{name} link")  # noqa: S311 - reproducible intentions, not a secret
        habits = habits_of(plan.scenario, source.random())
        clock = clock_of(source, drifts=plan.drift, wrong_share=plan.wrong_clocks)
        schedule: Schedule
        recorder: Records
        if plan.faults:
            schedule = recorder = self._prepared[index]
        else:
            schedule, recorder = self._records(index, name, habits, clock)
        return Unit(
            self._shared,
            number,
            schedule=schedule,
            recorder=recorder,
            coverage=Coverage(name, habits, has_gaps=plan.gaps),
            source=source,
            newest_first=source.random() < plan.newest_first,
        )

    def _prepare(self, index: int) -> Prepared:
        """All records of a unit, with its faults."""
        plan, number = self._plan, self.numbers[index]
        name = f"{plan.seed} {number}"
        source = random.Random(f"{name} link")  # noqa: S311 - as in _unit, so that it is the same vehicle
        habits = habits_of(plan.scenario, source.random())
        schedule, recorder = self._records(index, name, habits, clock_of(source, drifts=plan.drift, wrong_share=0.0))
        sound = made_ahead(recorder, schedule, self._start, plan.duration_s)
        kinds = kinds_for(index, plan.faults, plan.faults_per_unit, plan.seed)
        own = random.Random(f"{name} faults")  # noqa: S311 - reproducible faults, not a secret
        faulty = plant(sound, own, kinds, device_number=number)
        self.planted += faulty.planted
        self.no_place.update(faulty.no_place)
        return Prepared(faulty.records, self._start)

    def _records(self, index: int, name: str, habits: Habits, clock: DeviceClock) -> tuple[Schedule, Recorder]:
        """When a unit's records are due, and what makes them."""
        plan, start = self._plan, self._start
        codes = EVENT_CODES[plan.protocol]
        evenly = Evenly(index / plan.rate_per_s, plan.devices / plan.rate_per_s)

        def vehicle() -> Vehicle:
            source = random.Random(f"{name} drive")  # noqa: S311 - a reproducible drive, not a secret
            coverage = Coverage(name, habits, has_gaps=plan.gaps)
            if plan.track is not None:
                return full(TrackDrive(plan.track_part(index), source, start, codes, coverage))
            home = source.randrange(len(HOMES))
            return full(Drive(source, start, codes, habits=habits, roads=region(home, plan.seed), coverage=coverage))

        def full(drive: Vehicle) -> Vehicle:
            """Most faults of a vehicle show in what its engine says."""
            if not plan.faults:
                return drive
            return FullDrive(drive, random.Random(f"{name} engine"))  # noqa: S311 - reproducible values

        schedule = plan.track_part(index) if plan.track is not None and plan.as_recorded else evenly
        return schedule, Recorder(vehicle, clock, start)
