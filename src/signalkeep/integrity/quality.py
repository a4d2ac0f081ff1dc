"""The sweep: judges the days of devices of which something new is stored, once they have settled, and old ones again.

    follow     every new signal once: the days that it speaks of are noted, with the place reached, in one transaction
    again      days that were judged by other rules or limits, newest first, and a few at random
    judge      days that wait, longest first, until the time that the sweep may take is over

Everything that it still has to do stands in the database: it may be killed at any moment and goes on where it was, and
a day that is judged twice says the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec

from signalkeep import limits
from signalkeep.clock import Clock
from signalkeep.integrity.days import Known, judge_rows
from signalkeep.rulebook import Rulebook
from signalkeep.rules.judge import Judge
from signalkeep.store import sweep
from signalkeep.store.postgres import Connection, Row
from signalkeep.store.rules import ensure_rules, event_codes
from signalkeep.telemetry import get_logger

OTHERWISE_AT_A_TIME: Final = 1000  # days judged by other rules that a sweep takes on

log = get_logger()


class Swept(msgspec.Struct):
    """What a sweep did."""

    signals: int = 0  # new ones that it has seen
    days: int = 0  # judged
    judged_signals: int = 0
    changed_flags: int = 0
    postponed: int = 0  # days for which something came while they were judged
    waiting: int = 0  # days left
    seconds: float = 0.0
    broken: dict[str, int] = {}  # rules that raised


class QualitySweep:
    """One sweep over one connection."""

    def __init__(
        self,
        connection: Connection,
        book: Rulebook,
        clock: Clock,
        *,
        budget_s: float,
        sample_days: int = 0,
        settled_s: float = limits.SWEEP_SETTLE_S,
        progress: Callable[[Swept], None] = lambda _: None,
    ) -> None:
        self._connection = connection
        self._book = book
        self._clock = clock
        self._budget_s = budget_s
        self._sample_days = sample_days
        self._settled_s = settled_s
        self._progress = progress
        self._judge = Judge()
        self.done = Swept()

    async def run(self) -> Swept:
        """Work until nothing is left or the time is over. Raises what the database raises."""
        began_s = self._clock.monotonic()
        ends_s = began_s + self._budget_s
        await ensure_rules(self._connection, self._book)
        follower = sweep.Follower()
        await follower.load(self._connection)
        # What is new goes before the rest, but not for ever: days that wait have half of the time.
        while self._clock.monotonic() < began_s + self._budget_s / 2:
            seen = await follower.follow(self._connection)
            self.done.signals += seen
            self._progress(self.done)
            if seen < limits.SWEEP_PAGE_ROWS:
                break
        fingerprint = self._book.fingerprint
        await sweep.add_judged_otherwise(self._connection, fingerprint, OTHERWISE_AT_A_TIME)
        if self._sample_days:
            await self._connection.execute(sweep.SAMPLE, self._sample_days)
        codes = await event_codes(self._connection)
        error_types = list(await self._connection.fetch(sweep.ERROR_TYPES))
        while self._clock.monotonic() < ends_s:
            days = await sweep.next_days(self._connection, settled_s=self._settled_s, count=limits.SWEEP_DAYS_AT_A_TIME)
            for waiting in days:
                if self._clock.monotonic() >= ends_s:
                    break
                await self._judge_day(waiting, codes, error_types, fingerprint)
                self._progress(self.done)
            if len(days) < limits.SWEEP_DAYS_AT_A_TIME:
                break
        self.done.waiting = await self._connection.fetchval(sweep.WAITING)
        self.done.seconds = self._clock.monotonic() - began_s
        self.done.broken = dict(self._judge.broken)
        for rule_id, error in self._judge.first_errors.items():
            log.error("a rule cannot be asked: the check itself broke", rule=rule_id, error=error)
        return self.done

    async def _judge_day(
        self, waiting: Row, codes: frozenset[tuple[str, str]], error_types: list[Row], fingerprint: int
    ) -> None:
        connection, device_id, day = self._connection, waiting["device_id"], waiting["day"]
        begins = datetime.combine(day, datetime.min.time(), UTC)
        rows = await sweep.day_rows(connection, device_id, begins)
        if len(rows) == limits.SWEEP_DAY_ROWS_MAX:
            log.warning("a day has too many signals to be judged whole", device=waiting["device_number"], day=str(day))
        known = Known(
            before=await sweep.rows_before(connection, device_id, begins) if rows else (),
            scores=list(await connection.fetch(sweep.SCORES_BEFORE, device_id, day)),
            model_attributes=await sweep.attributes_before(
                connection, sorted({row["protocol"] for row in rows}), waiting["model"], day
            ),
            marks=list(await connection.fetch(sweep.MARKS, device_id, begins)),
            error_hits=await sweep.error_hits_before(connection, device_id, begins) if rows else (),
            error_types=error_types,
            codes=codes,
            now=self._clock.now(),
        )
        profile = self._book.profile(waiting["model"], waiting["customer"] or "")
        await asyncio.sleep(0)
        judged = judge_rows(self._judge, profile, waiting, rows, known)
        subject = f"device {waiting['device_number']} on {day:%Y-%m-%d}"
        if await sweep.write_day(connection, waiting, judged, fingerprint, subject):
            self.done.days += 1
            self.done.judged_signals += len(rows)
            self.done.changed_flags += len(judged.flags)
        else:
            self.done.postponed += 1
            await connection.execute(sweep.LATER, device_id, day)
