"""A writer as a process of its own, on real files; the test kills it. Prints what became durable, one number a line."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from signalkeep.clock import SystemClock
from signalkeep.journal.files import LocalFileSystem
from signalkeep.journal.writer import JournalWriter
from tests.journal.support import frame


async def main(root: Path) -> None:
    writer = JournalWriter.create(LocalFileSystem(), root, clock=SystemClock(), segment_bytes=1 << 18)
    task = asyncio.create_task(writer.run())
    number = 0

    def told(durable: bool, number: int) -> None:
        assert durable
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()

    while True:
        for _ in range(number % 7 + 1):
            number += 1
            writer.append(frame(number, number % 3_000), lambda durable, number=number: told(durable, number))  # type: ignore[misc]  # B023: bound now
        await asyncio.sleep(0)
        while writer.pending_bytes > 100_000:
            await asyncio.sleep(0)
        assert not task.done()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
