"""What a device sees of a gateway: an answer, nothing, or the end of the connection."""

from __future__ import annotations

import asyncio

ANSWER_S_MAX = 10.0


async def silent(reader: asyncio.StreamReader) -> bool:
    """Nothing arrives although the loop runs on for a while."""
    try:
        async with asyncio.timeout(0.1):
            return not await reader.read(1)
    except TimeoutError:
        return True


async def cut(reader: asyncio.StreamReader) -> bool:
    """The connection ends, by whatever means, without a byte before it."""
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            return await reader.read(1) == b""
    except ConnectionError:
        return True


async def answer(reader: asyncio.StreamReader, length: int) -> bytes:
    """The next bytes."""
    async with asyncio.timeout(ANSWER_S_MAX):
        return await reader.readexactly(length)
