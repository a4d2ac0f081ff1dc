"""The device's side of each protocol's answers, read as the makers' papers say, not as the product writes
them.

Promises: a record counts as told safe only when the answer that says so has arrived whole. Shares no code
with the gateway: a gateway that answers wrongly must not be understood by the fault it has in common with
its tester. The caller bounds the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, Protocol


class BadAnswerError(Exception):
    """The other side closed, refused, or said something that is no acknowledgement of what was sent."""


class Answers(Protocol):
    """How a device learns that its records are safe."""

    async def after_login(self, reader: asyncio.StreamReader) -> None:
        """Return once the login is accepted. Raises BadAnswerError."""
        ...

    def after_packet(self, reader: asyncio.StreamReader, records: int) -> AsyncIterator[int]:
        """How many more of the packet's records are safe, oldest first. Raises BadAnswerError."""
        ...


class TeltonikaAnswers:
    """One byte 01 accepts the login; u32, the number of records, accepts a packet, any other none of it."""

    async def after_login(self, reader: asyncio.StreamReader) -> None:
        answer = await _exactly(reader, 1)
        if answer != b"\x01":
            raise BadAnswerError(f"login answered with {answer.hex()}")

    async def after_packet(self, reader: asyncio.StreamReader, records: int) -> AsyncIterator[int]:
        answer = await _exactly(reader, 4)
        if int.from_bytes(answer) != records:
            raise BadAnswerError(f"{records} records answered with {answer.hex()}")
        yield records


class JsonAnswers:
    """No answer to a login, as there is none; one character 1 for each event, in their order."""

    async def after_login(self, reader: asyncio.StreamReader) -> None:  # noqa: ARG002 - others read it
        return

    async def after_packet(self, reader: asyncio.StreamReader, records: int) -> AsyncIterator[int]:
        while records:
            answer = await reader.read(records)
            accepted = len(answer) - len(answer.lstrip(b"1"))
            if accepted:
                yield accepted
            if not answer or accepted < len(answer):
                raise BadAnswerError(f"event answered with {answer[accepted:].hex() or 'a closed connection'}")
            records -= accepted


ANSWERS: Final[dict[str, Answers]] = {"teltonika": TeltonikaAnswers(), "json": JsonAnswers()}


async def _exactly(reader: asyncio.StreamReader, count: int) -> bytes:
    try:
        return await reader.readexactly(count)
    except asyncio.IncompleteReadError as error:
        raise BadAnswerError(f"closed after {len(error.partial)} of {count} bytes of the answer") from error
