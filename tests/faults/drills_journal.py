"""Drill of the journals: a directory that the database does not have whole is taken away, and given back in the end.

In between the core must start and go on, what is missing must all have come from that journal, and the core must name
it with a range of entries that are missing. Once it is back, nothing is missing: so nothing else was. What the core
cannot name: entries that its database never heard of. They are counted as "behind the range".
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final, NamedTuple

from tests.core import Core
from tests.faults.drill import Result, ask, findings, hold, wait_until_asked
from tests.faults.fleet import Load, load
from tests.faults.judgement import Judgement, dsn_of, judge, recovery_s
from tests.faults.victims import GATEWAY, INGEST, POSTMASTER, SUPERVISOR, find, kill, stopped
from tests.servers import wait_until

SEGMENT_BYTES: Final = 256 * 1024  # the least: the database hears of entries when a later segment is there
PENDING_ENTRIES_MIN: Final = 20
BATCH_FRAMES: Final = 1  # per transaction, until the journal is gone: so slow is ingest that a backlog lasts

PROGRESS: Final = """
    SELECT j.id, j.uuid::text, j.directory, j.durable_seq, min(c.seq) AS seq
      FROM journal j JOIN cursor c ON c.journal_id = j.id GROUP BY j.id ORDER BY j.id LIMIT 1
"""
NAMED: Final = re.compile(r"entries (\d+)\.\.(\d+)")


class Removed(NamedTuple):
    """A journal that was taken away, and what the database knows of it."""

    id: int
    uuid: str
    directory: Path
    durable_seq: int
    seq: int  # up to here it is ingested


def journal_removed(seconds: float) -> Result:
    """PostgreSQL hangs, the backlog is being ingested, everything is killed, the journal's directory is gone."""
    result = Result()
    core = Core(
        unknown_devices="register", journal__segment_bytes=str(SEGMENT_BYTES), ingest__batch_frames=str(BATCH_FRAMES)
    )
    with core, load(core) as driving:
        dsn = dsn_of(core)
        before, began_s = driving.told_safe, time.monotonic()
        journal = _kill_amid_backlog(core, dsn, driving, seconds)
        result.told_safe_in_outage = driving.told_safe - before
        aside = core.directory / journal.uuid
        wait_until(lambda: not _writer_lives(journal.directory), 60, what="its gateway is gone")
        journal.directory.rename(aside)
        del core.environment["SIGNALKEEP_INGEST__BATCH_FRAMES"]
        core.start()
        over_s = time.monotonic()
        result.outage_s = over_s - began_s
        result.drain_s = recovery_s(core.ports["json"], dsn, over_s)
        driving.wait_for_progress(20)
        found = judge(core, dsn, driving.oracle, unconfirmed=driving.end(), may_miss=True)
        result.take(found)
        _see_that_it_is_named(core, dsn, journal, found, result)
        aside.rename(journal.directory)
        _see_that_nothing_else_was_missing(core, dsn, driving, journal, result)
    return result


def _kill_amid_backlog(core: Core, dsn: str, driving: Load, seconds: float) -> Removed:
    """Everything but PostgreSQL ends while the database knows of entries that it does not have."""
    driving.wait_for_progress()
    postmaster = find(core, POSTMASTER)
    assert postmaster is not None
    with stopped(postmaster):
        hold(driving, seconds)
    wait_until_asked(
        dsn, PROGRESS, lambda row: row["durable_seq"] - row["seq"] > PENDING_ENTRIES_MIN, "the database knows a backlog"
    )
    kill(core, [SUPERVISOR, INGEST, GATEWAY])
    (row,) = ask(dsn, PROGRESS)
    assert row["durable_seq"] > row["seq"], "the backlog was ingested before the kill"
    return Removed(row["id"], row["uuid"], Path(row["directory"]), row["durable_seq"], row["seq"])


def _writer_lives(directory: Path) -> bool:
    """Whether any process still has files of this directory open."""
    links = Path("/proc").glob("[0-9]*/fd/*")
    return any(_leads_into(link, directory) for link in links)


def _leads_into(link: Path, directory: Path) -> bool:
    try:
        return link.readlink().is_relative_to(directory)
    except OSError:
        return False


def _see_that_it_is_named(core: Core, dsn: str, journal: Removed, found: Judgement, result: Result) -> None:
    """In the findings, by the audit and on the status page."""
    wait_until(lambda: "journal_vanished" in findings(dsn), 90, what="ingest names the journal")
    said = findings(dsn)["journal_vanished"]
    audited = next((item["detail"] for item in found.audit["findings"] if item["check"] == "journal_vanished"), "")
    page = core.json("status", expect=1)
    wanted = (str(journal.seq + 1), str(journal.durable_seq))
    for place, text in (("the findings", said), ("the audit", audited)):
        named = NAMED.search(text)
        if named is None or named.groups() != wanted or journal.directory.name not in text:
            result.broken.append(f"{place} should name entries {'..'.join(wanted)} of {journal.directory}: {text!r}")
    if journal.uuid not in page["verdict"]:
        result.broken.append(f"the status page does not name journal {journal.uuid}: {page['verdict']}")
    if not found.verdict.missing:
        result.broken.append("the drill took nothing away")


def _see_that_nothing_else_was_missing(core: Core, dsn: str, driving: Load, journal: Removed, result: Result) -> None:
    """With the journal back every record is there; those that come with it now are those that were missing."""
    again = judge(core, dsn, driving.oracle)
    result.broken += [f"with the journal back: {what}" for what in again.broken]
    (counted,) = ask(
        dsn,
        f"SELECT count(*) FILTER (WHERE seq <= {journal.durable_seq}) AS named, "
        f"count(*) FILTER (WHERE seq > {journal.durable_seq}) AS behind "
        f"FROM signal WHERE journal_id = {journal.id} AND seq > {journal.seq}",
    )
    result.named = (
        f"journal_vanished, entries {journal.seq + 1}..{journal.durable_seq}: {counted['named']} records; "
        f"behind the range: {counted['behind']}"
    )
    if counted["named"] + counted["behind"] != result.missing:
        result.broken.append(f"{result.missing} were missing, but the journal brought {tuple(counted)}")
    if not counted["named"]:
        result.broken.append("no missing record was in the range that was named")
