"""A process that sends what waits for the channel "ops", once: `python -m tests.notify.sender DSN CHANNEL`."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.notify.support import World
from tests.servers import connected


async def main(dsn: str, channel: str) -> None:
    """For a test that kills it."""
    async with connected(dsn) as connection:
        await World(connection, {"ops": json.loads(channel)}).send()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
