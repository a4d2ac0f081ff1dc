"""What outage drills have in common: the result of one, load that is watched during an outage, and the end of a drill.

A drill is a function of seconds that returns a `Result`; it has a core and fleets of its own. One that this machine
cannot carry out raises `Impossible` with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.core import Core
from tests.faults.fleet import Load
from tests.faults.judgement import Judgement, judge, recovery_s
from tests.servers import run_sync, wait_until

GROWS_S_MAX = 60.0  # in which at least one more record must have been acknowledged


class Impossible(Exception):
    """This machine cannot do it; the message says why."""


@dataclass
class Result:
    """`broken`: in words, empty if all is as promised. `named`: what the product itself says is missing."""

    told_safe: int = 0
    told_safe_in_outage: int = 0
    outage_s: float = 0.0
    drain_s: float = 0.0
    missing: int = 0
    doubled: int = 0
    spurious: int = 0
    named: str = ""
    broken: list[str] = field(default_factory=list)

    def take(self, found: Judgement) -> None:
        """What the judge found."""
        self.told_safe = found.verdict.safe
        self.missing, self.doubled = found.verdict.missing, found.verdict.doubled
        self.spurious = found.verdict.spurious
        self.broken += found.broken


def hold(driving: Load, seconds: float) -> int:
    """Let the outage last so long, while devices are acknowledged all along; how many records were.

    AssertionError if they are not.
    """
    began, end_s = driving.told_safe, time.monotonic() + seconds
    driving.wait_for_progress(20)
    while time.monotonic() < end_s:
        driving.wait_for_progress(1, GROWS_S_MAX)
    return driving.told_safe - began


def end(core: Core, dsn: str, driving: Load, result: Result, *, over_s: float) -> None:
    """The outage is over since then: the backlog drains, the fleets send what is left, the judge judges."""
    result.drain_s = recovery_s(core.ports["json"], dsn, over_s)  # entries are ingested in their order
    driving.wait_for_progress(20)
    result.take(judge(core, dsn, driving.oracle, unconfirmed=driving.end()))


def ask(dsn: str, *statements: str) -> list[Any]:
    """Statements over a connection that may write, whatever the server's default is; the rows of the last."""

    async def work() -> list[Any]:
        settings = {"default_transaction_read_only": "off"}
        connection = await asyncpg.connect(dsn, timeout=20, command_timeout=60, server_settings=settings)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return list(await connection.fetch(statements[-1]))
        finally:
            await connection.close(timeout=10)

    return run_sync(work())


def wait_until_asked(dsn: str, query: str, is_met: Callable[[Any], bool], what: str, deadline_s: float = 60) -> Any:
    """Until the first row of a query is as wanted; that row."""
    found: list[Any] = []

    def met() -> bool:
        found[:] = ask(dsn, query)
        return bool(found) and is_met(found[0])

    wait_until(met, deadline_s, what=what)
    return found[0]


def findings(dsn: str) -> dict[str, str]:
    """What the core has found out itself, by kind."""
    rows = ask(dsn, "SELECT * FROM finding WHERE device_id IS NULL ORDER BY 1")
    return {row["kind"]: f"{row['subject']}: {row['detail']}" for row in rows}
