"""What the organizer has done, whoever was killed meanwhile: nothing twice, nothing by halves. Plain SQL, from outside.

    incidents    of a kind and subject at most one is not cleared; each was opened once, and its history is that of its
                 state: it was reopened as often as it says, and cleared once for each time that it began and is over
    messages     at most one for each event and channel
    findings     of a device at most one for each day and rule, of anything else one for each kind and subject
    judging      `said` is what sweeps have come to; days judged afresh must come to the same

What it cannot see: what the organizer should have found and did not, and whom a message has reached.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg

from tests.servers import run_sync

QUESTIONS: Final[dict[str, str]] = {
    "incidents that are open twice": """
        SELECT kind, subject, count(*) FROM incident WHERE state <> 'cleared' GROUP BY 1, 2 HAVING count(*) > 1
    """,
    "incidents whose history is not that of their state": """
        SELECT i.kind, i.subject, i.state, i.reopened, string_agg(e.what, ', ' ORDER BY e.id) AS history
        FROM incident i LEFT JOIN incident_event e ON e.incident_id = i.id GROUP BY i.id
        HAVING count(*) FILTER (WHERE e.what = 'opened') <> 1
            OR count(*) FILTER (WHERE e.what = 'reopened') <> i.reopened
            OR count(*) FILTER (WHERE e.what = 'cleared') <> i.reopened + (i.state = 'cleared')::int
    """,
    "messages that were written twice": """
        SELECT event_id, channel, count(*) FROM notification WHERE event_id IS NOT NULL
        GROUP BY 1, 2 HAVING count(*) > 1
    """,
    "findings that are there twice": """
        SELECT device_id, day, kind, CASE WHEN device_id IS NULL THEN subject END AS subject, count(*) FROM finding
        GROUP BY 1, 2, 3, 4 HAVING count(*) > 1
    """,
}
SAID: Final = """
SELECT d.device_number, f.day, f.kind, f.count, f.state FROM finding f JOIN device d ON d.id = f.device_id
WHERE d.device_number LIKE $1 ORDER BY 1, 2, 3
"""
MARKED: Final = """
SELECT d.device_number, s.wire_time, s.flags FROM signal s JOIN device d ON d.id = s.device_id
WHERE d.device_number LIKE $1 ORDER BY 1, 2, s.digest
"""
SCORED: Final = """
SELECT d.device_number, q.day, q.signals, q.overall, q.hits::text
FROM quality_score q JOIN device d ON d.id = q.device_id WHERE d.device_number LIKE $1 ORDER BY 1, 2
"""
EXAMPLES_SHOWN: Final = 3


def broken(dsn: str) -> list[str]:
    """What is there twice or by halves, in words."""
    found = run_sync(_ask(dsn, [(question, ()) for question in QUESTIONS.values()]))
    return [
        f"{len(rows)} {what}: {'; '.join(str(row) for row in rows[:EXAMPLES_SHOWN])}"
        for what, rows in zip(QUESTIONS, found, strict=True)
        if rows
    ]


def said(dsn: str, numbers: str) -> dict[str, list[tuple[Any, ...]]]:
    """Findings, marks and scores of devices whose numbers are like that."""
    found = run_sync(_ask(dsn, [(question, (numbers,)) for question in (SAID, MARKED, SCORED)]))
    return dict(zip(("findings", "marks", "scores"), found, strict=True))


async def _ask(dsn: str, questions: list[tuple[str, tuple[str, ...]]]) -> list[list[tuple[Any, ...]]]:
    """The answers, of one moment."""
    connection = await asyncpg.connect(dsn, timeout=60, command_timeout=60)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return [[tuple(row) for row in await connection.fetch(text, *given)] for text, given in questions]
    finally:
        await connection.close(timeout=10)
