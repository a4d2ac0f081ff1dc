"""Hundreds of connections that do their worst to a gateway, until this process is killed: run by test_hostile.

hostile_peers.py PORT CONNECTIONS MESSAGE_IN_HEX
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import uvloop

PORT, CONNECTIONS, MESSAGE = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
PAUSE_S = 0.05


async def open_one() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", PORT, limit=1 << 12)


async def silent() -> None:
    reader, _ = await open_one()
    await reader.read()


async def byte_by_byte() -> None:
    _, writer = await open_one()
    for byte in MESSAGE[:-1] * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(PAUSE_S)


async def connect_and_close() -> None:
    _, writer = await open_one()
    writer.transport.abort()


async def never_reads() -> None:
    """The stream reads a little ahead, and no more."""
    _, writer = await open_one()
    while True:
        writer.write(MESSAGE * 50)
        await writer.drain()


async def garbage() -> None:
    _, writer = await open_one()
    while True:
        writer.write(os.urandom(4096))
        await writer.drain()
        await asyncio.sleep(PAUSE_S)


async def valid_frames() -> None:
    reader, writer = await open_one()
    while True:
        writer.write(MESSAGE * 100)
        await writer.drain()
        await reader.read(1 << 16)


ATTACKS = (silent, byte_by_byte, connect_and_close, never_reads, garbage, valid_frames)


async def for_ever(number: int) -> None:
    """Come again when thrown out."""
    while True:
        with contextlib.suppress(OSError, RuntimeError):  # uvloop: written to after its end
            await ATTACKS[number % len(ATTACKS)]()
        await asyncio.sleep(PAUSE_S)


async def main() -> None:
    await asyncio.gather(*(for_ever(number) for number in range(CONNECTIONS)))


if __name__ == "__main__":
    uvloop.run(main())
