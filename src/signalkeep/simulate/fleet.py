"""N virtual devices in one process, R records per second between them, for a while; then the rest is drained.

Record number g of the fleet (from 0) is due g / R seconds after the start and belongs to unit g mod N: the
load is even, units start staggered, and duration x rate records are made, no more. When the duration is
over, or the fleet is told to stop, units make no further records but go on sending what is not
acknowledged, for at most the grace period.

Promises: the same plan and start give the same devices and records. A fault of the simulator itself (its
oracle cannot be written) stops the whole fleet. Bounded: connections being opened, records that wait,
every wait.
"""

from __future__ import annotations

import asyncio
import math
import random
import resource
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.errors import CallerError, EnvironmentFault
from signalkeep.protocols.contract import Encoder
from signalkeep.simulate.answers import ANSWERS
from signalkeep.simulate.drive import EVENT_CODES, Drive
from signalkeep.simulate.oracle import OracleWriter
from signalkeep.simulate.unit import Counts, Shared, Unit

FIRST_NUMBER: Final = 356307040000000
GRACE_S: Final = 30.0
CUT_RATE: Final = 0.01
DESCRIPTORS_SPARE: Final = 100


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a fleet is to do."""

    protocol: str
    host: str = "127.0.0.1"
    port: int
    devices: int
    rate_per_s: float  # records of the whole fleet
    duration_s: float  # 0: until told to stop
    grace_s: float = GRACE_S
    seed: int = 1
    first_number: int = FIRST_NUMBER
    cut_rate: float = CUT_RATE  # share of the packets whose connection the device itself cuts
    answer_s: float = limits.SIMULATED_ANSWER_S_MAX
    retry_s: float = limits.SIMULATED_RETRY_S_MIN  # pause after the first failure; doubles with each in a row

    def __post_init__(self) -> None:
        if self.protocol not in ANSWERS:
            raise CallerError(
                f"{self.protocol}: no virtual device speaks this protocol",
                hint=f"Use one of {', '.join(ANSWERS)}.",
            )
        if not 1 <= self.devices <= limits.SIMULATED_DEVICES_MAX:
            raise CallerError(f"{self.devices} devices: from 1 to {limits.SIMULATED_DEVICES_MAX} can be simulated")
        if not (0 < self.rate_per_s < math.inf and 0 <= self.duration_s < math.inf and self.grace_s >= 0):
            raise CallerError("the rate must be above 0, duration and grace not below 0")
        if not 0 <= self.cut_rate < 1:
            raise CallerError(f"a cut rate of {self.cut_rate}: it is a share, from 0 to below 1")
        if not 10**14 <= self.first_number <= 10**15 - 10 * limits.SIMULATED_DEVICES_MAX:
            raise CallerError(f"{self.first_number}: the first device number must have 15 digits, and room above it")


def device_numbers(first_number: int, devices: int) -> list[str]:
    """Consecutive 15-digit numbers: 14 digits counted up from those of `first_number`, a Luhn check digit."""
    return [_with_check_digit(str(first_number // 10 + index)) for index in range(devices)]


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


class Fleet:
    """The units of a plan. `run` once; `counts` may be read meanwhile; `stop` ends the making of records."""

    def __init__(self, plan: Plan, encoder: Encoder, clock: Clock, oracle: OracleWriter | None) -> None:
        now = clock.now()
        self._plan = plan
        self._shared = Shared(
            host=plan.host,
            port=plan.port,
            encoder=encoder,
            answers=ANSWERS[plan.protocol],
            clock=clock,
            start=now.replace(microsecond=now.microsecond // 1000 * 1000),
            started_s=clock.monotonic(),
            interval_s=plan.devices / plan.rate_per_s,
            duration_s=plan.duration_s or math.inf,
            cut_rate=plan.cut_rate,
            oracle=oracle,
            answer_s=plan.answer_s,
            retry_s=plan.retry_s,
        )
        self.counts: Counts = self._shared.counts
        self.numbers = device_numbers(plan.first_number, plan.devices)

    def stop(self) -> None:
        """Make no more records; send what is left."""
        self._shared.stopped.set()

    async def run(self) -> Counts:
        """Return when all is acknowledged or the grace period is over. Raises what made it impossible."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._unit(index).run(), name=f"unit {number}")
                    for index, number in enumerate(self.numbers)
                ]
                await self._time_is_up()
                await _finish(tasks, self._plan.grace_s)
        except ExceptionGroup as failures:
            raise _first(failures) from None  # the other units fail for the same cause
        return self.counts

    def _unit(self, index: int) -> Unit:
        shared, number, seed = self._shared, self.numbers[index], self._plan.seed
        drive = Drive(
            random.Random(f"{seed} {number} drive"),  # noqa: S311 - a reproducible drive, not a secret
            shared.start - timedelta(seconds=1),
            EVENT_CODES[self._plan.protocol],
        )
        source = random.Random(f"{seed} {number} link")  # noqa: S311 - reproducible intentions, not a secret
        return Unit(shared, number, offset_s=index / self._plan.rate_per_s, drive=drive, source=source)

    async def _time_is_up(self) -> None:
        if self._shared.duration_s == math.inf:
            await self._shared.stopped.wait()
            return
        left_s = self._shared.started_s + self._shared.duration_s - self._shared.clock.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await self._shared.stopped.wait()


async def _finish(tasks: Iterable[asyncio.Task[None]], grace_s: float) -> None:
    _, late = await asyncio.wait(tasks, timeout=grace_s)
    for task in late:
        task.cancel()


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure


def _with_check_digit(digits: str) -> str:
    """Luhn: every second digit doubled, from the right, beginning before the check digit."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return f"{digits}{-total % 10}"
