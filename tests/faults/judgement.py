"""After the faults: does it work again, how soon, and is everything there? Of a whole core, from outside.

`recovery_s` asks as a device and as a reader of the database would. `judge` lets `tests.faults.checker` compare what
devices were told with the rows, and holds the product's own audit against it. It cannot see what the disk would have
kept: the page cache outlives every process.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg

from tests.core import Core
from tests.faults.checker import Verdict, check
from tests.servers import run_sync, wait_until, wait_until_async

RECOVERY_S_MAX: Final = 90.0
ATTEMPT_S: Final = 2.0  # a probe that is not answered by then is sent again
FAULTS: Final = ("missing", "spurious", "corrupted", "doubled", "out_of_order")
AUDITED: Final = ("missing", "spurious", "corrupted", "doubled")  # what the audit counts, too
EXAMPLES_SHOWN: Final = 3

PROBE_ROWS: Final = """
    SELECT count(*) FROM signal s JOIN device d ON d.id = s.device_id WHERE d.device_number = $1
"""
_probe_numbers = itertools.count()


def recovery_s(port: int, dsn: str, since_s: float) -> float:
    """Seconds from `since_s` (monotonic) until a fresh event is acknowledged and its row can be read.

    AssertionError if that does not come to pass.
    """
    number = f"probe{next(_probe_numbers)}"
    event = f'{{"device_number": "{number}", "message_date": "{datetime.now(UTC):%Y/%m/%d %H:%M:%S}"}}\n'.encode()
    wait_until(lambda: acknowledged(port, event), RECOVERY_S_MAX, what="a fresh event is acknowledged")
    run_sync(_wait_for_row(dsn, number))
    return time.monotonic() - since_s


def acknowledged(port: int, event: bytes) -> bool:
    """One try to hand over an event."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=ATTEMPT_S) as connection:
        connection.sendall(event)
        return connection.recv(1) == b"1"
    return False


async def _wait_for_row(dsn: str, number: str) -> None:
    """Over as many connections as it takes."""

    async def is_there() -> bool:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncio.TimeoutError):
            connection = await asyncpg.connect(dsn, timeout=ATTEMPT_S, command_timeout=ATTEMPT_S)
            try:
                async with asyncio.timeout(RECOVERY_S_MAX):
                    while not await connection.fetchval(PROBE_ROWS, number):
                        await asyncio.sleep(0.02)
                return True
            finally:
                connection.terminate()
        return False

    await wait_until_async(is_there, RECOVERY_S_MAX, what="the row of a fresh event is there")


@dataclass
class Judgement:
    """What was found. `broken`: in words, empty if all is as promised."""

    verdict: Verdict
    audit: dict[str, Any]
    broken: list[str] = field(default_factory=list)


def judge(core: Core, dsn: str, oracle: Path, *, unconfirmed: int = 0, may_miss: bool = False) -> Judgement:
    """Compare when everything durable is in the database; the audit waits for that.

    `may_miss`: something was taken away; whether what is missing is named is for the caller to see.
    """
    audit = core.json("audit", "--oracle", str(oracle), expect=None)
    verdict = run_sync(check(dsn, oracle))
    found = Judgement(verdict, audit)
    if unconfirmed:
        found.broken.append(f"{unconfirmed} records were never acknowledged although everything works again")
    for fault in FAULTS:
        count = getattr(verdict, fault)
        if count and not (may_miss and fault == "missing"):
            examples = "; ".join(verdict.examples[fault][:EXAMPLES_SHOWN])
            found.broken.append(f"{count} {fault.replace('_', ' ')}: {examples}")
    for fault in AUDITED:
        mine, its = getattr(verdict, fault), audit["oracle"][fault]
        if bool(mine) is not bool(its) or (fault == "missing" and mine != its):
            found.broken.append(f"the audit counts {its} {fault}, the checker {mine}")
    if verdict.safe != audit["oracle"]["safe"]:
        found.broken.append(f"the audit was told of {audit['oracle']['safe']} safe records, the checker {verdict.safe}")
    if verdict.clean and not audit["ok"]:
        named = "; ".join(f"{finding['check']}: {finding['detail']}" for finding in audit["findings"][:EXAMPLES_SHOWN])
        found.broken.append(f"the audit is not content: {named}")
    return found


def dsn_of(core: Core) -> str:
    """Where the core's rows are."""
    return str(core.json("status", expect=None)["database"]["dsn"])
