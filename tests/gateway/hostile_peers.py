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


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def open_one() -> Streams:
    return await asyncio.open_connection("127.0.0.1", PORT, limit=1 << 12)


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def byte_by_byte(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in MESSAGE[:-1] * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(PAUSE_S)


async def connect_and_close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def never_reads(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The stream reads a little ahead, and no more."""
    while True:
        writer.write(MESSAGE * 50)
        await writer.drain()


async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(os.urandom(4096))
        await writer.drain()
        await asyncio.sleep(PAUSE_S)


async def valid_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(MESSAGE * 100)
        await writer.drain()
        await reader.read(1 << 16)


ATTACKS = (silent, byte_by_byte, connect_and_close, never_reads, garbage, valid_frames)


async def for_ever(number: int, streams: Streams) -> None:
    """Come again when thrown out."""
    attack = ATTACKS[number % len(ATTACKS)]
    with contextlib.suppress(OSError, RuntimeError):  # uvloop: written to after its end
        await attack(*streams)
    while True:
        await asyncio.sleep(PAUSE_S)
        with contextlib.suppress(OSError, RuntimeError):
            await attack(*await open_one())


async def main() -> None:
    """Everybody is there before anybody begins: a gateway that is busy lets people in one by one."""
    everybody = [await open_one() for _ in range(CONNECTIONS)]
    await asyncio.gather(*(for_ever(number, streams) for number, streams in enumerate(everybody)))


if __name__ == "__main__":
    uvloop.run(main())
